"""Where a run's windows come from, by its configuration: from songs, or from a packed data set."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from etils import epath

from m4m_jax import datasets
from m4m_jax.config import OF_TASK, Config
from m4m_jax.data import pipeline, stored
from m4m_jax.errors import M4MError
from m4m_jax.music.compression import Compression
from m4m_jax.music.simunote import Vocabulary, by_name
from m4m_jax.music.tasks import Task, get_task

SIZING_BATCHES = 48
"""How many batches the sizes of the packed arrays are chosen from."""

LAID_OUT = ("pop909_cl/analysis",)
"""Data sets whose songs are those of another, laid out for one task."""

# What of a configuration says which windows there are, and how many.
_VIEWED = {"compress", "vocabulary", "window", "pad_short", "starts", "pitch_shift", "seed"}
_TOLD = {"task", *OF_TASK, "max_notes", "mixture"}
_PACKED_BY = _VIEWED | _TOLD | {"batch", "validation_batches"}


@dataclass(frozen=True)
class Supply:
    """The windows of a run, and what there is to say of them.

    Attributes:
        train: a `grain.MapDataset` of windows, as of `pipeline.stream`.
        validation: the windows held out, for each component by its label.
        parts: each component's names of parts, to the selectors that they stand for.
        summary: which songs are used; lines.
        epoch: training windows in which every song of the first component comes up.
    """

    train: Any
    validation: dict[str, Any]
    parts: tuple[dict[str, str], ...]
    summary: tuple[str, ...]
    epoch: int


def tasks_of(config: Config) -> tuple[Task, ...]:
    """The tasks of a run's components, with the configuration's changes; all have one N."""
    compress = Compression(**config.compress.model_dump())
    found = []
    for part in config.components:
        assert part.task is not None
        changes = part.model_dump(include=OF_TASK, exclude_none=True)
        task = get_task(part.task)
        found.append(dataclasses.replace(task, **changes, compress=compress))
    count = config.max_notes or max(task.max_notes for task in found)
    return tuple(dataclasses.replace(task, max_notes=count) for task in found)


def labels(config: Config) -> tuple[str, ...]:
    """What the components are called: `TASK/DATA`, numbered where two would be called alike."""
    names = [f"{part.task}/{part.data}" for part in config.components]
    met, found = Counter[str](), []
    for name in names:
        met[name] += 1
        found.append(f"{name}-{met[name]}" if names.count(name) > 1 else name)
    return tuple(found)


def view(config: Config) -> dict[str, Any]:
    """What a configuration says of which windows there are, as plain values."""
    tasks, parts = tasks_of(config), config.components
    whole = sum(part.weight for part in parts)
    return {
        "components": [
            {
                "data": part.data,
                **task.view,
                "share": part.weight / whole,
            }
            for part, task in zip(parts, tasks, strict=True)
        ],
        "max_notes": tasks[0].max_notes,
        **config.model_dump(mode="json", include=_VIEWED),
    }


def validation_windows(config: Config) -> tuple[int, ...]:
    """How many windows of each component are held out: whole batches, shared out by weight."""
    weights = [part.weight for part in config.components]
    counts = (config.validation_batches * weight / sum(weights) for weight in weights)
    return tuple(max(round(count), 1) * config.batch for count in counts)


def train_windows(config: Config) -> int:
    """How many training windows a run reads: those of its steps, and what sizes are chosen from."""
    return max(config.steps, SIZING_BATCHES) * config.batch


@contextlib.contextmanager
def suggesting(data: str, task: Task, data_dir: epath.PathLike | None) -> Iterator[None]:
    """Where no song of a data set can be used for a task, name the one that is laid out for it.

    Raises:
        M4MError: as it came, with what else to use.
    """
    other = f"{data}/{task.name}"
    try:
        yield
    except M4MError as error:
        if other not in LAID_OUT:
            raise
        command = datasets.build_command(other, data_dir=data_dir)
        raise M4MError(f"{error}; {other} is laid out for it: {command}") from error


def check_there(config: Config, data_dir: epath.PathLike | None = None) -> None:
    """Raise M4MError where a run's data sets or packed windows are not there, without reading."""
    if config.packed is not None:
        stored.read_about(config.packed)
        return
    for part in config.components:
        datasets.info(str(part.data), data_dir)


