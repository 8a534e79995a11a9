"""Piano reduction: what a band plays, as one piano would play it."""

from __future__ import annotations

import numpy as np

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

_PIANO = Track("piano", 0)
_LOUDNESS = 90


def piano_reduction(notes: np.ndarray) -> np.ndarray:
    """Play all pitched notes of a song on one piano.

    A model that has read pianos reads bands so, and one that hears harmony needs no more of them.
    Drums are left out, and of notes equal in step and pitch all but the longest.

    Args:
        notes: int32 [n, 6], columns as in NoteTable.notes.

    Returns:
        int32 [m, 6], by step and pitch, so that a step that has too many notes keeps the lowest;
        all of program 0, equally loud, in track 0.
    """
    pitched = notes[notes[:, PROGRAM] != DRUM_PROGRAM]
    order = np.lexsort((-pitched[:, DURATION], pitched[:, PITCH], pitched[:, STEP]))
    played = pitched[order]
    place = played[:, [STEP, PITCH]]
    first = np.ones(len(played), bool)
    first[1:] = (place[1:] != place[:-1]).any(1)
    played = played[first]
    played[:, [PROGRAM, VELOCITY, TRACK]] = _PIANO.program, _LOUDNESS, 0
    return played


def on_piano(table: NoteTable) -> NoteTable:
    """A song's `piano_reduction`, its only track."""
    return table.replace(notes=piano_reduction(table.notes), tracks=(_PIANO,))
