"""Songs -> batches of token windows, with Grain.

The global batch of a step is a pure function of (songs, task, options, seed, step): it depends
neither on the number of hosts nor on threads, nor on where a run was interrupted. A host's batch is
a contiguous part of it, so that the hosts' batches put together in order are the global batch.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, get_args

import numpy as np

from m4m_jax.config import SHIFT_LIMITS, Starts
from m4m_jax.data import eligibility, windows
from m4m_jax.data.eligibility import Eligible
from m4m_jax.data.windows import View
from m4m_jax.errors import M4MError
from m4m_jax.music.notes import NoteTable
from m4m_jax.music.simunote import PLAIN, Vocabulary, encode
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


@dataclass(frozen=True)
class Component:
    """Songs of one data set as one task sees them: a part of a mixture, or all of it.

    Attributes:
        source: the songs.
        task: which parts are given and written, and how much they are compressed, by r_ref and
            r_tgt; windows begin at multiples of the larger of the two.
        weight: its share of the windows, relative to the other components' weights.
        names: the data set's names of parts; `source.parts` when `None`, if there is such a thing.
        usable: what `usable_songs` found with the same options, if it is known already.
    """

    source: SongSource
    task: Task
    weight: float = 1.0
    names: Mapping[str, str] | None = None
    usable: Eligible | None = None


class _Song(NamedTuple):
    """What of a song a task needs.

    length: its steps, T.
    starts: int64 [k], the steps that windows may begin at, as of `whole_bars`; None for any.
    shifts: the lowest and highest that its windows may be moved by.
    reference, target: int32 [n, 6], the notes that are heard and those that are written; None
        without a reference.
    """

    length: int
    starts: np.ndarray | None
    shifts: tuple[int, int]
    reference: np.ndarray | None
    target: np.ndarray

    @property
    def nbytes(self) -> int:
        """What its notes take."""
        return self.target.nbytes + (0 if self.reference is None else self.reference.nbytes)


@dataclass
class _Views:
    """Songs as a task sees them, the latest of them kept. Threads may share it."""

    source: SongSource
    task: Task
    names: Mapping[str, str] | None
    on_bars: bool = False
    window: int = 0
    shifts: tuple[int, int] = (0, 0)
    capacity: int = CACHE_BYTES
    _kept: OrderedDict[int, _Song] = field(default_factory=OrderedDict, repr=False)
    _bytes: int = field(default=0, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def __getitem__(self, index: int) -> _Song:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        table = self.source[index]
        reference, target = windows.streams(table, self.task, self.names)
        starts = None
        if self.on_bars:
            starts = windows.whole_bars(table, self.window, self.task.compress.stride)
        # All notes of a song, not only those of the task's parts; and its parts in their key.
        room = [notes for notes in (table.notes, reference, target) if notes is not None]
        shifts = windows.shift_range(np.concatenate(room), self.shifts)
        song = _Song(table.length, starts, shifts, reference, target)
        with self._lock:
            if index not in self._kept:
                self._kept[index] = song
                self._bytes += song.nbytes
            while self._bytes > self.capacity and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return song

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
    max_notes: int
    vocabulary: Vocabulary
    component: int

    def __call__(self, index: np.int64, rng: np.random.Generator) -> dict[str, Any]:
        song, task = self.views[int(index)], self.views.task
        where = windows.draw(
            song.length,
            self.window,
            rng,
            shifts=song.shifts,
            stride=task.compress.stride,
            starts=song.starts,
        )

        def tokens(part: np.ndarray, ratio: int, **options: bool) -> np.ndarray:
            notes = windows.cut(part, where, self.window, **options)
            sizes = (self.window, self.max_notes, self.vocabulary)
            return encode(notes, *sizes, dedup=task.dedup, ratio=ratio)

        element = {
            "target": tokens(song.target, task.compress.target),
            "component": np.int32(self.component),
            "song": np.int32(index),
            "start": np.int32(where.start),
            "shift": np.int32(where.shift),
        }
        if song.reference is not None:
            element["reference"] = tokens(
                song.reference, task.compress.reference, is_reduction=task.harmony_by_quarter
            )
        return element


def stream(
    components: Sequence[Component],
    *,
    window: int = 384,
    seed: int = 0,
    max_notes: int | None = None,
    vocabulary: Vocabulary = PLAIN,
    train: bool = True,
    pitch_shift: tuple[int, int] = SHIFT_LIMITS,
    pad_short: bool = False,
    starts: Starts = "anywhere",
    only: int | None = None,
) -> Any:
    """Return the windows of training or validation, one after another and (as good as) endless.

    Each component has epochs of its own: one takes one window of every usable song, in an order of
    its own, and they follow each other without a gap. Components take turns by their weights,
    evenly from the first window on.

    Args:
        components: one, or those of a mixture.
        window: steps of the song in a window, T; a multiple of all ratios.
        seed: of the order and of all draws, 0 to 2**32 - 1.
        max_notes: notes that a step holds, N; when `None`, the most of the components' tasks.
        vocabulary: how rows become tokens.
        train: whether windows are moved in pitch; those of validation are not.
        pitch_shift: the lowest and highest number of semitones that they are moved by, from the
            key that the task has a song in.
        pad_short: whether songs shorter than the window are filled up with empty rows; otherwise
            they are left out.
        starts: where windows begin: `anywhere`, or on the songs' `bars`; that of a song which
            begins with part of a bar, before it.
        only: the number of one component whose windows are wanted, as the mixture has them.

    Returns:
        A `grain.MapDataset` whose element k is a dict of int32 arrays: `reference` [T / r_ref, 2N]
        (absent where tasks have none) and `target` [T / r_tgt, 2N] tokens; `component` and `song`
        (numbers of the component, and of the song in its source), `start` (step) and `shift`
        (semitones), each [].

    Raises:
        M4MError: no song can be used; the options or the components do not fit each other.
    """
    import grain

    _check(components, window, seed)
    if starts not in (known := get_args(Starts)):
        raise M4MError(f"starts={starts!r} is not known; choose from {', '.join(known)}")
    count = max(c.task.max_notes for c in components) if max_notes is None else max_notes

    def endless(number: int) -> Any:
        part = components[number]
        names = _names(part.source, part.names)
        usable = part.usable or usable_songs(
            part.source, part.task, names=names, window=window, pad_short=pad_short
        )
        capacity = CACHE_BYTES // len(components)
        shifts = pitch_shift if train else (0, 0)
        views = _Views(part.source, part.task, names, starts == "bars", window, shifts, capacity)
        draw = _DrawWindow(views, window, count, vocabulary, number)
        # An endless stream would have a length that does not fit Grain's integers once batched.
        epochs = -(-_MANY_WINDOWS // len(usable.indices))
        songs = grain.MapDataset.source(usable.indices).seed(_component_seed(seed, number))
        return songs.shuffle().repeat(epochs).random_map(draw)

    if only is not None or len(components) == 1:
        return endless(only or 0)
    return grain.MapDataset.mix(
        [endless(number) for number in range(len(components))],
        weights=[part.weight for part in components],
    )


def batched(windows: Any, batch_size: int, host: int = 0, hosts: int = 1) -> Any:
    """Return a host's part of each global batch of `batch_size` windows, by step.

    Raises:
        M4MError: the batch does not divide among the hosts, or is more than memory can hold.
    """
    if batch_size < 1:
        raise M4MError(f"a batch size of {batch_size} makes no batch; give 1 or more")
    if not 0 <= host < hosts:
        raise M4MError(f"host {host} is not one of {hosts}")
    if batch_size % hosts:
        raise M4MError(f"a batch of {batch_size} windows does not divide among {hosts} hosts")
    _check_memory(batch_size // hosts, windows[0])
    # Shares of a batch are cut out of the finished stream. Cut out of the songs, they would make
    # the order and the draws depend on the number of hosts.
    return windows.batch(batch_size // hosts)[host::hosts]


def dataset(
    source: SongSource,
    task: Task,
    *,
    batch_size: int,
    train: bool = True,
    num_batches: int | None = None,
    names: Mapping[str, str] | None = None,
    usable: Eligible | None = None,
    host: int = 0,
    hosts: int = 1,
    **options: Any,
) -> Any:
    """Return the batches of a host, by step, of one task on one data set.

    An epoch takes one window of every usable song, in an order of its own; the epochs follow each
    other without a gap, and a batch may hold the end of one and the beginning of the next.

    Args:
        source: the songs.
        task: which parts are given and written.
        batch_size: windows in a global batch, B; a multiple of `hosts`.
        train: whether there are windows (as good as) without end. Otherwise there are `num_batches`
            batches, the same in every pass.
        num_batches: for `train=False`; when `None`, as many as it takes for every usable song to
            come up. Where the songs do not fill the last batch, further windows of the first do.
        names: the data set's names of parts; as for `Component`.
        usable: what `usable_songs` found with the same options, if it is known already.
        host: this process among `hosts`, from 0.
        hosts: the processes that share a global batch.
        **options: as for `stream`.

    Returns:
        A `grain.MapDataset` whose element k is this host's part of the global batch of step k, the
        arrays of `stream` for B / hosts windows, stacked.

    Raises:
        M4MError: no song can be used; the options do not fit each other.
    """
    names = _names(source, names)
    if usable is None:
        chosen = {key: options[key] for key in ("window", "pad_short") if key in options}
        usable = usable_songs(source, task, names=names, **chosen)
    part = Component(source, task, names=names, usable=usable)
    found = stream([part], train=train, **options)
    if not train:
        count = num_batches or -(-len(usable.indices) // max(batch_size, 1))
        found = found[: count * batch_size]
    return batched(found, batch_size, host, hosts)


def mixture(
    components: Sequence[Component],
    *,
    batch_size: int,
    host: int = 0,
    hosts: int = 1,
    **options: Any,
) -> Any:
    """Return the batches of a host, by step, of a mixture; arguments as for `dataset`, `stream`.

    `mixture([Component(source, task)], ...)` is `dataset(source, task, ...)`.

    Raises:
        M4MError: as `stream` and `batched`.
    """
    return batched(stream(components, **options), batch_size, host, hosts)


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
    """Find the songs of a source that windows can be taken from; see `eligibility.eligible`.

    What is found of a stored data set is kept beside it, where that can be written to.

    Args:
        source: the songs.
        task: which parts are given and written.
        names: the data set's names of parts; as for `Component`.
        window: steps of a window.
        pad_short: whether shorter songs can be used too.

    Raises:
        M4MError: no song can be used.
    """
    names = _names(source, names)
    return eligibility.find(source, task, names).long_enough(1 if pad_short else window)


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
    names = _names(source, names)
    for index in eligibility.find(source, task, names).long_enough(min_steps).indices.tolist():
        yield index, windows.view(source[index], task, names, max_notes=max_notes)


def _names(source: SongSource, names: Mapping[str, str] | None) -> Mapping[str, str] | None:
    return getattr(source, "parts", None) if names is None else names


def _component_seed(seed: int, number: int) -> int:
    """Of a component's own draws: two tasks on the same songs do not take the same windows."""
    if not number:
        return seed
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint32)[0])


