"""What is timed: windows of a task, on real music or on music made up."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from etils import epath

from m4m_jax import datasets
from m4m_jax.bench import songs
from m4m_jax.data import Component, packing, pipeline
from m4m_jax.data.packing import Size
from m4m_jax.data.supply import SIZING_BATCHES
from m4m_jax.datasets.run_local import default_workers
from m4m_jax.errors import M4MError
from m4m_jax.music.simunote import PLAIN
from m4m_jax.music.tasks import Task

WINDOW, SONGS = 384, 60
_NAME = "midi_folder/bench"


@dataclass(frozen=True)
class Work:
    """A task through a cross-attentive adapter, with LoRA and dropout.

    Attributes:
        name: on the command line.
        task: which windows.
        encoder: the mode of the language model's local encoder.
    """

    name: str
    task: str
    encoder: str = "reference"


TRAINING = tuple(
    Work(task + suffix, task, encoder)
    for suffix, encoder in (("", "reference"), ("-masked", "masked"))
    for task in ("chord-to-melody", "others-to-drums")
)

SAMPLING = (Work("drums-to-others", "drums-to-others"),)


def chosen(works: tuple[Work, ...], name: str | None) -> tuple[Work, ...]:
    """The work of that name, or all of them.

    Raises:
        M4MError: there is none of that name.
    """
    found = tuple(work for work in works if name in (None, work.name))
    if not found:
        known = ", ".join(work.name for work in works)
        raise M4MError(f"no work {name!r} to measure; there are {known}")
    return found


class Windows(NamedTuple):
    """Batches of token windows of a task.

    music: where the songs come from, in words.
    target, reference: int32 [K, B, T, 2N] both, K batches.
    sizes: those that packed batches may take, chosen from many more batches.
    """

    music: str
    target: np.ndarray
    reference: np.ndarray
    sizes: tuple[Size, ...]


def windows(
    task: Task, folder: epath.PathLike | None, number: int, size: int, *, masked: bool = False
) -> Windows:
    """So many batches of `size` windows, of the MIDI files in a folder or of songs made up.

    masked: whether packed batches are for a local encoder that does not read PADs.

    Raises:
        M4MError: no song has the parts that the task names, or none is long enough.
    """
    with tempfile.TemporaryDirectory() as temporary:
        place = epath.Path(temporary)
        kind = songs.tune if task.name == "chord-to-melody" else songs.band
        source = songs.write(place / "songs", SONGS, kind) if folder is None else folder
        datasets.build(_NAME, source, place / "data", workers=min(default_workers(), 2))
        component = Component(datasets.open_split(_NAME, "train", place / "data"), task)
        stream = pipeline.mixture(
            [component], batch_size=size, window=WINDOW, max_notes=task.max_notes
        )
        seen = [stream[k] for k in range(SIZING_BATCHES)]
    needs = [
        packing.measure(b["target"], b["reference"], shards=1, vocabulary=PLAIN, masked=masked)
        for b in seen
    ]
    most = packing.largest(size, WINDOW, 2 * task.max_notes, WINDOW, masked=masked)
    return Windows(
        "made up" if folder is None else str(folder),
        np.stack([batch["target"] for batch in seen[:number]]),
        np.stack([batch["reference"] for batch in seen[:number]]),
        packing.choose_sizes(needs, most),
    )
