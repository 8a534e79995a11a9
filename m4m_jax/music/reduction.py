"""Harmonic reduction: what sounds in a song, one piano's chords in close position."""

from __future__ import annotations

import numpy as np

from m4m_jax.music.grid import STEPS_PER_QUARTER
from m4m_jax.music.notes import (
    DRUM_PROGRAM,
    DURATION,
    PITCH,
    PROGRAM,
    STEP,
    TRACK,
    VELOCITY,
    NoteTable,
    Track,
)
from m4m_jax.music.sounding import counted, sounding

_PIANO = Track("piano", 0)
_LOUDNESS = 90
_BASS, _CHORD = 36, 60  # the C of the bass's octave, and of the others'


def harmonic_reduction(notes: np.ndarray, length: int) -> np.ndarray:
    """The harmony of a song: its bass and its pitch classes, struck on every quarter.

    A harmony looks alike so, whatever plays it and on however many octaves, and a small model that
    has read pianos hears it in songs of bands. Drums are left out. A note is struck anew on each
    quarter that it rings on. The lowest of what sounds where it is struck is the bass, in the
    octave from 36 on, all else is in that from 60 on, and of notes equal in step and pitch the
    longest is left.

    Args:
        notes: int32 [n, 6], columns as in NoteTable.notes; a note of no length has 1 step.
        length: steps of the song, T; notes end with it.

    Returns:
        int32 [m, 6], by step and pitch, so that a step that has too many notes keeps the bass; all
        of program 0, equally loud, in track 0, of 1 to 4 steps.
    """
    struck = _struck(notes[notes[:, PROGRAM] != DRUM_PROGRAM], length)
    _, _, lowest = sounding(struck, length)
    bass = struck[:, PITCH] == lowest[struck[:, STEP]]
    struck[:, PITCH] = np.where(bass, _BASS, _CHORD) + struck[:, PITCH] % 12
    struck[:, [PROGRAM, VELOCITY, TRACK]] = _PIANO.program, _LOUDNESS, 0
    struck = struck[np.lexsort((-struck[:, DURATION], struck[:, PITCH], struck[:, STEP]))]
    place = struck[:, [STEP, PITCH]]
    first = np.ones(len(struck), bool)
    first[1:] = (place[1:] != place[:-1]).any(axis=1)
    return struck[first]


def moved_within_octaves(reduced: np.ndarray, semitones: int) -> np.ndarray:
    """The reduction [m, 6] of a song that is moved in pitch, from that of the song."""
    moved = reduced.copy()
    octave = np.where(reduced[:, PITCH] < _CHORD, _BASS, _CHORD)
    moved[:, PITCH] = octave + (reduced[:, PITCH] + semitones) % 12
    return moved[np.lexsort((moved[:, PITCH], moved[:, STEP]))]


def reduced(table: NoteTable) -> NoteTable:
    """A song's `harmonic_reduction`, its only track."""
    notes = harmonic_reduction(table.notes, table.length)
    return table.replace(notes=notes, tracks=(_PIANO,))


def _struck(notes: np.ndarray, length: int) -> np.ndarray:
    """Notes [n, 6], cut at the quarters -> [m, 6], m >= n, none past `length`."""
    end = np.minimum(notes[:, STEP] + notes[:, DURATION].clip(1), length)
    first, last = notes[:, STEP] // STEPS_PER_QUARTER, (end - 1) // STEPS_PER_QUARTER
    number, each = counted(last - first + 1)
    struck, line = notes[number], (first[number] + each) * STEPS_PER_QUARTER
    struck[:, STEP] = np.maximum(struck[:, STEP], line)
    struck[:, DURATION] = np.minimum(end[number], line + STEPS_PER_QUARTER) - struck[:, STEP]
    return struck
