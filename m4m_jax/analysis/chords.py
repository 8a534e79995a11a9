"""Chords without training: templates over chroma and bass, and the best path through them.

Each chord is a distribution over the pitch classes that sound under it and over the bass; a beat's
likelihood under a chord is multinomial in the weights of what sounds. Of all sequences of chords
the likeliest is taken (Viterbi), where a change costs least at a bar line, more in the middle of a
bar and most at other beats. This is template matching as in Pardo and Birmingham, "Algorithms for
chordal analysis" (Computer Music Journal, 2002), with the likelihoods and the path of Bello and
Pickens, "A robust mid-level representation for harmonic content in music signals" (ISMIR 2005), and
changes that depend on the beat of the bar as in Papadopoulos and Peeters, "Joint estimation of
chords and downbeats from an audio signal" (IEEE TASLP, 2011). The constants were set by hand.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from m4m_jax.analysis.evidence import Harmony
from m4m_jax.music.grid import STEPS_PER_QUARTER
from m4m_jax.music.labels import NO_CHORD, chord_label, parse_chord

# What is known of each kind of chord beforehand, in nats a quarter note.
_KINDS = {
    "maj": 0.0,
    "min": -0.1,
    "7": -0.4,
    "maj7": -0.4,
    "min7": -0.5,
    "dim": -0.6,
    "aug": -1.1,
    "sus4": -1.2,
    "hdim7": -0.8,
    "dim7": -1.0,
}
_TONES = {kind: chord.tones for kind in _KINDS if (chord := parse_chord(f"C:{kind}"))}
_TONE_WEIGHTS = (1.0, 0.9, 0.8, 0.7)  # of a chord's tones, root first; divided by their sum
_OTHER_TONE = 0.06  # of each pitch class that is none of them
_BASS_ROOT, _BASS_TONE = 0.6, 0.12  # chance of the root, and of third and fifth, in the bass
_QUARTER_WEIGHT = 4.0  # pitch classes counted for a quarter note of the song's mean density
_BAR_LINE, _HALF_BAR, _BEAT = 1.5, 2.5, 3.5  # what a change costs there, in nats


class ChordSpan(NamedTuple):
    """A chord: the steps where it starts and ends, and its label."""

    start: int
    end: int
    text: str


class _Templates(NamedTuple):
    """Chords, C of them, and what they make of a pitch class that sounds.

    Attributes:
        roots: pitch class of each, int64 [C].
        kinds: shorthand of each.
        tones: log of a pitch class's chance over 1/12, float64 [C, 12].
        bass: the same for the bass, float64 [C, 12].
        prior: nats a quarter note, float64 [C].
    """

    roots: np.ndarray
    kinds: list[str]
    tones: np.ndarray
    bass: np.ndarray
    prior: np.ndarray


def _templates() -> _Templates:
    """All kinds on all roots."""
    tones = np.full((len(_KINDS), 12), _OTHER_TONE)
    bass = np.full((len(_KINDS), 12), (1 - _BASS_ROOT - 2 * _BASS_TONE) / 9)
    for row, low, kind in zip(tones, bass, _KINDS, strict=True):
        chord = list(_TONES[kind])
        row[chord] = _TONE_WEIGHTS[: len(chord)]
        low[chord[:3]] = _BASS_ROOT, _BASS_TONE, _BASS_TONE
    tones /= tones.sum(axis=1, keepdims=True)
    # [kinds, roots, 12]: the pitch class, counted from the root
    above = (np.arange(12) - np.arange(12)[:, None]) % 12
    return _Templates(
        np.tile(np.arange(12), len(_KINDS)),
        np.repeat(list(_KINDS), 12).tolist(),
        np.log(12 * tones[:, above]).reshape(-1, 12),
        np.log(12 * bass[:, above]).reshape(-1, 12),
        np.repeat(list(_KINDS.values()), 12),
    )


_TEMPLATES = _templates()


def recognise_chords(heard: Harmony, beats: np.ndarray, numbers: np.ndarray) -> list[ChordSpan]:
    """The chords of a song, from its first beat to its end; `N` where nothing sounds.

    Args:
        heard: what sounds, of T steps.
        beats: int64 [B], steps at which beats begin, ascending, the first 0.
        numbers: int64 [B], their numbers in the bar, from 1 on.
    """
    steps = np.diff(np.append(beats, len(heard.chroma)))  # [B]
    chroma = np.add.reduceat(heard.chroma, beats)  # [B, 12]
    bass = np.add.reduceat(heard.bass, beats)
    silent = chroma.sum(axis=1) == 0
    density = heard.chroma.sum() / max((steps * ~silent).sum(), 1)
    # [B, C]
    scores = _QUARTER_WEIGHT / max(density, 1e-9) * chroma @ _TEMPLATES.tones.T
    scores += bass @ _TEMPLATES.bass.T
    scores += steps[:, None] * _TEMPLATES.prior
    path = _best_path(scores / STEPS_PER_QUARTER, _change_costs(numbers))
    path[silent] = -1
    # The bass may change with the bar under a chord that goes on.
    first = np.flatnonzero(np.append(True, np.diff(path) != 0) | (numbers == 1))
    sums = np.add.reduceat(bass, first)
    names = [_name(index, low) for index, low in zip(path[first].tolist(), sums, strict=True)]
    new = [k for k in range(len(first)) if k == 0 or names[k] != names[k - 1]]
    starts = beats[first[new]].tolist()
    ends = [*starts[1:], len(heard.chroma)]
    texts = [names[k] for k in new]
    return [ChordSpan(*span) for span in zip(starts, ends, texts, strict=True)]


def _change_costs(numbers: np.ndarray) -> np.ndarray:
    """What it costs to change the chord at each beat, [B]."""
    bar = np.cumsum(numbers == 1)
    count = np.bincount(bar)[bar]  # beats of the bar that each is in
    half = (count % 2 == 0) & (2 * (numbers - 1) == count)
    return np.where(numbers == 1, _BAR_LINE, np.where(half, _HALF_BAR, _BEAT))


def _best_path(scores: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Indices [B] of the sequence of chords that scores most, less the costs of its changes.

    scores: [B, C]. All changes at one beat cost the same, so the best chord before is the only one
    that is worth changing from.
    """
    beats, chords = scores.shape
    total, stay = scores[0], np.arange(chords)
    came_from = np.empty((beats, chords), np.int64)
    for beat in range(1, beats):
        best = int(total.argmax())
        change = total[best] - costs[beat]
        came_from[beat] = np.where(change > total, best, stay)
        total = np.maximum(total, change) + scores[beat]
    path = np.empty(beats, np.int64)
    path[-1] = total.argmax()
    for beat in range(beats - 1, 0, -1):
        path[beat - 1] = came_from[beat, path[beat]]
    return path


def _name(index: int, bass: np.ndarray) -> str:
    """A chord's label, with its bass where that is, over half the time, another of its tones.

    bass: how long each pitch class was the lowest, [12].
    """
    if index < 0:
        return NO_CHORD
    root, kind = int(_TEMPLATES.roots[index]), _TEMPLATES.kinds[index]
    low = (int(bass.argmax()) - root) % 12
    inverted = low in _TONES[kind] and 2 * bass.max() > bass.sum()
    return chord_label(root, kind, low if inverted else 0)