def supply(config: Config, data_dir: epath.PathLike | None = None) -> Supply:
    """The windows of a run.

    Raises:
        M4MError: a data set has not been built, or has no song that can be used; packed windows are
            of another configuration, of songs that have changed since, or too few.
    """
    if config.packed is None:
        return _from_songs(config, data_dir)
    return _from_packed(config, data_dir)


def training(config: Config, data_dir: epath.PathLike | None = None) -> tuple[Any, tuple[str, ...]]:
    """The training windows of a run and which songs they are of, as in its `Supply`.

    Songs that are held out are not looked at. Raises M4MError as `supply`.
    """
    if config.packed is not None:
        found = _from_packed(config, data_dir)
        return found.train, found.summary
    learned, lines = _components(config, "train", data_dir)
    return pipeline.stream(learned, **_options(config)), tuple(lines)


def _options(config: Config) -> dict[str, Any]:
    """What `pipeline.stream` wants to know of a configuration."""
    names = {"window", "pad_short", "seed", "starts", "pitch_shift"}
    return config.model_dump(include=names) | {"vocabulary": by_name(config.vocabulary)}


def _components(
    config: Config, split: str, data_dir: epath.PathLike | None
) -> tuple[list[pipeline.Component], list[str]]:
    """The components of a run with the songs of a split, and a line on those of each."""
    doing = "training" if split == "train" else "validating"
    found, lines, tasks = [], [], tasks_of(config)
    for part, task, name in zip(config.components, tasks, labels(config), strict=True):
        songs = datasets.open_split(str(part.data), split, data_dir=data_dir)
        with suggesting(str(part.data), task, data_dir):
            usable = pipeline.usable_songs(
                songs, task, window=config.window, pad_short=config.pad_short
            )
        lines.append(f"{doing} on {usable.summary()}" + (f" ({name})" if len(tasks) > 1 else ""))
        found.append(pipeline.Component(songs, task, part.weight, songs.parts, usable))
    return found, lines


def _from_songs(config: Config, data_dir: epath.PathLike | None) -> Supply:
    names, options = labels(config), _options(config)
    (learned, lines), (held, others) = (
        _components(config, split, data_dir) for split in ("train", "validation")
    )
    validation = {
        name: pipeline.stream(held, only=number, train=False, **options)[:count]
        for number, (name, count) in enumerate(zip(names, validation_windows(config), strict=True))
    }
    parts = tuple(dict(part.names or {}) for part in learned)
    weights = [part.weight for part in learned]
    first = learned[0].usable
    assert first is not None
    epoch = math.ceil(len(first.indices) * sum(weights) / weights[0])
    train = pipeline.stream(learned, **options)
    return Supply(train, validation, parts, (*lines, *others), epoch)


def _from_packed(config: Config, data_dir: epath.PathLike | None) -> Supply:
    assert config.packed is not None
    packed = stored.read_about(config.packed)
    wanted = view(config)
    differ = [
        "data or task" if key == "components" else key
        for key in wanted
        if packed.view.get(key) != wanted[key]
    ]
    if differ:
        raise M4MError(
            f"packed={config.packed} holds windows of another {', '.join(differ)};"
            f" leave packed out, or pack this run's own: {pack_command(config, data_dir)}"
        )
    _check_songs(packed, data_dir, packed.command)
    names, vocabulary = labels(config), by_name(config.vocabulary)
    again = pack_command(config, data_dir)
    train = _enough(packed, "train", train_windows(config), vocabulary, again)
    validation = {
        name: _enough(packed, stored.held_out(number), count, vocabulary, again)
        for number, (name, count) in enumerate(zip(names, validation_windows(config), strict=True))
    }
    return Supply(train, validation, packed.parts, packed.summary, packed.epoch)


def _check_songs(packed: stored.About, data_dir: epath.PathLike | None, again: str) -> None:
    """Raise M4MError where songs have changed since windows of them were packed.

    A host that has the packed windows only has nothing to compare them with. again: the command
    that packs them.
    """
    for name, digest in packed.songs.items():
        if not datasets.is_built(name, data_dir):
            continue
        there = datasets.info(name, data_dir)
        if there.digest != digest:
            raise M4MError(
                f"{packed.directory} holds windows of {name} as it was before its songs changed"
                f" ({there.directory}); remove it, and pack it again: {again}"
            )


