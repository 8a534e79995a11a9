"""Views of songs: a stored song's notes -> the rows of a task; and windows of their tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from m4m_jax.music.compression import compress_rows
from m4m_jax.music.keys import InKey, Part, in_common_key
from m4m_jax.music.labels import bar_lines
from m4m_jax.music.notes import DRUM_PROGRAM, PITCH, PROGRAM, STEP, TRACK, NoteTable
from m4m_jax.music.parts import chord_tracks, selected_tracks
from m4m_jax.music.reduction import moved_within_octaves, reduced, struck
from m4m_jax.music.simunote import pitch_shift_range, to_rows
from m4m_jax.music.tasks import Task


class View(NamedTuple):
    """A whole song as a task sees it.

    reference: uint8 [T, N, 4] rows of what is given; None for a task without a reference.
    target: uint8 [T, N, 4] rows of what is to be written.

    A stream that the task compresses by r has ceil(T / r) rows.
    """

    reference: np.ndarray | None
    target: np.ndarray


class Draw(NamedTuple):
    """Where a window begins (a step) and by how many semitones it is moved.

    A start below 0 has that many empty steps before the song.
    """

    start: int
    shift: int


def parts(
    table: NoteTable, task: Task, names: Mapping[str, str] | None = None
) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the tracks of a song's reference (None where there is none) and target, bool [tracks].

    A random split is drawn from the notes themselves, so a song is always split the same way.

    Raises:
        M4MError: the song has no such part.
    """
    selectors = [s for s in (task.reference, task.target) if s is not None]
    *reference, target = (selected_tracks(table, s, names=names) for s in selectors)
    return (reference[0] if reference else None), target


def streams(
    table: NoteTable, task: Task, names: Mapping[str, str] | None = None
) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the notes of a song that a task reads (None without a reference) and writes.

    int32 [n, 6] both, in the key that the task has the song in; where the task says so, a reference
    is reduced to its harmony, and chords that are to be written are struck on each quarter.

    Raises:
        M4MError: the song has no such part.
    """
    given, written = parts(table, task, names)
    reference = None if given is None else table.replace(notes=shown(table.notes, given))
    target = table.replace(notes=shown(table.notes, written))
    reference, target, _ = as_read(
        reference,
        target,
        task.chords if given is not None else chord_tracks(table, names),
        common_key=task.common_key,
        harmony_by_quarter=task.harmony_by_quarter,
    )
    return (None if reference is None else reference.notes), target.notes


def as_read(
    reference: NoteTable | None,
    target: NoteTable,
    chords: Part | np.ndarray | None,
    *,
    common_key: bool,
    harmony_by_quarter: bool,
) -> InKey:
    """A song's parts as a model reads them, and by how many semitones they were moved for it.

    chords: as of `in_common_key`. common_key, harmony_by_quarter: as of the model's task; where
    only harmony is read, chords that are to be written are struck on each quarter.
    """
    found = InKey(reference, target, 0)
    if common_key:
        found = in_common_key(reference, target, chords)
    if found.reference is not None and harmony_by_quarter:
        found = found._replace(reference=reduced(found.reference))
        if isinstance(chords, str) and chords == "target":
            found = found._replace(target=struck(found.target))
    return found


def view(
    table: NoteTable,
    task: Task,
    names: Mapping[str, str] | None = None,
    *,
    max_notes: int | None = None,
) -> View:
    """Return a whole song as a task sees it, at its full length.

    Args:
        table: the song.
        task: which parts, and how they are encoded.
        names: the data set's names of parts.
        max_notes: notes that a step holds, N; the task's when `None`.

    Raises:
        M4MError: the song has no such part.
    """
    count = task.max_notes if max_notes is None else max_notes

    def rows(notes: np.ndarray, ratio: int) -> np.ndarray:
        return compress_rows(to_rows(notes, table.length, count, dedup=task.dedup), ratio)

    reference, target = streams(table, task, names)
    given = None if reference is None else rows(reference, task.compress.reference)
    return View(given, rows(target, task.compress.target))


def shown(notes: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    """The notes int32 [m, 6] of some tracks, bool [tracks]."""
    return notes[tracks[notes[:, TRACK]]]


def shift_range(notes: np.ndarray, limits: tuple[int, int]) -> tuple[int, int]:
    """Return the semitones that windows of a song may be moved by, lowest and highest.

    What its pitched notes, int32 [n, 6], allow, cut to `limits`.
    """
    low, high = pitch_shift_range(notes)
    return max(low, limits[0]), min(high, limits[1])


def whole_bars(table: NoteTable, window: int, stride: int = 1) -> np.ndarray:
    """Where windows on a song's bars begin, on the first step of one: int64 [k], ascending.

    The first is the song's, 0, unless its first bar is shorter than the next, as with a pickup:
    then that bar is made whole by steps before the song, and begins below 0. A bar that is longer
    than a window of `window` steps is not. All are multiples of `stride`.
    """
    bars = np.union1d(0, bar_lines(table)[:-1])
    starts = bars[bars % stride == 0]
    if len(bars) > 1:
        first, second = np.diff(bars, append=table.length)[:2]
        if first < second <= window and (second - first) % stride == 0:
            starts[0] = first - second
    return starts


def draw(
    length: int,
    window: int,
    rng: np.random.Generator,
    *,
    shifts: tuple[int, int] = (0, 0),
    stride: int = 1,
    starts: np.ndarray | None = None,
) -> Draw:
    """Draw a window of a song of `length` steps.

    Args:
        length: steps; a song that is shorter than the window begins at its first start.
        window: steps.
        rng: the source of the draw.
        shifts: the lowest and highest shift to draw from.
        stride: starts are multiples of this.
        starts: int64 [k], ascending from 0 or less, the multiples of `stride` that it may begin at
            (`whole_bars`); any when None.
    """
    last = max(length - window, 0) // stride
    if starts is None:
        start = int(rng.integers(last + 1)) * stride
    else:
        start = int(rng.choice(starts[starts <= last * stride]))
    return Draw(start, int(rng.integers(shifts[0], shifts[1] + 1)))


def cut(notes: np.ndarray, where: Draw, window: int, *, is_reduction: bool = False) -> np.ndarray:
    """Cut a window out of a song's notes and move it in pitch; drums stay.

    The rows of these notes are those that the whole song has there, since rows do not depend on
    each other.

    Args:
        notes: int32 [n, 6], columns as in NoteTable.notes.
        where: the window's start and its shift.
        window: its length in steps.
        is_reduction: whether they are a harmonic reduction, whose notes stay in their octaves.

    Returns:
        int32 [m, 6], steps counted from the window's start.
    """
    step = notes[:, STEP] - where.start
    part = notes[(step >= 0) & (step < window)]
    part[:, STEP] -= where.start
    if is_reduction:
        return moved_within_octaves(part, where.shift)
    if where.shift:
        part[:, PITCH] += where.shift * (part[:, PROGRAM] != DRUM_PROGRAM)
    return part
