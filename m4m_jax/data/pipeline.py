"""Songs -> batches of token windows, with Grain.

The global batch of a step is a pure function of (songs, task, options, seed, step): it depends
neither on the number of hosts nor on threads, nor on where a run was interrupted. A host's batch is
a contiguous part of it, so that the hosts' batches put together in order are the global batch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from m4m_jax.data import windows
from m4m_jax.data.windows import Eligible, View
from m4m_jax.errors import M4MError
from m4m_jax.music.notes import NoteTable
from m4m_jax.music.simunote import PLAIN, Vocabulary, to_tokens
from m4m_jax.music.tasks import Task

# What a process keeps of songs that it has encoded before.
CACHE_BYTES = 256 * 2**20

# More than any training reads.
_MANY_WINDOWS = 2**48


class SongSource(Protocol):
    """Songs by number; `m4m_jax.datasets.Songs` and a list of tables both are one."""

    def __len__(self) -> int:
        """How many songs there are."""

    def __getitem__(self, index: int, /) -> NoteTable:
        """One song."""


class _Encoded(NamedTuple):
    """A whole song as a task sees it.

    length: its steps, T.
    shifts: the lowest and highest that its windows may be moved by.
    reference, target: int16 [ceil(T / ratio), 2N] tokens (the ids of both vocabularies fit), or
        None.
    """

    length: int
    shifts: tuple[int, int]
    reference: np.ndarray | None
    target: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.target.nbytes + (0 if self.reference is None else self.reference.nbytes)


@dataclass
class _Views:
    """The encoded views of songs, the latest of them kept. Threads may share it."""

    source: SongSource
    task: Task
    names: Mapping[str, str] | None
    max_notes: int | None
    vocabulary: Vocabulary
    capacity: int = CACHE_BYTES
    _kept: OrderedDict[int, _Encoded] = field(default_factory=OrderedDict, repr=False)
    _bytes: int = field(default=0, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def __getitem__(self, index: int) -> _Encoded:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        song = self._encode(self.source[index])
        with self._lock:
            if index not in self._kept:
                self._kept[index] = song
                self._bytes += song.nbytes
            while self._bytes > self.capacity and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return song

    def _encode(self, table: NoteTable) -> _Encoded:
        reference, target = (
            None if rows is None else to_tokens(rows, self.vocabulary).astype(np.int16)
            for rows in windows.view(table, self.task, self.names, max_notes=self.max_notes)
        )
        assert target is not None
        return _Encoded(table.length, windows.shift_range(table), reference, target)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        del state["_kept"], state["_bytes"], state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


@dataclass
class _DrawWindow:
    """A song's number -> a window of it, drawn with the generator that Grain passes."""

    views: _Views
    window: int
    shift: bool

    def __call__(self, index: np.int64, rng: np.random.Generator) -> dict[str, Any]:
        song, compress = self.views[int(index)], self.views.task.compress
        where = windows.draw(
            song.length,
            self.window,
            rng,
            shifts=song.shifts if self.shift else (0, 0),
            stride=compress.stride,
        )

        def cut(tokens: np.ndarray, ratio: int) -> np.ndarray:
            return windows.cut(tokens, where, self.window, self.views.vocabulary, ratio=ratio)

        element = {
            "target": cut(song.target, compress.target),
            "song": np.int32(index),
            "start": np.int32(where.start),
            "shift": np.int32(where.shift),
        }
        if song.reference is not None:
            element["reference"] = cut(song.reference, compress.reference)
        return element


