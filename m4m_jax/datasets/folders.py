"""Finding files in folders, wherever the folders are."""

from __future__ import annotations

import hashlib
import os

from etils import epath

from m4m_jax.errors import M4MError


def files_below(folder: epath.Path, suffixes: tuple[str, ...], what: str) -> list[str]:
    """Return the paths of all files of some kind under a folder, relative to it, sorted.

    Files count by their suffix in any case. Hidden files and folders (names with a leading dot) are
    left out: they are what archivers and file browsers leave behind. Links to folders are not
    followed, since they may lead in circles.

    Args:
        folder: where to look, recursively.
        suffixes: in lower case, with the dot.
        what: what such a file is called in messages.

    Raises:
        M4MError: there is no such folder, no such file in it, or a folder cannot be listed.
    """
    if not folder.is_dir():
        raise M4MError(f"{folder}: no such folder; give one that holds {what}s")
    names = []
    pending = [("", folder)]
    while pending:
        prefix, directory = pending.pop()
        for path in _entries(directory):
            name = prefix + path.name
            if path.name.lower().endswith(suffixes):
                names.append(name)
            elif path.is_dir() and not os.path.islink(path):
                pending.append((f"{name}/", path))
    if not names:
        raise M4MError(f"{folder}: no {what} ({', '.join(suffixes)}) in this folder or below it")
    return sorted(names)


def state_of(place: epath.Path | None) -> str:
    """Return a hash of the names, sizes and times of change of all files of a folder, or of a file.

    It is empty where there is no place, and where it is not local: to ask a bucket takes too long.
    """
    if place is None or "://" in os.fspath(place):
        return ""
    digest = hashlib.sha256()
    paths = (os.path.join(top, name) for top, _, names in os.walk(place) for name in names)
    for path in [os.fspath(place)] if place.is_file() else sorted(paths):
        found = os.lstat(path)
        digest.update(f"{path!a} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _entries(folder: epath.Path) -> list[epath.Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise M4MError(f"{folder}: cannot be listed ({error.strerror or error})") from error
