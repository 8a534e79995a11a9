"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator

from etils import epath

from m4m_jax.errors import M4MError


@contextlib.contextmanager
def atomic_path(path: epath.PathLike) -> Iterator[epath.Path]:
    """Give a temporary path beside `path` to write to; rename it to `path` at the end of the block.

    Args:
        path: The file (or folder) to make. A file of that name is replaced.

    Yields:
        A path in the same folder and with the same suffix that does not exist yet.

    Raises:
        M4MError: The folder of `path` does not exist or cannot be written to. When the block
            raises, what it has written is removed and `path` is left as it was.
    """
    target = epath.Path(path)
    temporary = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}.tmp{target.suffix}")
    _check_folder(target)
    try:
        yield temporary
    except BaseException as error:
        _remove(temporary)
        # What else goes wrong in the block is not about this file.
        if isinstance(error, OSError) and error.filename == os.fspath(temporary):
            raise _cannot_write(target, error) from error
        raise
    try:
        temporary.replace(target)
    except OSError as error:
        _remove(temporary)
        raise _cannot_write(target, error) from error


@contextlib.contextmanager
def made_folder(folder: epath.PathLike) -> Iterator[epath.Path]:
    """Make a folder; one that was not there before is gone after the block if it is empty then.

    The same holds for the folders above it. A bucket has folders only where there are files.
    """
    folder = epath.Path(folder)
    new = []
    try:
        if "://" not in os.fspath(folder):
            new = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    finally:
        for path in new:
            with contextlib.suppress(OSError, ValueError):  # it was not made, or is not empty
                path.rmdir()


def absolute(path: epath.PathLike) -> epath.Path:
    """The path from the root of this machine's files; a bucket's (gs://...) is one already."""
    path = os.fspath(path)
    return epath.Path(path if "://" in path else os.path.abspath(path))


def check_place(path: epath.PathLike) -> None:
    """Find out before long work whether a file could be written to `path` after it.

    Raises:
        M4MError: The folder of `path` does not exist, or `path` is a folder.
    """
    target = epath.Path(path)
    _check_folder(target)
    if target.is_dir():
        raise M4MError(f"{target}: cannot be written (it is a folder)")


def check_folder(path: epath.PathLike) -> None:
    """Find out before long work whether files could be written into the folder `path` after it.

    Raises:
        M4MError: `path` is there and is no folder.
    """
    folder = epath.Path(path)
    if folder.exists() and not folder.is_dir():
        raise M4MError(f"{folder}: cannot be written to (it is no folder)")


def _check_folder(target: epath.Path) -> None:
    # A bucket has folders only where there are files in them.
    if "://" not in os.fspath(target) and not target.parent.is_dir():
        raise M4MError(f"{target}: the folder {target.parent} does not exist; make it first")


def _cannot_write(target: epath.Path, error: OSError) -> M4MError:
    return M4MError(f"{target}: cannot be written ({error.strerror or error})")


def _remove(path: epath.Path) -> None:
    if path.is_dir():
        path.rmtree()
    else:
        path.unlink(missing_ok=True)
