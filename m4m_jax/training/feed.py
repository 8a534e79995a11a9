"""From windows to packed batches on devices, the same ones on any number of hosts."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import grain
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from m4m_jax.config import Config
from m4m_jax.data import packing, pipeline
from m4m_jax.data.packing import PackedBatch, Size
from m4m_jax.data.supply import SIZING_BATCHES
from m4m_jax.music.simunote import Vocabulary, by_name
from m4m_jax.pretrained import METRIC
from m4m_jax.training import sharding

AHEAD = 16
"""How many steps' sizes several hosts agree on at once, which takes a moment of all devices."""


@dataclasses.dataclass(frozen=True)
class Packer:
    """A batch of token windows -> the packed arrays of this host, leaves [A, S, ...]."""

    parts: int
    shards: int
    vocabulary: Vocabulary
    masked: bool
    per_row: bool

    def __call__(self, batch: dict[str, Any]) -> PackedBatch:
        """Pack, each batch at its own size, and take microbatches apart."""
        packed = packing.pack(
            batch["target"],
            batch.get("reference"),
            vocabulary=self.vocabulary,
            shards=self.parts * self.shards,
            masked=self.masked,
            per_row=self.per_row,
        )
        return jax.tree.map(lambda x: x.reshape(self.parts, self.shards, *x.shape[1:]), packed)


def agree(needs: Iterable[Size]) -> list[Size]:
    """The sizes that hold a few steps' batches on all hosts, of what each host needs for its part.

    All hosts must call this at the same point.
    """
    sizes = np.array([*needs], np.int32).reshape(-1, len(Size._fields))
    if jax.process_count() > 1 and len(sizes):
        sizes = multihost_utils.process_allgather(sizes).max(axis=0)
    return [Size(*size) for size in sizes.tolist()]


class Batches(Iterator[PackedBatch]):
    """Packed batches of one of a few sizes, the same one on all hosts.

    Nothing is carried from one batch to the next: the state is the number of the next one.
    """

    def __init__(
        self, stream: Any, packer: Packer, sizes: tuple[Size, ...], *, threads: int = 2
    ) -> None:
        """stream: a `grain.MapDataset` of this host's batches of windows."""
        ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=8)
        self.packed = iter(stream.map(packer).to_iter_dataset(ahead))
        self.vocabulary, self.sizes = packer.vocabulary, sizes
        self.ready: deque[tuple[PackedBatch, Size]] = deque()
        self.number = 0

    def __next__(self) -> PackedBatch:
        if not self.ready:
            self._look_ahead()
        if not self.ready:
            raise StopIteration
        self.number += 1
        batch, size = self.ready.popleft()
        return packing.widen(batch, size, self.vocabulary)

    def _look_ahead(self) -> None:
        steps = AHEAD if jax.process_count() > 1 else 1
        batches = [batch for _, batch in zip(range(steps), self.packed, strict=False)]
        needs = agree(packing.size_of(batch) for batch in batches)
        sizes = (packing.first_that_holds(need, self.sizes) for need in needs)
        self.ready.extend(zip(batches, sizes, strict=True))

    def get_state(self) -> dict[str, Any]:
        """Where it is, whatever the number of hosts."""
        return {"next_index": self.number}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.ready.clear()
        self.number = state["next_index"]
        self.packed.set_state({"next_index": self.number})


class Feed:
    """The packed batches of a run's windows.

    stream: this host's batches of windows, a `grain.MapDataset`. masked: whether a local encoder
    does not read PADs. sizes: those that a batch may take, for training (the default) chosen from
    the first few.
    """

    def __init__(
        self,
        config: Config,
        windows: Any,
        mesh: Mesh,
        *,
        masked: bool,
        sizes: tuple[Size, ...] | None = None,
    ):
        part = sharding.host_part(mesh, jax.process_index())
        self.stream = pipeline.batched(windows, config.batch, part.number, part.parts)
        self.packer = Packer(
            parts=config.accumulate if sizes is None else 1,
            shards=part.shards,
            vocabulary=by_name(config.vocabulary),
            masked=masked,
            per_row=sizes is None and config.encoder_dropout == "per_row",
        )
        self.sizes = self._chosen() if sizes is None else sizes

    def needs(self, number: int) -> list[Size]:
        """The least sizes that hold the first batches, on all hosts."""
        batches = (self.packer(self.stream[k]) for k in range(number))
        return agree([packing.size_of(batch) for batch in batches])

    def _chosen(self) -> tuple[Size, ...]:
        first = self.stream[0]
        windows, steps, width = first["target"].shape
        windows //= self.packer.parts * self.packer.shards
        heard = first["reference"].shape[1] if "reference" in first else 0
        most = packing.largest(windows, steps, width, heard, masked=self.packer.masked)
        return packing.choose_sizes(self.needs(SIZING_BATCHES), most)

    def batches(self) -> Batches:
        """The batches from the first on, packed ahead of time by threads."""
        return Batches(self.stream, self.packer, self.sizes)


Evaluate = Callable[[PackedBatch], tuple[Any, Any]]


class HeldOut:
    """The packed batches of each component's validation windows, all of one size."""

    def __init__(self, config: Config, windows: Mapping[str, Any], mesh: Mesh, *, masked: bool):
        self.mesh = mesh
        self.feeds = {
            label: Feed(config, found, mesh, masked=masked, sizes=())
            for label, found in windows.items()
        }
        needs = [need for feed in self.feeds.values() for need in feed.needs(len(feed.stream))]
        size = Size(*(max(x) for x in zip(*needs, strict=True)))
        for feed in self.feeds.values():
            feed.sizes = (size,)

    def nll(
        self, evaluate: Evaluate, stops: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """The NLL a token: over all windows, and by component where there are several.

        evaluate: a packed batch -> (sum of the NLL, tokens). stops: whether to stop after a batch;
        then there is no NLL.
        """
        sums = {}
        for label, feed in self.feeds.items():
            found = self._sums(feed, evaluate, stops)
            if found is None:
                return None
            sums[label] = found
        value, tokens = (sum(x) for x in zip(*sums.values(), strict=True))
        by_component = {
            f"{METRIC}/{label}": value / tokens for label, (value, tokens) in sums.items()
        }
        return {METRIC: value / tokens} | (by_component if len(sums) > 1 else {})

    def compile(self, evaluate: Evaluate) -> None:
        """Evaluate one batch, so that the program is there."""
        feed = next(iter(self.feeds.values()))
        jax.block_until_ready(evaluate(next(placed(feed.batches(), self.mesh))))

    def _sums(
        self, feed: Feed, evaluate: Evaluate, stops: Callable[[], bool]
    ) -> tuple[float, int] | None:
        sums: list[tuple[Any, Any]] = []
        for batch in placed(feed.batches(), self.mesh):
            jax.block_until_ready(sums[-1:])  # one batch is under way while the next is made
            if stops():
                return None
            sums.append(evaluate(batch))
        return sum(float(value) for value, _ in sums), sum(int(tokens) for _, tokens in sums)


def placed(batches: Iterator[PackedBatch], mesh: Mesh) -> Iterator[PackedBatch]:
    """Batches on the devices of the mesh."""
    return (sharding.shard_batch(batch, mesh) for batch in batches)
