"""Where a data set is built, and how it takes its place when it is whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from etils import epath

from m4m_jax.datasets.ingest import NothingKept
from m4m_jax.datasets.records import METADATA_FILE, is_local, names_in
from m4m_jax.errors import M4MError
from m4m_jax.files import made_folder

_STAGING = ".building"
_GOES_ON = "the same command goes on where this one stopped"


@contextlib.contextmanager
def staging_folder(root: epath.Path, name: str) -> Iterator[epath.Path]:
    """Give a data set's folder to build in; it stays if the block is interrupted or cannot write.

    Args:
        root: where data sets live.
        name: the data set's.

    Raises:
        M4MError: another process is building it; or files cannot be written in the block.
        KeyboardInterrupt: as it came, with words on how to go on.
    """
    folder, begun = root / _STAGING / name.replace("/", "-"), False
    try:
        with made_folder(root):
            folder.mkdir(parents=True, exist_ok=True)
            begun = True
            with _locked(folder, name), _kept_or_removed(folder):
                yield folder
    except BrokenPipeError:
        # Whoever read the progress has gone; no disk has to do with that.
        raise
    except OSError as error:
        goes_on = f"mend that, and {_GOES_ON}" if begun else "mend that, or give another --data-dir"
        raise M4MError(
            f"{root}: the data set {name} cannot be written ({error.strerror or error}); {goes_on}"
        ) from error


@contextlib.contextmanager
def _kept_or_removed(folder: epath.Path) -> Iterator[None]:
    """Remove a staging folder, unless the block leaves something that a later build can use."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"interrupted; {_GOES_ON} ({folder})") from error
    except NothingKept:
        folder.rmtree(missing_ok=True)
        raise
    else:
        folder.rmtree(missing_ok=True)
    finally:
        _remove_empty(folder)
        _remove_empty(folder.parent)


@contextlib.contextmanager
def _locked(folder: epath.Path, name: str) -> Iterator[None]:
    """Hold a folder for this process, until it ends in whatever way. Buckets know no locks."""
    try:
        import fcntl
    except ImportError:
        fcntl = None  # type: ignore[assignment]
    if fcntl is None or not is_local(folder):
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise M4MError(f"{folder}: another process is building {name}; wait for it") from error
    finally:
        os.close(descriptor)


def _remove_empty(folder: epath.Path) -> None:
    if is_local(folder) and folder.exists() and not names_in(folder):
        folder.rmdir()


def publish(new: epath.Path, target: epath.Path) -> None:
    """Put a whole data set in its place; one that is there before goes.

    On a local disk the folder is renamed, and until then the old one is as it was. Elsewhere files
    are copied one by one, the one that makes it a data set last, after that of the old one went.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_local(target):
        if target.exists():
            target.rename(new.with_name("replaced"))
        new.rename(target)
        return
    if target.exists():
        (target / METADATA_FILE).unlink(missing_ok=True)
        target.rmtree(missing_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(new.iterdir(), key=lambda path: path.name == METADATA_FILE):
        path.copy(target / path.name)
