"""How fast songs are read, and how fast windows are packed: `m4m bench data`."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from typing import Any

from etils import epath

from m4m_jax import datasets
from m4m_jax.bench import songs
from m4m_jax.bench.data_ingest import measure_ingestion
from m4m_jax.data import Component, mixture, pack
from m4m_jax.datasets.run_local import default_workers
from m4m_jax.errors import M4MError
from m4m_jax.music.simunote import PLAIN
from m4m_jax.music.tasks import get_task

TASKS = ("others-to-drums", "continuation")
BATCH, WINDOW, N, SONGS = 8, 384, 16, 300
_NAME = "midi_folder/bench"


def measure(
    work: str | None = None,
    folder: epath.PathLike | None = None,
    *,
    seconds: float = 5.0,
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Build a data set of a folder of MIDI files, and pack windows of it on one core.

    Args:
        work: `build`, or one of `TASKS`; all of them when `None`.
        folder: of MIDI files; songs made up to be as full as real ones when `None`.
        seconds: how long to pack for each task, about.
        workers: processes that read files; at most two, so that figures compare, when `None`.
        say: told each row as text.

    Returns:
        A row for each kind of work: `work`, `data`, `unit` (what is counted), `count`, `ours_s`
        (seconds a unit), `per_second`, `cores` (how many processes it took), and of building
        `ours_bytes` (the most memory that one process held).

    Raises:
        M4MError: no such work, or no songs in the folder.
    """
    if work not in (None, "build", *TASKS):
        raise M4MError(f"no work {work!r} to measure; there are build, {', '.join(TASKS)}")
    with tempfile.TemporaryDirectory() as temporary:
        place = epath.Path(temporary)
        told = "made up" if folder is None else str(folder)
        source = songs.write(place / "songs", SONGS) if folder is None else epath.Path(folder)
        workers = workers or min(default_workers(), 2)
        rows = []
        if work in (None, "build"):
            built = measure_ingestion(_NAME, source, workers=workers)
            files, spent = built.report.files, built.report.files / built.files_per_second
            rows = [
                _row("start a build, of one file", told, "start", 1, built.start_seconds, workers),
                _row("build a data set, after the start", told, "file", files, spent, workers)
                | {"ours_bytes": built.peak_bytes},
            ]
            say("\n".join(lines(rows)))
        if work == "build":
            return rows
        datasets.build(_NAME, source, place / "data", workers=workers)
        found = datasets.open_split(_NAME, "train", place / "data")
        for name in (name for name in TASKS if work in (None, name)):
            part = Component(found, get_task(name))
            try:
                stream = mixture(
                    [part], batch_size=BATCH, window=WINDOW, max_notes=N, pad_short=True
                )
            except M4MError as error:
                if work is not None:
                    raise
                say(f"pack windows, {name}: left out: {error}")
                continue
            count, spent = _repeat(functools.partial(_pack, stream), seconds)
            rows.append(_row(f"pack windows, {name}", told, "window", count * BATCH, spent, 1))
            say("\n".join(lines(rows[-1:])))
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
    return [f"{row['work']}: {_figure(row)} (music: {row['data']})" for row in rows]


def _figure(row: dict[str, Any]) -> str:
    spent = row["count"] * row["ours_s"]
    shared = f"{row['cores']} process{'es' if row['cores'] > 1 else ''}"
    if row["count"] == 1:
        return f"{spent:.2f} s, {shared}"
    return (
        f"{row['per_second']:.4g} {row['unit']}s a second, {shared}"
        f" ({row['count']} {row['unit']}s in {spent:.2f} s)"
    )
