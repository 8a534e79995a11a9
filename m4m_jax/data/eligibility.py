"""Which songs a task can use, found once for a data set and kept beside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from m4m_jax.data.windows import streams
from m4m_jax.datasets.records import METADATA_FILE
from m4m_jax.errors import M4MError
from m4m_jax.files import atomic_path
from m4m_jax.music.notes import STEP, NoteTable
from m4m_jax.music.parts import NoSplitError
from m4m_jax.music.tasks import Task
from m4m_jax.progress import progress_bar

# Raised whenever what makes a song usable changes.
_VERSION = 1
_FITS, _EMPTY, _NO_PART, _NO_SPLIT, _SHORT = range(5)
_REASONS = ("", "an empty part", "no such part", "no such split", "too short")


_MANY = 10_000  # songs: it takes some seconds to look at so many
_ARRAYS = ("lengths", "notes", "reasons")


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


@dataclass(frozen=True)
class Survey:
    """All songs of a source as a task finds them.

    Attributes:
        task: its name.
        lengths: int32 [n], steps.
        notes: int32 [n], how many notes they have in all.
        reasons: uint8 [n], why a song cannot be used, whatever its length; 0 where it can.
        fault: what the last song without such a part, or without such a split, says of it.
    """

    task: str
    lengths: np.ndarray
    notes: np.ndarray
    reasons: np.ndarray
    fault: str

    def long_enough(self, min_steps: int) -> Eligible:
        """The songs that can be used and have at least `min_steps` steps.

        Raises:
            M4MError: no song is left.
        """
        reasons = self.reasons.copy()
        reasons[(reasons == _FITS) & (self.lengths < min_steps)] = _SHORT
        kinds, first, counts = np.unique(reasons, return_index=True, return_counts=True)
        order = np.argsort(first)
        left_out = {
            _REASONS[kind]: int(count)
            for kind, count in zip(kinds[order], counts[order], strict=True)
            if kind != _FITS
        }
        if (reasons == _FITS).any():
            return Eligible(np.flatnonzero(reasons == _FITS), left_out)
        if not left_out:
            raise M4MError(
                f"task {self.task}: no song can be used, since a split of the data set, train or "
                "validation, is empty; build it from more files"
            )
        listed = ", ".join(f"{reason}: {count}" for reason, count in left_out.items())
        if (reasons == _SHORT).any():
            listed += f"; windows have {min_steps} steps"
        raise M4MError(
            f"task {self.task}: no song of {len(reasons)} can be used ({listed})"
            + (f"; {self.fault}" if self.fault else "")
        )


def survey(songs: Iterable[NoteTable], task: Task, names: Mapping[str, str] | None) -> Survey:
    """Look at all songs of a source, one after another: do their parts have notes?

    Only notes on steps that the task's compression keeps count.
    """
    lengths, notes, reasons, fault = [], [], [], ""
    for table in songs:
        lengths.append(table.length)
        notes.append(len(table.notes))
        try:
            reasons.append(_EMPTY if _has_empty_part(table, task, names) else _FITS)
        except M4MError as error:
            fault = str(error)
            reasons.append(_NO_SPLIT if isinstance(error, NoSplitError) else _NO_PART)
    steps, counts = np.array(lengths, np.int32), np.array(notes, np.int32)
    return Survey(task.name, steps, counts, np.array(reasons, np.uint8), fault)


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
    return survey(songs, task, names).long_enough(min_steps)


def find(source: Any, task: Task, names: Mapping[str, str] | None) -> Survey:
    """The survey of a source's songs: the one kept beside a stored data set, or a new one.

    Looking takes about a millisecond a song, so what is found is kept where that can be written to.
    """
    path = _place(source, task, names)
    if path is not None and path.exists():
        # A file that cannot be read, or is of other songs, is made anew. There is hardly an error
        # that damage to it does not lead to.
        with contextlib.suppress(Exception):
            found = _load(path, task)
            if len(found.lengths) == len(source):
                return found
    with _progress(len(source)) as tell:
        found = survey((tell(source[index], index) for index in range(len(source))), task, names)
    if path is not None:
        # A data set that can only be read serves as well, and takes as long at each start.
        with contextlib.suppress(OSError, M4MError):
            _save(path, found)
    return found


@contextlib.contextmanager
def _progress(count: int) -> Iterator[Callable[[NoteTable, int], NoteTable]]:
    """Give a function that passes songs on, and shows how far it is where there are many."""
    if count < _MANY:
        yield lambda song, index: song
        return
    with progress_bar("looking for songs to use") as bar:

        def tell(song: NoteTable, index: int) -> NoteTable:
            if not (index + 1) % 100:
                bar(index + 1, count)
            return song

        yield tell


def _place(source: Any, task: Task, names: Mapping[str, str] | None) -> epath.Path | None:
    """Where a stored data set keeps the survey of one split for one task."""
    directory = getattr(source, "directory", None)
    if directory is None:
        return None
    ratios = (task.compress.reference, task.compress.target)
    directory = epath.Path(directory)
    built = (directory / METADATA_FILE).read_text()  # it has a digest of all songs
    view = [_VERSION, built, task.reference, task.target, ratios, sorted((names or {}).items())]
    view += ["harmony of quarters", task.chords] * task.harmony_by_quarter
    digest = hashlib.sha256(json.dumps(view).encode()).hexdigest()[:16]
    return directory / f"usable-{source.split}-{digest}.npz"


def _save(path: epath.Path, found: Survey) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        arrays = {name: getattr(found, name) for name in _ARRAYS}
        np.savez(file, fault=np.array(found.fault), **arrays)


def _load(path: epath.Path, task: Task) -> Survey:
    with path.open("rb") as file, np.load(file) as kept:
        arrays = {name: kept[name] for name in _ARRAYS}
        return Survey(task.name, fault=str(kept["fault"]), **arrays)


def _has_empty_part(table: NoteTable, task: Task, names: Mapping[str, str] | None) -> bool:
    reference, target = streams(table, task, names)
    found = [(target, task.compress.target)]
    if reference is not None:
        found.append((reference, task.compress.reference))
    return not all((notes[:, STEP] % ratio == 0).any() for notes, ratio in found)
