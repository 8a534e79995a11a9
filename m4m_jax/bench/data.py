"""How fast songs are read, and how fast windows are packed: `m4m bench data`."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from m4m_jax import datasets
from m4m_jax.bench.data_ingest import measure_ingestion
from m4m_jax.data import Component, mixture, pack
from m4m_jax.datasets.run_local import default_workers
from m4m_jax.music.notes import NoteTable, Track, write_midi
from m4m_jax.music.simunote import PLAIN
from m4m_jax.music.tasks import get_task

TASKS = ("others-to-drums", "continuation")
BATCH, WINDOW, N, SONGS = 8, 384, 16, 300
_NAME = "midi_folder/bench"


def measure(
    folder: epath.PathLike | None = None, *, seconds: float = 5.0, workers: int | None = None
) -> list[dict[str, Any]]:
    """Build a data set of a folder of MIDI files, and pack windows of it on one core.

    Args:
        folder: of MIDI files; songs made up to be as full as real ones when `None`.
        seconds: how long to pack for each task, about.
        workers: processes that read files; at most two, so that figures compare, when `None`.

    Returns:
        A row for each kind of work: `work`, `data`, `unit` (what is counted), `count`, `ours_s`
        (seconds a unit), `per_second`, `cores` (how many processes it took), and of building
        `ours_bytes` (the most memory that one process held).
    """
    with tempfile.TemporaryDirectory() as temporary:
        place = epath.Path(temporary)
        told = "made up" if folder is None else str(folder)
        source = _write_songs(place / "songs") if folder is None else epath.Path(folder)
        workers = workers or min(default_workers(), 2)
        built = measure_ingestion(_NAME, source, workers=workers)
        files, spent = built.report.files, built.report.files / built.files_per_second
        rows = [
            _row("start building", told, "start", 1, built.start_seconds, workers),
            _row("build a data set", told, "file", files, spent, workers)
            | {"ours_bytes": built.peak_bytes},
        ]
        datasets.build(_NAME, source, place / "data", workers=workers)
        songs = datasets.open_split(_NAME, "train", place / "data")
        for name in TASKS:
            part = Component(songs, get_task(name))
            stream = mixture([part], batch_size=BATCH, window=WINDOW, max_notes=N, pad_short=True)
            count, spent = _repeat(functools.partial(_pack, stream), seconds)
            rows.append(_row(f"pack windows, {name}", told, "window", count * BATCH, spent, 1))
    return rows


def _pack(stream: Any, number: int) -> None:
    batch = stream[number]
    pack(batch["target"], batch.get("reference"), vocabulary=PLAIN)


def _repeat(work: Callable[[int], None], seconds: float) -> tuple[int, float]:
    """How often, and how long, something was done within about so many seconds, after once."""
    work(0)
    began, number = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        number += 1
        work(number)
    return number, time.perf_counter() - began


def _row(work: str, data: str, unit: str, count: int, spent: float, cores: int) -> dict[str, Any]:
    return {
        "work": work,
        "data": data,
        "unit": unit,
        "count": count,
        "ours_s": spent / count,
        "per_second": count / spent,
        "cores": cores,
    }


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """Rows as text."""
    return [
        f"{row['work']}: {row['per_second']:.4g} {row['unit']}s a second, {row['cores']} "
        f"process{'es' if row['cores'] > 1 else ''} ({row['count']} in "
        f"{row['count'] * row['ours_s']:.2f} s; music: {row['data']})"
        for row in rows
    ]


def made_up(seed: int) -> NoteTable:
    """A song as full as those of large collections: drums, bass, chords and melody in 4/4.

    About 0.8 drum notes and 2 other notes a step; drums repeat from bar to bar,
    nearly.
    """
    rng = np.random.default_rng(seed)
    bars = int(rng.integers(40, 160))
    beat = rng.random((6, 16)) < np.array([[0.15], [0.12], [0.4], [0.05], [0.05], [0.03]])
    drum, step = np.nonzero(np.tile(beat, bars) ^ (rng.random((6, 16 * bars)) < 0.01))
    kit = 35 + 6 * np.arange(6) + rng.integers(0, 6, 6)
    parts = [_part(step, 1, kit[drum], 127, 0)]
    for track, (program, density, voices) in enumerate(
        [(33, 0.25, 1), (0, 0.15, 4), (25, 0.2, 3), (73, 0.3, 1)], start=1
    ):
        steps = np.flatnonzero(rng.random(16 * bars) < density)
        base = 36 + 8 * track + rng.integers(0, 12, len(steps))
        length = rng.integers(1, 8, len(steps))
        parts += [_part(steps, length, base + 4 * voice, program, track) for voice in range(voices)]
    return NoteTable(
        np.concatenate(parts).astype(np.int32),
        (Track("drums", 0, is_drum=True), *(Track("", p) for p in (33, 0, 25, 73))),
        16 * bars,
        np.array([[0.0, 120.0]]),
        np.array([[0.0, 4.0, 4.0]]),
    )


def _part(step: Any, duration: Any, pitch: Any, program: int, track: int) -> np.ndarray:
    columns = np.broadcast_arrays(step, duration, pitch, program, 80, track)
    return np.stack(columns, axis=1)


def _write_songs(folder: epath.Path) -> epath.Path:
    folder.mkdir()
    for seed in range(SONGS):
        write_midi(made_up(seed), folder / f"{seed:03}.mid")
    return folder
