"""What a data set holds for a task, and what packing saves on it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from m4m_jax import datasets
from m4m_jax.config import Config
from m4m_jax.data import eligibility, packing, pipeline, stored
from m4m_jax.data.packing import BLOCK, Size
from m4m_jax.data.supply import SIZING_BATCHES, tasks_of, training
from m4m_jax.music.simunote import by_name
from m4m_jax.music.tasks import Task


@dataclass(frozen=True)
class Packing:
    """How well batches of windows pack, over the first of training.

    Attributes:
        fill: stream -> the share of its tokens that are not PAD.
        distinct: stream -> the share of its rows that differ within a batch; also of `both`, where
            there are two.
        sizes: those that a batch may take.
        taken: the share of the batches that takes each.
        padded: rows of the local encoder and tokens of the local decoder in a batch, with padding.
        packed: the same of the sizes taken, on average.
    """

    fill: dict[str, float]
    distinct: dict[str, float]
    sizes: tuple[Size, ...]
    taken: tuple[float, ...]
    padded: tuple[int, int]
    packed: tuple[float, float]

    def lines(self) -> list[str]:
        """As text."""
        table = [("stream", "tokens not PAD", "distinct rows")]
        for stream, share in self.distinct.items():
            fill = f"{self.fill[stream]:.1%}" if stream in self.fill else ""
            table.append((stream, fill, f"{share:.1%}"))
        lines = _columns(table)
        table = [("rows a batch", f"blocks of {BLOCK} tokens a batch", "share of batches")]
        for size, share in zip(self.sizes, self.taken, strict=True):
            table.append((str(size.rows), str(size.blocks), f"{share:.0%}"))
        lines += _columns(table)
        for what, whole, part in zip(
            ("rows of the local encoder", "tokens of the local decoder"),
            self.padded,
            self.packed,
            strict=True,
        ):
            lines.append(
                f"{what}: {part:.0f} a batch instead of {whole}, {whole / part:.1f} times fewer"
            )
        return lines


def packing_of(
    windows: Any, config: Config, batches: int = SIZING_BATCHES, *, masked: bool = False
) -> Packing:
    """How well the first batches of a stream of windows pack, each on one device.

    masked: whether the local encoder does not read PADs.
    """
    vocabulary = by_name(config.vocabulary)
    stream = pipeline.batched(windows, config.batch)
    streams = [name for name in stored.STREAMS if name in windows[0]]
    needs: list[Size] = []
    fill: dict[str, list[float]] = {name: [] for name in streams}
    distinct: dict[str, list[float]] = {}
    for batch in (stream[k] for k in range(batches)):
        parts = {name: batch[name].reshape(-1, batch[name].shape[-1]) for name in streams}
        for name, rows in parts.items():
            fill[name].append(float(np.mean(rows != vocabulary.pad)))
            distinct.setdefault(name, []).append(len(packing.distinct(rows)[0]) / len(rows))
        need = packing.measure(
            batch["target"],
            batch.get("reference"),
            shards=1,
            vocabulary=vocabulary,
            masked=masked,
            per_row=config.encoder_dropout == "per_row",
        )
        needs.append(need)
        if len(parts) > 1:
            distinct.setdefault("both", []).append(need.rows / sum(map(len, parts.values())))
    windows_, steps, width = batch["target"].shape
    heard = batch["reference"].shape[1] if "reference" in batch else 0
    most = packing.largest(windows_, steps, width, heard, masked=masked)
    sizes = packing.choose_sizes(needs, most)
    taken = [packing.first_that_holds(need, sizes) for need in needs]
    rows, blocks, _ = np.mean(taken, axis=0)
    return Packing(
        {name: float(np.mean(values)) for name, values in fill.items()},
        {name: float(np.mean(values)) for name, values in distinct.items()},
        sizes,
        tuple(float(np.mean([size == other for other in taken])) for size in sizes),
        (windows_ * (steps + heard), windows_ * steps * width),
        (float(rows), float(blocks * BLOCK)),
    )


def inspect(config: Config, data_dir: epath.PathLike | None = None) -> list[str]:
    """Lines that describe the data sets of a configuration, and how its training windows pack.

    Raises:
        M4MError: a data set has not been built, or has no song that can be used; the base that the
            configuration names cannot be read.
    """
    tasks = tasks_of(config)
    told = {
        str(part.data): _songs(str(part.data), task, data_dir)
        for part, task in zip(config.components, tasks, strict=True)
    }
    windows, summary = training(config, data_dir)
    names = ", ".join(dict.fromkeys(task.name for task in tasks))
    return [
        *itertools.chain.from_iterable(told.values()),
        f"task {names}: windows of {config.window} steps, N = {tasks[0].max_notes}, batches of"
        f" {config.batch}",
        *summary,
        *packing_of(windows, config, masked=_masked(config)).lines(),
    ]


def _songs(data: str, task: Task, data_dir: epath.PathLike | None) -> list[str]:
    """Lines on a data set; a task of it, since how long songs are is kept by task."""
    info, songs = datasets.info(data, data_dir), datasets.open_split(data, "train", data_dir)
    shown = ", ".join(f"{count} {split}" for split, count in info.splits.items())
    found = eligibility.find(songs, task, songs.parts)
    steps, notes = int(found.lengths.sum()), int(found.notes.sum())
    typical = np.median(found.lengths) if len(songs) else 0
    return [
        f"{info.name}: {sum(info.splits.values())} songs ({shown})",
        f"{steps} steps in training songs, {typical:.0f} in the median one;"
        f" {notes / max(steps, 1):.2f} notes a step",
    ]


def _masked(config: Config) -> bool:
    """Whether a run's local encoder does not read PADs; a base knows it of itself."""
    if config.encoder is not None or not config.bases:
        return config.encoder == "masked"
    from m4m_jax import pretrained  # jax is heavy, and most data are looked at without a base

    return any(pretrained.load(base).system.lm.masked for base in config.bases)


def _columns(table: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in table
    ]
