"""Windows on disk: tokenized and without their padding, as a TFDS data set (`m4m data pack`).

Window k of a split is window k of the stream that it was written from, so that batches of any size
for any number of hosts are those that the songs would give. A record's features:

| feature | what | type |
|---|---|---|
| `component`, `song`, `start`, `shift` | as of `pipeline.stream` | int32 |
| `target_tokens` | the tokens that are not PAD, step after step | int16 [n] |
| `target_counts` | how many of them each step has | uint8 [T] |
| `reference_tokens`, `reference_counts` | likewise, where tasks have a reference | int16, uint8 |
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from m4m_jax.datasets import wire
from m4m_jax.datasets.record import RECORD_VERSION
from m4m_jax.datasets.records import (
    METADATA_FILE,
    StoredRecords,
    is_local,
    whole_data_set,
    write_records,
)
from m4m_jax.errors import M4MError
from m4m_jax.files import atomic_path, made_folder
from m4m_jax.music.simunote import Vocabulary

FORMAT = 2
VERSION = f"{FORMAT}.0.0"
FILE = METADATA_FILE
_VERSIONS = {"format": FORMAT, "record_version": RECORD_VERSION}
STREAMS = ("reference", "target")
_NUMBERS = ("component", "song", "start", "shift")
_SHARD = 50_000  # windows of a file


@dataclass(frozen=True)
class About:
    """What a packed data set holds.

    Attributes:
        directory: where it is.
        view: what a configuration says of which windows there are, as plain values; see
            `supply.view`.
        songs: data set -> a hash of the songs that they are of; see `datasets.DatasetInfo`.
        parts: each component's names of parts.
        summary: which songs were used; lines.
        epoch: training windows of an epoch.
        windows: how many each split has.
        command: the command line that packs them again.
    """

    directory: epath.Path
    view: dict[str, Any]
    songs: dict[str, str]
    parts: tuple[dict[str, str], ...]
    summary: tuple[str, ...]
    epoch: int
    windows: dict[str, int]
    command: str


def held_out(number: int) -> str:
    """The split of a component's validation windows."""
    return f"validation_{number}"


def read_about(directory: epath.PathLike) -> About:
    """What the packed data set at `directory` holds.

    Raises:
        M4MError: there is none, or one of another format or record version.
    """
    path = epath.Path(directory) / FILE
    if not path.exists():
        raise M4MError(f"{directory}: there are no packed windows; m4m data pack writes them")
    with whole_data_set(directory, "m4m data pack"):
        found = json.loads(path.read_text())
    if "view" not in found:
        raise M4MError(f"{directory} holds no packed windows; m4m data pack writes them")
    for version, now in _VERSIONS.items():
        if found.get(version) != now:
            raise M4MError(
                f"{directory}: packed with {version.replace('_', ' ')} {found.get(version)}, and"
                f" this is {now}; remove it, and pack it again:"
                f" {found.get('command', 'm4m data pack')}"
            )
    return About(
        epath.Path(directory),
        found["view"],
        found["songs"],
        tuple(found["parts"]),
        tuple(found["summary"]),
        found["epoch"],
        found["windows"],
        found["command"],
    )


def windows(about: About, split: str, vocabulary: Vocabulary) -> Any:
    """The windows of a split as `pipeline.stream` gave them, a `grain.MapDataset`."""
    import grain

    source = StoredRecords(about.directory, split, about.command)
    decode = _Decode(2 * about.view["max_notes"], vocabulary.pad)
    return grain.MapDataset.source(source).map(decode)


