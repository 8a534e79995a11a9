"""Files in a folder, or in a .zip or .tar of it, read one by one without unpacking anything."""

from __future__ import annotations

import functools
import os
import posixpath
import shlex
import tarfile
import threading
import zipfile
from collections.abc import Callable
from typing import BinaryIO, Protocol, TypeVar

from etils import epath

from m4m_jax.datasets.folders import files_below
from m4m_jax.errors import M4MError

# A larger member is no piece of music, and may be made to fill the memory of who unpacks it.
MAX_BYTES = 64 * 2**20

_Member = TypeVar("_Member")

_BLOCK = 512  # of a tar file
_COMPRESSED = {
    (".tar.gz", ".tgz"): "gunzip",
    (".tar.bz2", ".tbz2"): "bunzip2",
    (".tar.xz", ".txz"): "unxz",
    (".tar.zst", ".tzst"): "unzstd",
}


def files_in(place: epath.Path, suffixes: tuple[str, ...], what: str) -> list[str]:
    """Return the names of all files of some kind in a folder or an archive, sorted.

    They are paths within it, or within the one folder that it holds where that has the archive's
    name; hidden ones are left out, as in `files_below`. Of archive members of one name the last
    counts, as it would when unpacking.

    Args:
        place: the folder, .zip or .tar.
        suffixes: of the files, in lower case, with the dot.
        what: what such a file is called in messages.

    Raises:
        M4MError: there is no such place or no such file in it, or it cannot be read.
    """
    if place.is_dir():
        return files_below(place, suffixes, what)
    archive = _open(place)
    try:
        names = [n for n in archive.names if n.lower().endswith(suffixes) and not _is_hidden(n)]
    finally:
        archive.close()
    if not names:
        raise M4MError(f"{place}: no {what} ({', '.join(suffixes)}) in this archive")
    return sorted(names)


def read_file(place: str, name: str) -> bytes:
    """Return what is in a file that `files_in` named.

    An archive stays open for the next call, so its list of members is read once in a process.

    Raises:
        M4MError: it cannot be read.
    """
    try:
        return _reader(place)(name)
    except OSError as error:
        raise M4MError(f"{name}: cannot be read ({error.strerror or error})") from error


def make_ready(place: str) -> None:
    """Do ahead of `read_file` what it does once: of a large archive it takes seconds.

    Raises:
        M4MError: there is no such place, or it cannot be read.
    """
    _reader(place)


class _Archive(Protocol):
    @property
    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def close(self) -> None: ...


class _Zip:
    def __init__(self, file: BinaryIO, stem: str):
        self._file = file
        self._archive = zipfile.ZipFile(file)
        files = (info for info in self._archive.infolist() if not info.is_dir())
        self._members = _from_root({_clean(info.filename): info for info in files}, stem)

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def read(self, name: str) -> bytes:
        info = self._members[name]
        _check_size(name, info.file_size)
        try:
            return self._archive.read(info)
        except OSError:
            raise
        # Each way of packing has errors of its own, beside those for passwords and unknown ways.
        except Exception as error:
            raise M4MError(f"{name}: cannot be unpacked ({error})") from error

    def close(self) -> None:
        self._archive.close()
        self._file.close()


class _Tar:
    def __init__(self, file: BinaryIO, stem: str):
        self._file, self._lock = file, threading.Lock()
        # name -> where its bytes are and how many; None for what is no plain file.
        members: dict[str, tuple[int, int] | None] = {}
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while member := archive.next():
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep all
                if not member.isdir():
                    plain = member.isreg() and not member.issparse()
                    where = (member.offset_data, member.size) if plain else None
                    members[_clean(member.name)] = where
            # A header that makes no sense is taken for the end.
            file.seek(archive.offset)
            if file.read(_BLOCK).strip(b"\0"):
                raise tarfile.ReadError(f"damaged at byte {archive.offset:,}")
        self._members = _from_root(members, stem)

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def read(self, name: str) -> bytes:
        where = self._members[name]
        if where is None:
            raise M4MError(f"{name}: a link or another special file in the archive")
        offset, size = where
        _check_size(name, size)
        with self._lock:
            self._file.seek(offset)
            data = self._file.read(size)
        if len(data) < size:
            raise M4MError(f"{name}: cut short by the end of the archive")
        return data

    def close(self) -> None:
        self._file.close()


def _open(place: epath.Path) -> _Archive:
    name = place.name.lower()
    for suffixes, command in _COMPRESSED.items():
        if name.endswith(suffixes):
            raise M4MError(
                f"{place}: files cannot be read one by one from a tar that is compressed as a"
                f" whole; make it a plain .tar first: {command} {shlex.quote(os.fspath(place))}"
            )
    kinds: dict[str, Callable[[BinaryIO, str], _Archive]] = {".zip": _Zip, ".tar": _Tar}
    kind = kinds.get(place.suffix.lower())
    if not place.exists():
        raise M4MError(f"{place}: no such {'file' if kind else 'folder'}")
    if kind is None:
        raise M4MError(f"{place}: neither a folder nor a .zip or .tar")
    try:
        file = place.open("rb")
    except OSError as error:
        raise M4MError(f"{place}: cannot be opened ({error.strerror or error})") from error
    try:
        return kind(file, place.stem)
    except (OSError, ValueError, zipfile.BadZipFile, tarfile.TarError) as error:
        why = _fault(file, error)
        file.close()
        raise M4MError(f"{place}: cannot be read as {place.suffix} ({why})") from error


def _fault(file: BinaryIO, error: Exception) -> str:
    """What is wrong with an archive: the library's words, unless it is known better."""
    file.seek(0)
    # The list of a .zip's members is at its end, and what it begins with is the first member.
    headless = isinstance(error, zipfile.BadZipFile) and file.read(4) == b"PK\3\4"
    if headless or "unexpected end of data" in str(error):
        return "it is cut off; copy or download it again"
    return str(error)


@functools.lru_cache(maxsize=2)
def _reader(place: str) -> Callable[[str], bytes]:
    path = epath.Path(place)
    if path.is_dir():
        return lambda name: (path / name).read_bytes()
    return _open(path).read


def _clean(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")


def _from_root(members: dict[str, _Member], stem: str) -> dict[str, _Member]:
    """Members by their names within the folder that was packed, where that is the archive's own.

    `songs.zip` of a folder `songs` then names its files as the folder does.
    """
    top = f"{stem}/"
    if not all(name.startswith(top) for name in members if not _is_hidden(name)):
        return members
    return {name.removeprefix(top): member for name, member in members.items()}


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _check_size(name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise M4MError(f"{name}: {size:,} bytes; files may have {MAX_BYTES:,}")