def _enough(
    packed: stored.About, split: str, count: int, vocabulary: Vocabulary, again: str
) -> Any:
    there = packed.windows[split]
    if there < count:
        raise M4MError(
            f"{packed.directory}: there are {there} {split} windows, and this run reads {count};"
            f" take fewer steps, or pack as many: {again}"
        )
    found = stored.windows(packed, split, vocabulary)
    return found if split == "train" else found[:count]


def pack_name(config: Config, epochs: float | None = None) -> str:
    """What the packed windows of a run are called by default: `DATA-TASK-HASH`, or `mixture-HASH`.

    The hash is of all that a configuration says of which windows there are, and how many, so that
    the windows of another run are called otherwise. epochs: as for `pack`.
    """
    parts = config.components
    first = f"{parts[0].data}-{parts[0].task}".replace("/", "_")
    count = train_windows(config) if epochs is None else float(epochs)
    windows = [view(config), count, validation_windows(config)]
    digest = hashlib.sha256(json.dumps(windows, sort_keys=True).encode()).hexdigest()
    return f"{'mixture' if len(parts) > 1 else first}-{digest[:8]}"


def pack_command(
    config: Config,
    data_dir: epath.PathLike | None = None,
    *,
    directory: epath.PathLike | None = None,
    epochs: float | None = None,
) -> str:
    """The command line that packs the windows of a run; arguments as for `pack`.

    directory: where to, if it is where the command line writes to; its default when `None`.
    """
    fields = config.model_dump(mode="json", include=_PACKED_BY, exclude_defaults=True)
    if epochs is None:
        fields["steps"] = config.steps
    changes = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in fields.items()]
    words = ["m4m", "data", "pack", config.data, *changes]
    if epochs is not None:
        words += ["--epochs", f"{epochs:g}"]
    if data_dir is not None:
        words += ["--data-dir", os.fspath(data_dir)]
    name = pack_name(config, epochs) if directory is None else epath.Path(directory).parent.name
    return shlex.join([*words, "--name", name])


def told(config: Config, windows: Mapping[str, int]) -> str:
    """What windows were packed, as text; windows: how many each split has."""
    names = labels(config)
    held = [
        f"{windows[stored.held_out(number)]} for validation"
        + (f" of {name}" if len(names) > 1 else "")
        for number, name in enumerate(names)
    ]
    line = f"{windows['train']} windows for training, {', '.join(held)}"
    if windows["train"] == SIZING_BATCHES * config.batch:
        line += f"; a run reads {SIZING_BATCHES} batches at least"
    return line


def pack(
    config: Config,
    directory: epath.PathLike,
    data_dir: epath.PathLike | None = None,
    *,
    epochs: float | None = None,
    progress: Any = None,
) -> stored.About:
    """Store the windows of a run, so that it need only read them.

    Args:
        config: the run.
        directory: where to write; it must not exist yet.
        data_dir: where its data sets live.
        epochs: how often each training song comes up (of the first component, in a mixture), give
            or take what `train_windows` reads at least; when `None`, as many windows are stored as
            the run's steps read.
        progress: called with the numbers of windows done and of all.

    Raises:
        M4MError: as `supply`; there is something at `directory`; it cannot be written to.
    """
    again = pack_command(config, data_dir, directory=directory, epochs=epochs)
    if (epath.Path(directory) / stored.FILE).exists():
        _check_songs(stored.read_about(directory), data_dir, again)
    stored.check_new(directory)
    names = sorted({str(part.data) for part in config.components})
    songs = {name: datasets.info(name, data_dir).digest for name in names}
    found = _from_songs(config, data_dir)
    count = train_windows(config)
    if epochs is not None:
        count = max(round(epochs * found.epoch), SIZING_BATCHES * config.batch)
    splits = {"train": found.train[:count]}
    for number, held in enumerate(found.validation.values()):
        splits[stored.held_out(number)] = held
    about = stored.About(
        epath.Path(directory),
        view(config),
        songs,
        found.parts,
        found.summary,
        found.epoch,
        {name: len(windows) for name, windows in splits.items()},
        again,
    )
    stored.write(about, splits, by_name(config.vocabulary), progress=progress)
    return about
