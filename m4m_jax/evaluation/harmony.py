"""A melody and the chords to it, in the measures of Yeh et al. and in shares of its time.

Yeh et al., "Automatic melody harmonization with triad chords: a comparative study" (Journal of New
Music Research 50, 2021), section 4. They judge chords by half bars and melodies of one voice; here
what sounds at each step is a chord, whatever it is called, and a melody may have several voices.
The chord of a note is what sounds with it; where no chord sounds, nothing is judged.
"""

from __future__ import annotations

import numpy as np

from m4m_jax.evaluation.sounding import begun_from, class_roll, from_step, pitched
from m4m_jax.music.notes import PITCH, STEP, NoteTable

# How a melody's tone so many semitones above a chord's sounds (Yeh et al., PCS): unison, thirds,
# fifth and sixths 1, fourth 0, others -1.
_CONSONANCE = np.array([1, -1, -1, 1, 1, 0, -1, 1, 1, 1, -1, -1], float)
_NEAR = 2
"""Semitones that a proper non-chord tone may be away from what follows it."""


def figures(melody: NoteTable, chords: NoteTable, skip: int = 0) -> dict[str, float]:
    """All of this module's figures; those that nothing can be said of are left out.

    skip: steps at the beginning that are not judged. Notes that ring on from there sound, but are
    none of those that CTnCTR counts.
    """
    begun = begun_from(melody, skip)
    melody, chords = from_step(melody, skip), from_step(chords, skip)
    length = max(melody.length, chords.length)
    sung, heard = class_roll(melody.notes, length), class_roll(chords.notes, length)
    found = {
        "chord_tone_ratio": chord_tone_ratio(sung, heard),
        "ctnctr": chord_to_nonchord_ratio(begun.notes, heard),
        "pcs": pitch_consonance(sung, heard),
        "mctd": melody_chord_distance(sung, heard),
        "coverage": coverage(sung, heard),
    }
    return {name: value for name, value in found.items() if value is not None}


def tonal_centroid(classes: np.ndarray) -> np.ndarray:
    """Pitch classes bool [..., 12] -> their centroids in tonal space, float64 [..., 6].

    Harte, Sandler and Gasser, "Detecting harmonic change in musical audio" (2006): positions on the
    circles of fifths, minor thirds and major thirds, of radii 1, 1 and 0.5. No tone is at 0.
    """
    place = np.arange(12)[:, None] * np.array([7 / 6, 3 / 2, 2 / 3]) * np.pi  # [12, 3]
    radii = np.array([1, 1, 0.5])
    circles = np.concatenate([radii * np.sin(place), radii * np.cos(place)], axis=1)  # [12, 6]
    return classes @ circles / classes.sum(axis=-1, keepdims=True).clip(1)


def chord_tone_ratio(sung: np.ndarray, heard: np.ndarray) -> float | None:
    """Share of the melody's time, where chords sound, in which it has a tone of the chord.

    sung, heard: pitch classes at each step of melody and chords, bool [T, 12]. Each voice counts.
    """
    judged = sung[heard.any(axis=1)]
    return float((sung & heard).sum() / judged.sum()) if judged.any() else None


def coverage(sung: np.ndarray, heard: np.ndarray) -> float | None:
    """Share of the steps at which the melody sounds that have a chord; arguments as above."""
    steps = sung.any(axis=1)
    return float(heard[steps].any(axis=1).mean()) if steps.any() else None


def chord_to_nonchord_ratio(melody: np.ndarray, heard: np.ndarray) -> float | None:
    """CTnCTR of Yeh et al.: (n_c + n_p) / (n_c + n_n).

    n_c are notes that begin on a tone of their chord and n_n those that do not; n_p are those of
    the latter that a note up to two semitones away follows next; the same pitch again is so near,
    too. melody: int32 [n, 6]; heard: pitch classes of the chords, bool [T, 12].
    """
    notes = pitched(melody)
    has_chord = heard[notes[:, STEP]].any(axis=1)
    in_chord = heard[notes[:, STEP], notes[:, PITCH] % 12]
    steps, order = np.unique(notes[:, STEP], return_inverse=True)
    starting = np.zeros((len(steps) + 1, 128), bool)  # nothing follows the last
    starting[order, notes[:, PITCH]] = True
    around = notes[:, PITCH, None] + np.arange(-_NEAR, _NEAR + 1)  # [n, 5]
    there = (around >= 0) & (around < 128)
    resolved = (starting[order[:, None] + 1, around.clip(0, 127)] & there).any(axis=1)
    proper = has_chord & ~in_chord & resolved
    return float((in_chord | proper).sum() / has_chord.sum()) if has_chord.any() else None


def pitch_consonance(sung: np.ndarray, heard: np.ndarray) -> float | None:
    """PCS of Yeh et al., -1 to 1: how consonant the melody is with the tones of its chord.

    An interval from a chord's tone up to the melody's counts 1 for a unison, third, fifth or sixth,
    0 for a fourth and else -1; the mean over the tones of each step, then over steps that have
    both. sung, heard: pitch classes, bool [T, 12].
    """
    both = sung.any(axis=1) & heard.any(axis=1)
    sung, heard = sung[both], heard[both]
    table = _CONSONANCE[(np.arange(12)[:, None] - np.arange(12)) % 12]  # [melody, chord]
    score = ((sung @ table) * heard).sum(axis=1) / (sung.sum(axis=1) * heard.sum(axis=1))
    return float(score.mean()) if both.any() else None


def melody_chord_distance(sung: np.ndarray, heard: np.ndarray) -> float | None:
    """MCTD of Yeh et al.: the distance in tonal space of melody tones from their chord.

    The mean over the melody's tones, each weighted by how long it sounds. sung, heard: pitch
    classes, bool [T, 12].
    """
    step, tone = np.nonzero(sung & heard.any(axis=1, keepdims=True))
    if not len(step):
        return None
    tones, chords = tonal_centroid(np.eye(12, dtype=bool)), tonal_centroid(heard)
    return float(np.linalg.norm(tones[tone] - chords[step], axis=1).mean())
