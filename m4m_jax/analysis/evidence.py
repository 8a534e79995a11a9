"""What a song's notes say of its harmony and of its bars, step by step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from m4m_jax.music.notes import DRUM_PROGRAM, DURATION, PITCH, PROGRAM, STEP, NoteTable
from m4m_jax.music.sounding import SILENT, sounding

# A high note is more often a melody's than a chord's: its weight falls from 1 to the least between
# so many semitones above the median of what sounds.
_LOW, _HIGH, _LEAST = 4, 16, 0.5

_KICKS, _SNARES, _CRASHES = (35, 36), (37, 38, 39, 40), (49, 52, 55, 57)
_LONGEST = 16  # steps; longer notes say no more of where a bar begins
_BACKBEAT = 4  # steps from a downbeat to the snare after it
_NOVELTY = ((4, 0.5), (8, 0.7))  # steps compared on either side of a change, and its weight


class Harmony(NamedTuple):
    """What sounds at each of T steps, drums aside.

    Attributes:
        chroma: weight of each pitch class, float64 [T, 12].
        bass: 1 for the pitch class of the lowest note, float64 [T, 12]; rows of silence are 0.
    """

    chroma: np.ndarray
    bass: np.ndarray


def harmony(song: NoteTable) -> Harmony:
    """Pitch classes by duration and register, and the bass; a note of no length has 1 step."""
    notes, steps, lowest = _sounding(song)
    pitch = notes[:, PITCH]
    middle = np.median(pitch) if len(pitch) else 0.0
    weight = np.interp(pitch - middle, [_LOW, _HIGH], [1, _LEAST])
    chroma, bass = np.zeros((2, song.length, 12))
    np.add.at(chroma, (steps, pitch % 12), weight)
    heard = np.flatnonzero(lowest < SILENT)
    bass[heard, lowest[heard] % 12] = 1
    return Harmony(chroma, bass)


def accents(song: NoteTable) -> np.ndarray:
    """How much each step sounds like the first of a bar, float64 [T], of mean 0 and deviation 1.

    Bars begin where long notes and bass notes begin, where the pitch classes before and after
    differ, with kick and crash, and with the snare on the second beat (Dixon, "Automatic
    extraction of tempo and beat from expressive performances", JNMR 2001, for durations; Goto,
    "An audio-based real-time beat tracking system for music with or without drum-sounds", JNMR
    2001, for chord changes and drums).
    """
    notes, _, lowest = _sounding(song)
    onset, length = notes[:, STEP], notes[:, DURATION].clip(1, _LONGEST).astype(np.float64)
    total, longest, bass = np.zeros((3, song.length))
    np.add.at(total, onset, length)
    np.maximum.at(longest, onset, length)
    low = notes[:, PITCH] == lowest[onset]
    bass[onset[low]] = 1
    bass *= np.interp(np.median(notes[:, PITCH]) - lowest, [_LOW, _HIGH], [0, 1])
    bass *= lowest != np.append(SILENT, lowest[:-1])
    chroma = harmony(song).chroma
    kicks, snares, crashes = (_hits(song, drums) for drums in (_KICKS, _SNARES, _CRASHES))
    backbeat = np.append(snares[_BACKBEAT:], np.zeros(min(_BACKBEAT, song.length)))
    weighted = [(total, 1.0), (longest, 0.5), (bass, 2.5), (kicks, 0.5), (crashes, 0.5)]
    weighted += [(snares, -0.5), (backbeat, 0.5)]
    weighted += [(novelty(chroma, width), weight) for width, weight in _NOVELTY]
    return standard(np.sum([weight * standard(values) for values, weight in weighted], axis=0))


def standard(values: np.ndarray) -> np.ndarray:
    """Values [T] less their mean, over their deviation; zeros where they are all the same."""
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 1e-9 else np.zeros(len(values))


def novelty(chroma: np.ndarray, width: int) -> np.ndarray:
    """One minus the cosine between the `width` rows before each step and those from it on, [T]."""
    sums = np.concatenate([np.zeros((1, 12)), chroma.cumsum(axis=0)])
    here = np.arange(len(chroma))
    before = sums[here] - sums[(here - width).clip(0)]
    after = sums[(here + width).clip(max=len(chroma))] - sums[here]
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosine = (before * after).sum(axis=1) / np.where(norms > 1e-9, norms, 1)
    return np.where(norms > 1e-9, 1 - cosine, 0.0)


def _sounding(song: NoteTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pitched notes once for every step that they sound, those steps, and the lowest pitch [T]."""
    notes = song.notes[song.notes[:, PROGRAM] != DRUM_PROGRAM]
    each, steps, lowest = sounding(notes, song.length)
    return notes[each], steps, lowest


def _hits(song: NoteTable, drums: tuple[int, ...]) -> np.ndarray:
    """1 where one of these drums is struck, float64 [T]."""
    struck = (song.notes[:, PROGRAM] == DRUM_PROGRAM) & np.isin(song.notes[:, PITCH], drums)
    hits = np.zeros(song.length)
    hits[song.notes[struck, STEP]] = 1
    return hits
