"""Data sets on disk: building them, finding them, opening their splits."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import importlib.util
import io
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from m4m_jax.datasets import record
from m4m_jax.datasets.ingest import SPLITS, Progress, Report
from m4m_jax.datasets.publishing import publish, staging_folder
from m4m_jax.datasets.record import Song
from m4m_jax.datasets.records import (
    METADATA_FILE,
    StoredRecords,
    is_local,
    whole_data_set,
)
from m4m_jax.datasets.run_local import run_local
from m4m_jax.errors import M4MError, lacking
from m4m_jax.music.notes import NoteTable
from m4m_jax.quiet import quiet_absl

NAMES = (
    *("bach_chorales", "nottingham", "midi_folder"),
    *("pop909_cl", "rwc_pop", "los_angeles", "lakh"),
)
_NEED_SOURCE = NAMES[1:]
# What may follow a data set's name after a slash: a pattern, and what it says.
_CONFIGS = {
    "midi_folder": (r"[A-Za-z0-9_-]+", "a name of letters, digits, _ and -"),
    "pop909_cl": (r"analysis", "analysis"),
    "los_angeles": (r"first_[1-9][0-9]*", "first_N, such as first_50000"),
}
# Data sets of folders take a name of their own, as in midi_folder/NAME.
_NAMED = ("midi_folder",)
_DEFAULT_CONFIG = "default"


@dataclass(frozen=True)
class DatasetInfo:
    """A data set that has been built.

    Attributes:
        name: as `build` was given it, with the configuration where there is one.
        directory: where its records, `report.json` and TFDS's metadata are.
        parts: names of parts, to the selectors that they stand for.
        splits: how many songs each split has.
        source: the folder that it was built from.
        digest: a hash of its songs, wherever their files were.
    """

    name: str
    directory: epath.Path
    parts: dict[str, str]
    splits: dict[str, int]
    source: str
    digest: str

    @property
    def report(self) -> Report:
        """What became of the files at the build."""
        return Report.from_json((self.directory / "report.json").read_text())


class Songs:
    """The songs of one split, in the order of their names, read from disk when asked for.

    It has `len()`, `songs[i]` gives a `NoteTable` and `songs.song(i)` the `Song` with its name and
    content hash. It pickles, so that it can go to worker processes.

    Attributes:
        directory: where the data set is stored.
        split: which split.
        parts: the data set's names of parts, to the selectors that they stand for.
    """

    def __init__(
        self, directory: epath.PathLike, split: str, parts: Mapping[str, str], command: str
    ):
        """Open them; `command` is the one that makes the data set anew."""
        self.parts = dict(parts)
        self.directory = os.fspath(directory)
        self.split = split
        self._command = command
        self._records = StoredRecords(self.directory, split, command)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> NoteTable:
        return self.song(index).table

    def __iter__(self) -> Iterator[NoteTable]:
        return (self[index] for index in range(len(self)))

    def song(self, index: int) -> Song:
        """Return song number `index`, with its name and content hash.

        Raises:
            IndexError: there is none of that number; they count from 0.
            M4MError: the data set is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"song {index} of {len(self)}")
        return record.decode(self._records[index])

    def __getstate__(self) -> dict[str, Any]:
        place = {"directory": self.directory, "split": self.split}
        return place | {"parts": self.parts, "command": self._command}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"Songs({self.directory!r}, {self.split!r})"


