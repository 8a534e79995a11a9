"""What sounds when: notes as rolls over steps."""

from __future__ import annotations

import numpy as np

from m4m_jax.music.notes import DRUM_PROGRAM, DURATION, PITCH, PROGRAM, STEP, NoteTable


def pitched(notes: np.ndarray) -> np.ndarray:
    """The notes int32 [m, 6] that are not of drums."""
    return notes[notes[:, PROGRAM] != DRUM_PROGRAM]


def drums(notes: np.ndarray) -> np.ndarray:
    """The notes int32 [m, 6] that are of drums."""
    return notes[notes[:, PROGRAM] == DRUM_PROGRAM]


def pitch_roll(notes: np.ndarray, length: int) -> np.ndarray:
    """Which pitches sound at each step, bool [length, 128]; a note of no length sounds for one.

    notes: int32 [n, 6], columns as in NoteTable.notes; what sounds past `length` is cut off.
    """
    change = np.zeros((length + 1, 128), np.int32)
    start = notes[:, STEP].clip(max=length)
    end = (notes[:, STEP] + notes[:, DURATION].clip(1)).clip(max=length)
    np.add.at(change, (start, notes[:, PITCH]), 1)
    np.add.at(change, (end, notes[:, PITCH]), -1)
    return np.cumsum(change[:length], axis=0).astype(bool)


def class_roll(notes: np.ndarray, length: int) -> np.ndarray:
    """Which pitch classes sound at each step, drums aside, bool [length, 12]."""
    roll = np.pad(pitch_roll(pitched(notes), length), [(0, 0), (0, 4)])
    return np.logical_or.reduce(roll.reshape(length, 11, 12), axis=1)


def from_step(table: NoteTable, step: int) -> NoteTable:
    """What sounds of a table from a step on, counted from there.

    A note that began before is cut; meters and tempos move along, so a `step` that is no bar line
    moves the bars.
    """
    notes = table.notes.copy()
    late = notes[:, STEP] - step
    notes[:, DURATION] += late.clip(max=0)
    notes[:, STEP] = late.clip(0)
    length = max(table.length - step, 0)
    kept = ((late >= 0) | (notes[:, DURATION] > 0)) & (notes[:, STEP] < length)
    tempos, meters = (x.copy() for x in (table.tempos, table.meters))
    for changes in (tempos, meters):
        changes[:, 0] = (changes[:, 0] - step).clip(0)
    return table.replace(
        notes=notes[kept],
        length=length,
        tempos=_last_at_each_step(tempos),
        meters=_last_at_each_step(meters),
    )


def begun_from(table: NoteTable, step: int) -> NoteTable:
    """As `from_step`, with only the notes that begin there: those that ring on have no onset."""
    return from_step(table.replace(notes=table.notes[table.notes[:, STEP] >= step]), step)


def until_step(table: NoteTable, step: int) -> NoteTable:
    """What sounds of a table before a step; a note that lasts longer is cut."""
    notes = table.notes[table.notes[:, STEP] < step]
    notes[:, DURATION] = np.minimum(notes[:, DURATION], step - notes[:, STEP])
    return table.replace(notes=notes, length=min(table.length, step))


def _last_at_each_step(changes: np.ndarray) -> np.ndarray:
    """Tempos or meters without those that others of the same step take the place of."""
    return changes[np.append(np.diff(changes[:, 0]) > 0, True)[: len(changes)]]
