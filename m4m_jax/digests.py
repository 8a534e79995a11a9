"""Digests of what a folder holds, stored in it: they tell a whole checkpoint from a damaged one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from m4m_jax.files import atomic_path

FILE = "digests.json"
SMALL = 64 * 2**10
"""Bytes of a file that is read in a quick look, at most."""
_CHUNK = 2**24


def write(folder: epath.Path) -> None:
    """Store the length and the SHA-256 of every file of a finished folder in it."""
    found = {name: _describe(folder / name) for name in _names(folder)}
    with atomic_path(folder / FILE) as temporary:
        # Without blanks: there is no byte of it that means nothing.
        temporary.write_text(json.dumps(found, separators=(",", ":")))


def fault(folder: epath.PathLike, *, quick: bool = False) -> str | None:
    """What is wrong with a folder, such as `model/d/1f has changed since it was saved`, or None.

    quick: compare the lengths of files, and read only the small ones.
    """
    folder = epath.Path(folder)
    try:
        told = json.loads((folder / FILE).read_text())
        lengths = {name: about["bytes"] for name, about in told.items()}
    except FileNotFoundError:
        return "it was not saved to the end"
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"{FILE} has changed since it was saved"
    there = set(_names(folder))
    if odd := sorted(there ^ set(told)):
        return f"{odd[0]} {'was not there when it was saved' if odd[0] in there else 'is missing'}"
    for name, length in lengths.items():
        now = (folder / name).stat().length
        if now != length:
            return f"{name} has {now} bytes, and had {length} when it was saved"
    for name, about in told.items():
        if (not quick or lengths[name] <= SMALL) and _describe(folder / name) != about:
            return f"{name} has changed since it was saved"
    return None


def _names(folder: epath.Path, prefix: str = "") -> Iterator[str]:
    """The files of a folder, relative to it, in order; but for the digests themselves."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _names(path, f"{prefix}{path.name}/")
        elif prefix or path.name != FILE:
            yield prefix + path.name


def _describe(file: epath.Path) -> dict[str, Any]:
    digest, length = hashlib.sha256(), 0
    with file.open("rb") as stream:
        while part := stream.read(_CHUNK):
            digest.update(part)
            length += len(part)
    return {"bytes": length, "sha256": digest.hexdigest()}
