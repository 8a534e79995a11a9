"""The key of music, and the way from there to C major or A minor."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from m4m_jax.music.notes import DRUM_PROGRAM, DURATION, PITCH, PROGRAM, STEP, TRACK, NoteTable

# How well each pitch class, counted from the tonic, fits a major and a minor key.
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
_A = 9

Part = Literal["reference", "target"]


def to_common_key(notes: np.ndarray) -> int:
    """Semitones, -5 to 6, that bring music to C major, or, if it is in minor, to A minor.

    Its key is the one whose profile correlates best with how long each pitch class sounds: the
    algorithm of Krumhansl and Schmuckler, with the profiles of Krumhansl and Kessler ("Tracing the
    dynamic changes in perceived tonal organization", Psychological Review, 1982; Krumhansl,
    "Cognitive Foundations of Musical Pitch", 1990). Drums have none; nothing but drums stays.

    Args:
        notes: int32 [n, 6], columns as in NoteTable.notes.
    """
    pitched = notes[notes[:, PROGRAM] != DRUM_PROGRAM]
    if not len(pitched):
        return 0
    sounding = np.bincount(
        pitched[:, PITCH] % 12, pitched[:, DURATION].clip(1).astype(np.float64), minlength=12
    )
    # [2, 12, 12]: mode, tonic, pitch class
    profiles = np.array([[np.roll(mode, k) for k in range(12)] for mode in (_MAJOR, _MINOR)])
    profiles -= profiles.mean(axis=-1, keepdims=True)
    fit = profiles @ (sounding - sounding.mean()) / np.linalg.norm(profiles, axis=-1)
    minor, tonic = np.unravel_index(fit.argmax(), fit.shape)
    return int((minor * _A - tonic + 5) % 12) - 5


def moved(table: NoteTable, semitones: int, *, chords: bool | np.ndarray = False) -> NoteTable:
    """The music in another key: all pitched notes higher by so many semitones, -11 to 11.

    Notes that would leave the pitches 0 to 127 go to the next octave within them.

    Args:
        table: the music.
        semitones: how far.
        chords: whether it is block chords, each of which keeps its octave, that from C to B in
            which its lowest note is, as chords of labels and of lead sheets are written; or which
            of its tracks are, bool [tracks]. Notes of them that start together are a chord.
    """
    notes = table.notes.copy()
    pitched = notes[:, PROGRAM] != DRUM_PROGRAM
    step, pitch = notes[:, STEP], notes[:, PITCH]
    way = np.full(len(notes), semitones)
    of_chords = pitched & np.broadcast_to(chords, len(table.tracks))[notes[:, TRACK]]
    lowest = np.full(table.length, 127)
    np.minimum.at(lowest, step[of_chords], pitch[of_chords])
    low = lowest[step[of_chords]]
    way[of_chords] = (low + semitones) % 12 - low % 12
    pitch = (pitch + way)[pitched]
    notes[pitched, PITCH] = pitch + 12 * (pitch < 0) - 12 * (pitch > 127)
    return table.replace(notes=notes)


class InKey(NamedTuple):
    """A song's parts in the common key, and by how many semitones they were moved there."""

    reference: NoteTable | None
    target: NoteTable
    key: int


def in_common_key(
    reference: NoteTable | None, target: NoteTable, chords: Part | np.ndarray | None = None
) -> InKey:
    """Move a song's parts to the common key, by the key of the reference, or of the target alone.

    chords: which of them is block chords (`moved`), or which tracks of the target, bool [tracks].
    """
    key = to_common_key((target if reference is None else reference).notes)
    part = chords if isinstance(chords, str) else None
    if reference is not None:
        reference = moved(reference, key, chords=part == "reference")
    tracks = chords if isinstance(chords, np.ndarray) else part == "target"
    return InKey(reference, moved(target, key, chords=tracks), key)