def dataset(
    source: SongSource,
    task: Task,
    *,
    batch_size: int,
    window: int = 384,
    seed: int = 0,
    max_notes: int | None = None,
    vocabulary: Vocabulary = PLAIN,
    names: Mapping[str, str] | None = None,
    train: bool = True,
    pitch_shift: bool = True,
    num_batches: int | None = None,
    pad_short: bool = False,
    host: int = 0,
    hosts: int = 1,
    usable: Eligible | None = None,
) -> Any:
    """Return the batches of a host, by step.

    An epoch takes one window of every usable song, in an order of its own; the epochs follow each
    other without a gap, and a batch may hold the end of one and the beginning of the next.

    Args:
        source: the songs.
        task: which parts are given and written, and how much they are compressed, by r_ref and
            r_tgt; windows begin at multiples of the larger of the two.
        batch_size: windows in a global batch, B; a multiple of `hosts`.
        window: steps of the song in a window, T; a multiple of both ratios.
        seed: of the order and of all draws, 0 to 2**32 - 1.
        max_notes: notes that a step holds, N; the task's when `None`.
        vocabulary: how rows become tokens.
        names: the data set's names of parts; `source.parts` when `None`, if there is such a thing.
        train: whether there are windows (as good as) without end. Otherwise there are `num_batches`
            batches, the same in every pass.
        pitch_shift: whether windows are moved in pitch, in training.
        num_batches: for `train=False`; when `None`, as many as it takes for every usable song to
            come up. Where the songs do not fill the last batch, further windows of the first do.
        pad_short: whether songs shorter than the window are filled up with empty rows; otherwise
            they are left out.
        host: this process among `hosts`, from 0.
        hosts: the processes that share a global batch.
        usable: what `usable_songs` found with the same options, if it is known already.

    Returns:
        A `grain.MapDataset` whose element k is this host's part of the global batch of step k, a
        dict of int32 arrays: `reference` [B / hosts, T / r_ref, 2N] (absent where the task has
        none) and `target` [B / hosts, T / r_tgt, 2N] tokens; `song` (number in the source), `start`
        (step) and `shift` (semitones), each [B / hosts].

    Raises:
        M4MError: no song can be used; the options do not fit each other.
    """
    import grain

    _check(batch_size, window, task.compress.stride, seed, host, hosts)
    names = getattr(source, "parts", None) if names is None else names
    if usable is None:
        usable = usable_songs(source, task, names=names, window=window, pad_short=pad_short)
    views = _Views(source, task, names, max_notes, vocabulary)
    draw = _DrawWindow(views, window, train and pitch_shift)
    # An endless stream would have a length that does not fit Grain's integers once it is batched.
    epochs = -(-_MANY_WINDOWS // len(usable.indices))
    stream = grain.MapDataset.source(usable.indices).seed(seed).shuffle().repeat(epochs)
    stream = stream.random_map(draw)
    if not train:
        count = num_batches or -(-len(usable.indices) // batch_size)
        stream = stream[: count * batch_size]
    # Shares of a batch are cut out of the finished stream. Cut out of the songs, they would make
    # the order and the draws depend on the number of hosts.
    return stream.batch(batch_size // hosts)[host::hosts]


def batches(
    source: SongSource,
    task: Task,
    *,
    start_step: int = 0,
    threads: int = 2,
    buffer: int = 8,
    **options: Any,
) -> Any:
    """Iterate over the batches of `dataset`, prepared ahead of time by threads.

    Args:
        source: the songs.
        task: which parts are given and written.
        start_step: the step of the first batch.
        threads: how many prepare batches; 0 for none.
        buffer: how many batches to prepare ahead.
        **options: as for `dataset`.

    Returns:
        A `grain.DatasetIterator`. Its state is the step, `{"next_index": k}`, whatever the number
        of hosts; after `set_state` the batches k, k + 1, ... come exactly as they would have.
    """
    import grain

    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer if threads else 0)
    iterator = iter(dataset(source, task, **options).to_iter_dataset(ahead))
    iterator.set_state({"next_index": start_step})
    return iterator


def usable_songs(
    source: SongSource,
    task: Task,
    *,
    names: Mapping[str, str] | None = None,
    window: int = 384,
    pad_short: bool = False,
) -> Eligible:
    """Find the songs of a source that windows can be taken from; see `windows.eligible`."""
    names = getattr(source, "parts", None) if names is None else names
    tables = (source[index] for index in range(len(source)))
    return windows.eligible(tables, task, names, min_steps=1 if pad_short else window)


def songs(
    source: SongSource,
    task: Task,
    *,
    names: Mapping[str, str] | None = None,
    max_notes: int | None = None,
    min_steps: int = 1,
) -> Iterator[tuple[int, View]]:
    """Iterate over whole songs as a task sees them, for evaluation and generation.

    Songs with an empty part and songs shorter than `min_steps` are left out.

    Yields:
        The song's number in the source, and its `View` at full length.
    """
    names = getattr(source, "parts", None) if names is None else names
    tables = (source[index] for index in range(len(source)))
    usable = windows.eligible(tables, task, names, min_steps=min_steps)
    for index in usable.indices.tolist():
        yield index, windows.view(source[index], task, names, max_notes=max_notes)


def _check(batch_size: int, window: int, stride: int, seed: int, host: int, hosts: int) -> None:
    for name, value in (("batch size", batch_size), ("window", window)):
        if value < 1:
            raise M4MError(f"a {name} of {value} makes no batch; give 1 or more")
    if window % stride:
        raise M4MError(f"a window of {window} steps is no multiple of the compression {stride}")
    if not 0 <= host < hosts:
        raise M4MError(f"host {host} is not one of {hosts}")
    if batch_size % hosts:
        raise M4MError(f"a batch of {batch_size} windows does not divide among {hosts} hosts")
    if not 0 <= seed < 2**32:
        raise M4MError(f"seed {seed} is not in 0..4294967295")
