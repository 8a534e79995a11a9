"""Views of songs: a stored song's notes -> the rows of a task; and windows of their tokens."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from m4m_jax.errors import M4MError
from m4m_jax.music.compression import compress_rows
from m4m_jax.music.notes import STEP, NoteTable
from m4m_jax.music.parts import NoSplitError, select
from m4m_jax.music.simunote import (
    PLAIN,
    Vocabulary,
    pitch_shift_range,
    shift_tokens,
    to_rows,
)
from m4m_jax.music.tasks import Task

# Semitones that training may move a window by, as the published models were trained.
SHIFT_LIMITS = (-5, 6)


class View(NamedTuple):
    """A whole song as a task sees it.

    reference: uint8 [T, N, 4] rows of what is given; None for a task without a reference.
    target: uint8 [T, N, 4] rows of what is to be written.

    A stream that the task compresses by r has ceil(T / r) rows.
    """

    reference: np.ndarray | None
    target: np.ndarray


class Draw(NamedTuple):
    """Where a window begins (a step) and by how many semitones it is moved."""

    start: int
    shift: int


def parts(
    table: NoteTable, task: Task, names: Mapping[str, str] | None = None
) -> tuple[NoteTable | None, NoteTable]:
    """Return a song's reference (None where the task has none) and target.

    A random split is drawn from the notes themselves, so a song is always split the same way.

    Raises:
        M4MError: the song has no such part.
    """
    seed = zlib.crc32(table.notes.tobytes())
    target = select(table, task.target, names=names, seed=seed)
    if task.reference is None:
        return None, target
    return select(table, task.reference, names=names, seed=seed), target


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

    def rows(part: NoteTable, ratio: int) -> np.ndarray:
        return compress_rows(to_rows(part.notes, table.length, count, dedup=task.dedup), ratio)

    reference, target = parts(table, task, names)
    return View(
        None if reference is None else rows(reference, task.compress.reference),
        rows(target, task.compress.target),
    )


@dataclass(frozen=True)
class Eligible:
    """Which songs of a source a task can use.

    Attributes:
        indices: int64 [n], ascending.
        left_out: why -> how many songs.
    """

    indices: np.ndarray
    left_out: dict[str, int]

    def summary(self) -> str:
        """How many songs there are, and how many were left out for which reason; one line."""
        used = len(self.indices)
        counts = "".join(f"; {reason}: {count}" for reason, count in self.left_out.items())
        return f"{used} of {used + sum(self.left_out.values())} songs{counts}"


def eligible(
    songs: Iterable[NoteTable],
    task: Task,
    names: Mapping[str, str] | None = None,
    *,
    min_steps: int = 1,
) -> Eligible:
    """Find the songs whose parts all have notes (on steps that are kept) and that are long enough.

    Args:
        songs: all songs of a source.
        task: which parts are wanted.
        names: the data set's names of parts.
        min_steps: shorter songs are left out: the window, or 1 where short songs are filled up.

    Returns:
        The indices of the songs, and how many were left out as "too short", with "an empty part",
        with "no such part", or because there is "no such split" of their tracks.

    Raises:
        M4MError: no song is left.
    """
    kept: list[int] = []
    left_out: dict[str, int] = {}
    fault = ""
    for index, table in enumerate(songs):
        try:
            reason = _unfit(table, task, names, min_steps)
        except M4MError as error:
            fault = str(error)
            reason = "no such split" if isinstance(error, NoSplitError) else "no such part"
        if reason is None:
            kept.append(index)
        else:
            left_out[reason] = left_out.get(reason, 0) + 1
    if not kept:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.items())
        raise M4MError(
            f"task {task.name}: no song of {sum(left_out.values())} can be used"
            f" ({reasons or 'there are none'}; windows have {min_steps} steps)"
            + (f"; {fault}" if fault else "")
        )
    return Eligible(np.array(kept, np.int64), left_out)


def _unfit(
    table: NoteTable, task: Task, names: Mapping[str, str] | None, min_steps: int
) -> str | None:
    ratios = (task.compress.reference, task.compress.target)
    for part, ratio in zip(parts(table, task, names), ratios, strict=True):
        if part is not None and not (part.notes[:, STEP] % ratio == 0).any():
            return "an empty part"
    return "too short" if table.length < min_steps else None


def shift_range(table: NoteTable) -> tuple[int, int]:
    """Return the semitones that windows of a song may be moved by, lowest and highest.

    What its pitched notes allow (all of them, not only those of a task's parts), cut to -5..6.
    """
    low, high = pitch_shift_range(table.notes)
    return max(low, SHIFT_LIMITS[0]), min(high, SHIFT_LIMITS[1])


def draw(
    length: int,
    window: int,
    rng: np.random.Generator,
    *,
    shifts: tuple[int, int] = (0, 0),
    stride: int = 1,
) -> Draw:
    """Draw a window of a song of `length` steps.

    Args:
        length: steps; a song that is shorter than the window begins at 0.
        window: steps.
        rng: the source of the draw.
        shifts: the lowest and highest shift to draw from.
        stride: starts are multiples of this.
    """
    last = max(length - window, 0) // stride
    start = int(rng.integers(last + 1)) * stride
    return Draw(start, int(rng.integers(shifts[0], shifts[1] + 1)))


def cut(
    tokens: np.ndarray,
    where: Draw,
    window: int,
    vocabulary: Vocabulary = PLAIN,
    *,
    ratio: int = 1,
) -> np.ndarray:
    """Cut a window out of a song and move it; steps past the song's end are empty.

    Args:
        tokens: int [ceil(T / ratio), 2N], a whole song.
        where: the window's start, a multiple of `ratio`, and its shift.
        window: its length, in steps of the song; a multiple of `ratio`.
        vocabulary: the one that the song was encoded with.
        ratio: how much the song was compressed.

    Returns:
        int32 [window / ratio, 2N].
    """
    start, rows = where.start // ratio, window // ratio
    result = np.full((rows, tokens.shape[1]), vocabulary.pad, np.int32)
    result[:, 0] = vocabulary.eos
    part = tokens[start : start + rows]
    result[: len(part)] = shift_tokens(part, where.shift, vocabulary) if where.shift else part
    return result