def default_data_dir() -> epath.Path:
    """Return TFDS's own folder: $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    from tensorflow_datasets.core import constants

    return epath.Path(constants.DATA_DIR).expanduser()


def build_command(name: str, source: str = "", data_dir: epath.PathLike | None = None) -> str:
    """Return the command line that builds a data set; arguments as for `build`.

    Raises:
        M4MError: no such data set.
    """
    base, config = _parse(name)
    words = ["m4m", "data", "build", base]
    if base in _NEED_SOURCE or source:
        words += ["--source", source or "DIR"]
    if config and config != _DEFAULT_CONFIG:
        words += ["--name", config]
    if data_dir is not None:
        words += ["--data-dir", os.fspath(data_dir)]
    return shlex.join(words)


def build(
    name: str,
    source: epath.PathLike | None = None,
    data_dir: epath.PathLike | None = None,
    *,
    workers: int | None = None,
    time_limit: float = 60.0,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    quality: bool = True,
    runner: str | None = None,
    runner_options: Sequence[str] = (),
) -> Report:
    """Build a data set, in place of one of that name that is there already.

    The new one takes the old one's place only when it is whole. A file that cannot be used is
    entered in the report, which is also in the data set's folder as `report.json`. What a build
    that was interrupted has finished (below `data_dir`/.building) is kept for the next one; the
    records and the report do not depend on such interruptions.

    Args:
        name: one of `NAMES`. `midi_folder/NAME` has a NAME of your own (`midi_folder` alone means
            `midi_folder/default`); `los_angeles/first_N` takes only the first N files by name;
            `pop909_cl/analysis` has beats too, laid out as `rwc_pop` is.
        source: the folder with the songs; `bach_chorales` has its own.
        data_dir: where data sets live; TFDS's default when `None`.
        workers: processes to read files with; as many as there are cores when `None`. The records
            do not depend on it.
        time_limit: seconds that reading one file may take.
        progress: called with what is done, what there is to do and the stage: files are read, and
            then songs are written.
        say: told in a line, where a build was stopped before, what of it is kept.
        quality: whether `midi_folder` applies the quality filter.
        runner: what runs it as an Apache Beam pipeline, `direct`, `dataflow`, `flink` or `spark`;
            processes of this machine do it without Beam when `None`. The records and the report do
            not depend on it. `data_dir` must be a place that all machines see.
        runner_options: for that runner, each as on a command line of Beam's.

    Raises:
        M4MError: no such data set or folder; no file that can be used; another folder's data set is
            there under this name, or is being built; the data set cannot be written.
        KeyboardInterrupt: as it came, with words on how to go on.
    """
    base, config = _parse(name)
    if source is None and base in _NEED_SOURCE:
        raise M4MError(f"{base} is built from a folder: {build_command(name, data_dir=data_dir)}")
    if workers is not None and workers < 1:
        raise M4MError(f"{workers} workers cannot build a data set; give 1 or more")
    root = _root(data_dir)
    if source is not None:
        source = os.path.abspath(os.path.expanduser(source)) if is_local(source) else source
        _refuse_other_source(name, os.fspath(source), root)
    limits: dict[str, Any] = {"workers": workers, "time_limit": time_limit}
    if runner is None:
        engine = functools.partial(run_local, **limits, progress=progress)
    else:
        engine = _beam_engine(runner, options=runner_options, **limits)
    with staging_folder(root, name) as staging:
        builder = _builder(base, config, source, staging / "whole", quality)
        report = builder.build(staging / "parts", engine, time_limit=time_limit, say=say)
        publish(epath.Path(builder.data_dir), _directory(root, name))
    return report


def _beam_engine(runner: str, **arguments: Any) -> functools.partial[None]:
    if importlib.util.find_spec("apache_beam") is None:
        raise lacking(f"the {runner} runner needs Apache Beam", "beam")
    from m4m_jax.datasets.run_beam import RUNNERS, run_beam

    if runner not in RUNNERS:
        raise M4MError(f"no runner {runner!r}; there are {', '.join(RUNNERS)}")
    return functools.partial(run_beam, runner=runner, **arguments)


def is_built(name: str, data_dir: epath.PathLike | None = None) -> bool:
    """Say whether `open_split` would find this data set, whole and of this record version."""
    try:
        info(name, data_dir)
    except M4MError:
        return False
    return True


def info(name: str, data_dir: epath.PathLike | None = None) -> DatasetInfo:
    """Return what there is to know of a data set that has been built.

    Raises:
        M4MError: no such data set; it has not been built, or by another version of this package.
    """
    import tensorflow_datasets as tfds

    base, config = _parse(name)
    directory = _find(name, data_dir)
    command = build_command(name, "", data_dir)
    with whole_data_set(directory, command):
        metadata = json.loads((directory / METADATA_FILE).read_text())
    if metadata.get("record_version") != record.RECORD_VERSION:
        command = build_command(name, metadata.get("source", ""), data_dir)
        raise M4MError(
            f"{directory}: built with record version {metadata.get('record_version')}, and this is"
            f" version {record.RECORD_VERSION}; build it again: {command}"
        )
    with whole_data_set(directory, command):
        splits = tfds.builder_from_directory(directory).info.splits
    return DatasetInfo(
        name=f"{base}/{config}" if config else base,
        directory=directory,
        parts=metadata["parts"],
        splits={s: splits[s].num_examples if s in splits else 0 for s in SPLITS},
        source=metadata["source"],
        digest=metadata["digest"],
    )


def open_split(name: str, split: str, data_dir: epath.PathLike | None = None) -> Songs:
    """Open the songs of one split: `train`, `validation` or `test`.

    Raises:
        M4MError: no such split, or as `info`.
    """
    if split not in SPLITS:
        raise M4MError(f"{name} has no split {split!r}; it has {', '.join(SPLITS)}")
    built = info(name, data_dir)
    return Songs(built.directory, split, built.parts, build_command(name, "", data_dir))


def _parse(name: str) -> tuple[str, str | None]:
    """Split a data set's name into its builder's and its configuration's."""
    base, slash, config = name.partition("/")
    if base not in NAMES:
        near = difflib.get_close_matches(base, NAMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(NAMES)}"
        if name.startswith(("/", ".")):
            hint += "; where it lives is said with --data-dir"
        raise M4MError(f"no data set {name!r}; {hint}")
    if not slash:
        return base, _DEFAULT_CONFIG if base in _NAMED else None
    if base not in _CONFIGS:
        raise M4MError(f"{base} takes no name of its own, and {config!r} was given")
    pattern, words = _CONFIGS[base]
    if not re.fullmatch(pattern, config):
        raise M4MError(f"{name!r}: after {base}/ there can be {words}")
    return base, config


