"""Which notes sound at which steps."""

from __future__ import annotations

import numpy as np

from m4m_jax.music.notes import DURATION, PITCH, STEP

SILENT = 128
"""Above every pitch: what is lowest where nothing sounds."""


def sounding(notes: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each note once for every step that it sounds; one of no length sounds for one.

    Args:
        notes: int32 [n, 6], columns as in NoteTable.notes.
        length: steps of the song, T, with which notes end.

    Returns:
        The number of the note and the step, int64 [m] both; and the lowest pitch at each step,
        `SILENT` where there is none, int64 [T].
    """
    number, offset = counted(np.minimum(notes[:, DURATION].clip(1), length - notes[:, STEP]))
    step = notes[number, STEP] + offset
    lowest = np.full(length, SILENT)
    np.minimum.at(lowest, step, notes[number, PITCH])
    return number, step, lowest


def counted(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Item k `counts[k]` times: its index k, and 0, 1, 2, ... within it, int64 [sum] both."""
    number = np.repeat(np.arange(len(counts)), counts)
    return number, np.arange(len(number)) - np.repeat(np.cumsum(counts) - counts, counts)
