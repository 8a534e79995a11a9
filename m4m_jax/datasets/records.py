"""Files of records (array_record), wherever they are.

The array_record library opens local files only. Elsewhere a file is written to a temporary local
one first and then copied, and copied before it is read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from array_record.python import array_record_module
from etils import epath

from m4m_jax.errors import M4MError
from m4m_jax.files import atomic_path

# The file that makes a folder a whole data set.
METADATA_FILE = "metadata.json"

# A record a group, so that each can be read by itself. Level 1 makes files as small as level 3, in
# two thirds of its time.
_OPTIONS = "group_size:1,zstd:1"

# What a writer may come upon that is not the program's fault; the library tells it in words only.
_ERRNOS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES),
    *(errno.EPERM, errno.ENOENT, errno.ENAMETOOLONG, errno.EMFILE, errno.EIO),
)


def is_local(path: epath.PathLike) -> bool:
    """Say whether a path is one that libraries without etils can open."""
    return "://" not in os.fspath(path)


@contextlib.contextmanager
def whole_file(path: epath.PathLike) -> Iterator[epath.Path]:
    """As `atomic_path`, with what the system says when the file cannot be written.

    Raises:
        OSError: in place of an M4MError about this file, which a user has not heard of.
    """
    try:
        with atomic_path(path) as temporary:
            yield temporary
    except M4MError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise


@contextlib.contextmanager
def write_records(path: epath.PathLike) -> Iterator[Callable[[bytes], None]]:
    """Give a function that appends a record; the file appears whole at the end of the block.

    Raises:
        OSError: the file cannot be written; the disk may be full.
    """
    with whole_file(path) as temporary, _written_locally(temporary) as local:
        with _os_errors(local):
            writer = array_record_module.ArrayRecordWriter(local, _OPTIONS)
        try:
            yield writer.write
        finally:
            with _os_errors(local):
                writer.close()


def read_records(path: epath.PathLike, numbers: Iterable[int]) -> Iterator[bytes]:
    """Yield records of a file by their numbers, one at a time.

    Raises:
        OSError: the file cannot be read.
    """
    with local_copy(path) as local:
        reader = array_record_module.ArrayRecordReader(local)
        for number in numbers:
            with _os_errors(local):
                data = reader.read([number])[0]
            yield data


@contextlib.contextmanager
def whole_data_set(folder: epath.PathLike, command: str) -> Iterator[None]:
    """Say in one line what of a data set's files cannot be read, and which command makes it anew.

    Raises:
        M4MError: in place of whatever the block raises when a file is damaged or missing.
    """
    try:
        yield
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0].partition(";")[0] or type(error).__name__
        raise M4MError(
            f"{folder}: files of it are damaged or missing ({reason}); remove it, and make it again"
            f" with {command}"
        ) from error


class StoredRecords:
    """The records of a split of a TFDS data set, by number."""

    def __init__(self, folder: epath.PathLike, split: str, command: str):
        """command: the one that makes the data set anew."""
        import tensorflow_datasets as tfds

        self._folder, self._command = os.fspath(folder), command
        with whole_data_set(folder, command):
            builder = tfds.builder_from_directory(local_folder(folder))
            # TFDS cannot store a split without records.
            there = split in builder.info.splits
            self._source = builder.as_data_source(split) if there else []

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Any:
        with whole_data_set(self._folder, self._command):
            return self._source[index]


@contextlib.contextmanager
def local_copy(path: epath.PathLike) -> Iterator[str]:
    """Give the path of a local file with this one's bytes, which is itself if it is local."""
    if is_local(path):
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        local = epath.Path(folder) / epath.Path(path).name
        copy_file(path, local)
        yield os.fspath(local)


def names_in(folder: epath.PathLike) -> set[str]:
    """Return the names of what is in a folder; none if there is no such folder.

    In a bucket there is no folder without files.
    """
    try:
        return {path.name for path in epath.Path(folder).iterdir()}
    except FileNotFoundError:
        return set()


def local_folder(folder: epath.PathLike) -> str:
    """Return the path of a local folder with a data set's files, which is itself if it is local.

    A copy is made in $XDG_CACHE_HOME (or ~/.cache) and stays there; it serves all processes, until
    the data set is built anew.
    """
    if is_local(folder):
        return os.fspath(folder)
    folder = epath.Path(folder)
    key = os.fspath(folder).encode() + (folder / METADATA_FILE).read_bytes()
    cache = epath.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "m4m_jax"
    copy = cache / hashlib.sha256(key).hexdigest()[:32]
    if not copy.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            whole = epath.Path(temporary) / "whole"
            whole.mkdir()
            for path in folder.iterdir():
                copy_file(path, whole / path.name)
            # Another process may have been faster.
            with contextlib.suppress(OSError):
                whole.rename(copy)
    return os.fspath(copy)


def copy_file(source: epath.PathLike, target: epath.PathLike) -> None:
    """Copy a file from anywhere to anywhere."""
    with epath.Path(source).open("rb") as read, epath.Path(target).open("wb") as write:
        shutil.copyfileobj(read, write, 2**20)


@contextlib.contextmanager
def _written_locally(path: epath.Path) -> Iterator[str]:
    if is_local(path):
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        local = epath.Path(folder) / path.name
        yield os.fspath(local)
        copy_file(local, path)


@contextlib.contextmanager
def _os_errors(path: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        for number in _ERRNOS:
            if os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number), path) from error
        raise OSError(errno.EIO, str(error).partition("\n")[0], path) from error