@dataclass(frozen=True)
class _Decode:
    """A stored record -> a window."""

    width: int
    pad: int

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        element: dict[str, Any] = {name: np.int32(record[name]) for name in _NUMBERS}
        for name in STREAMS:
            if f"{name}_tokens" in record:
                counts = record[f"{name}_counts"]
                element[name] = self._rows(record[f"{name}_tokens"], counts)
        return element

    def _rows(self, tokens: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Token rows int32 [T, 2N] with their padding."""
        rows = np.full((len(counts), self.width), self.pad, np.int32)
        rows[np.arange(self.width) < counts[:, None]] = tokens
        return rows


def encode(window: Mapping[str, Any], pad: int) -> dict[str, Any]:
    """The record of a window."""
    record = {name: np.asarray(window[name], np.int32) for name in _NUMBERS}
    for name in STREAMS:
        if name in window:
            real = window[name] != pad
            record[f"{name}_tokens"] = window[name][real].astype(np.int16)
            record[f"{name}_counts"] = np.count_nonzero(real, axis=1).astype(np.uint8)
    return record


def write(
    about: About,
    splits: Mapping[str, Any],
    vocabulary: Vocabulary,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write windows to `about.directory`, which appears when it is whole.

    Args:
        about: what is said of them.
        splits: name -> a `grain.MapDataset` of windows.
        vocabulary: of their tokens.
        progress: called with the numbers of windows done and of all.

    Raises:
        M4MError: there is something at that place; it cannot be written to.
    """
    total, done, infos = sum(map(len, splits.values())), 0, []
    try:
        with _new_folder(about.directory) as folder:
            for name, found in splits.items():
                lengths, size = [], 0
                for path, shard in _shards(folder, name, len(found)):
                    size += _write_shard(path, (found[k] for k in shard), vocabulary.pad)
                    lengths.append(len(shard))
                    done += len(shard)
                    if progress is not None:
                        progress(done, total)
                infos.append((name, lengths, size))
            _write_metadata(folder, infos, "reference" in splits["train"][0])
            # The last file: without it, a folder holds no packed windows.
            (folder / FILE).write_text(json.dumps(_plain(about), indent=1) + "\n")
    except OSError as error:
        reason = error.strerror or error
        raise M4MError(f"{about.directory}: cannot be written ({reason})") from error


def check_new(directory: epath.PathLike) -> None:
    """Raise M4MError where something stands at the place of windows that are to be packed."""
    target = epath.Path(directory)
    if (target / FILE if not is_local(target) else target).exists():
        raise M4MError(
            f"{target} is there already; train with packed={target}, remove it, or give another"
            " --name"
        )


@contextlib.contextmanager
def _new_folder(target: epath.Path) -> Iterator[epath.Path]:
    """Give a folder to write to; a local one appears when it is whole."""
    check_new(target)
    with (
        made_folder(target.parent),
        atomic_path(target) if is_local(target) else contextlib.nullcontext(target) as folder,
    ):
        folder.mkdir(exist_ok=True)
        yield folder


def _plain(about: About) -> dict[str, Any]:
    names = ("view", "songs", "parts", "summary", "epoch", "windows", "command")
    return _VERSIONS | {name: getattr(about, name) for name in names}


def _shards(folder: epath.Path, split: str, count: int) -> Iterator[tuple[epath.Path, range]]:
    """Files of a split and the windows that go there."""
    number = -(-count // _SHARD)
    for k in range(number):
        name = f"windows-{split}.array_record-{k:05}-of-{number:05}"
        yield folder / name, range(k * count // number, (k + 1) * count // number)


def _write_shard(path: epath.Path, found: Iterable[Mapping[str, Any]], pad: int) -> int:
    """Write records one after another; returns their size in bytes."""
    size = 0
    with write_records(path) as write_record:
        for window in found:
            data = wire.serialize(encode(window, pad))
            write_record(data)
            size += len(data)
    return size


def _write_metadata(
    folder: epath.Path, splits: Iterable[tuple[str, list[int], int]], with_reference: bool
) -> None:
    """Write what TFDS wants to know, so that its own tools read the windows too.

    splits: name, windows of each file, bytes.
    """
    import tensorflow_datasets as tfds

    def tensor(*shape: int | None, dtype: Any) -> Any:
        return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")

    features = {name: tensor(dtype=np.int32) for name in _NUMBERS}
    for name in STREAMS if with_reference else STREAMS[1:]:
        features[f"{name}_tokens"] = tensor(None, dtype=np.int16)
        features[f"{name}_counts"] = tensor(None, dtype=np.uint8)
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name="windows", filetype_suffix="array_record"
    )
    infos = [
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=lengths,
            num_bytes=size,
            filename_template=template.replace(split=name),
        )
        for name, lengths, size in splits
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=tfds.features.FeaturesDict(features),
        split_infos=infos,
        version=VERSION,
        check_data=False,
        disable_shuffling=True,
    )