def _builder(
    base: str,
    config: str | None,
    source: epath.PathLike | None,
    data_dir: epath.Path,
    quality: bool,
) -> Any:
    module = importlib.import_module(f"m4m_jax.datasets.{base}.{base}_dataset_builder")
    arguments: dict[str, Any] = {"source": source, "data_dir": data_dir}
    if config is not None:
        arguments["config"] = module.Builder.make_config(config, quality=quality)
    with _quiet():
        return module.Builder(**arguments)


def _root(data_dir: epath.PathLike | None) -> epath.Path:
    return default_data_dir() if data_dir is None else epath.Path(data_dir).expanduser()


def _directory(root: epath.Path, name: str) -> epath.Path:
    base, config = _parse(name)
    folder = root / base / config if config else root / base
    return folder / f"{record.RECORD_VERSION}.0.0"


def _find(name: str, data_dir: epath.PathLike | None) -> epath.Path:
    """Return the folder of a built data set, of this record version if there is one."""
    directory = _directory(_root(data_dir), name)
    if (directory / METADATA_FILE).exists():
        return directory
    others = directory.parent.glob(f"[0-9]*.0.0/{METADATA_FILE}")
    if found := sorted(others, key=lambda path: int(path.parent.name.split(".")[0])):
        return found[-1].parent
    raise M4MError(
        f"{directory.parent}: the data set {name} has not been built; build it:"
        f" {build_command(name, data_dir=data_dir)}"
    )


def _refuse_other_source(name: str, source: str, root: epath.Path) -> None:
    """Keep a folder's data set from silently taking another folder's place."""
    base, _ = _parse(name)
    path = _directory(root, name) / METADATA_FILE
    if base not in _NAMED or not path.exists():
        return
    there = json.loads(path.read_text()).get("source")
    if there != source:
        raise M4MError(
            f"{path.parent}: {name} was built from {there}; give another --name, or remove that"
            " folder first"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep TFDS's own progress bars, prints and warnings off the console."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    with quiet_absl(), contextlib.redirect_stdout(io.StringIO()):
        yield