def _check_memory(number: int, window: Mapping[str, Any]) -> None:
    """Whether this machine can hold a batch of so many windows like this one.

    It holds them twice for a moment: one by one, and put together.
    """
    need = 2 * number * sum(values.nbytes for values in window.values())
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not everywhere is there a way to ask
        return
    if need > there:
        raise M4MError(
            f"batch: {number} windows take {need / 1e9:,.0f} GB to put together, and this machine"
            f" has {there / 1e9:,.0f} GB of memory; give a smaller batch"
        )


def _check(components: Sequence[Component], window: int, seed: int) -> None:
    if window < 1:
        raise M4MError(f"a window of {window} makes no batch; give 1 or more")
    if not 0 <= seed < 2**32:
        raise M4MError(f"seed {seed} is not in 0..4294967295")
    tasks = [part.task for part in components]
    for task in tasks:
        stride = task.compress.stride
        if window % stride:
            raise M4MError(f"a window of {window} steps is no multiple of the compression {stride}")
        if (task.reference is None) != (tasks[0].reference is None):
            one, other = (
                f"{t.name} has {'no' if t.reference is None else 'a'} reference"
                for t in (tasks[0], task)
            )
            raise M4MError(f"a mixture is of tasks of one kind: {one}, {other}")
        if task.compress != tasks[0].compress:
            raise M4MError("all tasks of a mixture have the same compression")
