"""How large packed batches are, without data: from songs made up to be as full as real ones."""

from __future__ import annotations

import functools

import numpy as np

from m4m_jax.bench import songs
from m4m_jax.data import packing
from m4m_jax.data.packing import Size
from m4m_jax.data.windows import as_read
from m4m_jax.errors import M4MError
from m4m_jax.music.notes import NoteTable
from m4m_jax.music.parts import select
from m4m_jax.music.simunote import Vocabulary, by_name, to_rows, to_tokens
from m4m_jax.music.tasks import Task

SONGS, SHARDS, STEPS = 60, 48, 24
"""Songs made up; shards whose windows are drawn from them; steps over which a size is chosen."""


def kind_of(task: Task) -> str:
    """Which songs stand for those of a task: folk tunes where a step holds 8 notes, or bands."""
    return "folk tunes" if task.max_notes <= 8 else "bands"


def usual_size(
    task: Task, *, windows: int, shards: int, window: int, vocabulary: str, masked: bool
) -> Size:
    """The size that the usual batch of `shards` shards takes, of so many windows each.

    All shards of a batch take the size that the largest needs, so it grows with their number.

    Raises:
        M4MError: the songs made up have no parts of the task's names.
    """
    pool = _needs(task, windows, window, vocabulary, masked)
    rng = np.random.default_rng(0)
    needs = np.array(pool)[rng.integers(len(pool), size=(STEPS, shards))].max(axis=1)
    heard = None if task.reference is None else window // task.compress.reference
    most = packing.largest(
        windows, window // task.compress.target, 2 * task.max_notes, heard or 0, masked=masked
    )
    return packing.choose_sizes([Size(*map(int, need)) for need in needs], most)[0]


@functools.lru_cache
def _needs(
    task: Task, windows: int, window: int, vocabulary: str, masked: bool
) -> tuple[Size, ...]:
    """What shards of windows drawn from the songs need."""
    made = songs.tune if kind_of(task) == "folk tunes" else songs.band
    tables = [made(seed) for seed in range(SONGS)]
    known = by_name(vocabulary)
    read = [
        as_read(
            None if task.reference is None else _part(table, task.reference, task),
            _part(table, task.target, task),
            task.chords,
            common_key=task.common_key,
            harmony_by_quarter=task.harmony_by_quarter,
        )
        for table in tables
    ]
    target = [_tokens(song.target, task, task.compress.target, known) for song in read]
    heard = [song.reference for song in read if song.reference is not None]
    reference = [_tokens(part, task, task.compress.reference, known) for part in heard] or None
    rng, needs = np.random.default_rng(0), []
    for _ in range(SHARDS):
        starts = [
            (song, rng.integers(max(tables[song].length - window, 1)))
            for song in rng.choice(SONGS, windows)
        ]
        cut = functools.partial(_cut, starts=starts, window=window)
        needs.append(
            packing.measure(
                cut(target, ratio=task.compress.target),
                None if reference is None else cut(reference, ratio=task.compress.reference),
                shards=1,
                vocabulary=known,
                masked=masked,
            )
        )
    return tuple(needs)


def _part(table: NoteTable, selector: str, task: Task) -> NoteTable:
    """A part of a song that stands for a task's data."""
    try:
        return select(table, selector)
    except M4MError as error:
        raise M4MError(
            f"task {task.name}: the songs that stand for its data have no part {selector!r}; "
            "choose one that they have with reference=... and target=..."
        ) from error


def _tokens(part: NoteTable, task: Task, ratio: int, vocabulary: Vocabulary) -> np.ndarray:
    """A part's token rows [T / ratio, 2N]."""
    rows = to_rows(part.notes, part.length, task.max_notes, dedup=task.dedup)
    return to_tokens(rows[::ratio], vocabulary)


def _cut(
    tokens: list[np.ndarray], *, starts: list[tuple[int, int]], window: int, ratio: int
) -> np.ndarray:
    """Windows [B, window / ratio, 2N]; songs that are shorter are gone through again."""
    steps = window // ratio
    return np.stack(
        [np.take(tokens[s], start // ratio + np.arange(steps), axis=0, mode="wrap")
         for s, start in starts]
    )  # fmt: skip
