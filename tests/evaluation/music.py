"""Parts for tests of metrics, written note by note."""

from __future__ import annotations

import numpy as np

from m4m_jax.music import NoteTable, Track

Notes = list[tuple[int, int, int]]


def part(notes: Notes, length: int, *, name: str = "part", drum: bool = False, meter=(4, 4)):
    """One track of (step, duration, pitch) at 120 quarters a minute: a step lasts 1/8 s."""
    rows = [(*note, 127 if drum else 0, 80, 0) for note in notes]
    return NoteTable(
        np.array(rows, np.int32).reshape(-1, 6),
        (Track(name, 0, drum),),
        length,
        tempos=np.array([[0.0, 120.0]]),
        meters=np.array([[0.0, *meter]]),
    )


def chords(names: str, steps: int = 8) -> NoteTable:
    """Block chords, so many steps each: C, F and G major, a minor; `-` for none."""
    triads = {"C": (48, 52, 55), "F": (53, 57, 60), "G": (55, 59, 62), "a": (57, 60, 64), "-": ()}
    notes = [(k * steps, steps, p) for k, name in enumerate(names) for p in triads[name]]
    return part(notes, len(names) * steps, name="chords")
