"""A place for files that is no folder of this machine: bucket://NAME, a path class of etils'.

It is as buckets are. There are no folders but what names of files make of them, so an empty one
does not exist, and to make one does nothing; and nothing but a single file is renamed at once. The
files are in a local folder, `$M4M_TEST_BUCKETS`, so that other processes see them too.
"""

from __future__ import annotations

import fnmatch
import io
import os
import pathlib
import shutil
import sys
import urllib.parse

from etils import epath

SCHEME = "bucket"
FOLDER = "M4M_TEST_BUCKETS"


def _parts(parts):
    for part in map(os.fspath, parts):
        yield part.replace(f"{SCHEME}://", f"/{SCHEME}/", 1)


@epath.register_path_cls(f"{SCHEME}://")
class BucketPath(epath.Path):
    if sys.version_info < (3, 12):

        def __new__(cls, *parts):
            return super().__new__(cls, *_parts(parts))

    else:

        def __init__(self, *parts):
            super().__init__(*_parts(parts))

    def __fspath__(self):
        return f"{SCHEME}://" + "/".join(self.parts[2:])

    __str__ = __fspath__

    def __repr__(self):
        return f"BucketPath({os.fspath(self)!r})"

    def __reduce__(self):
        return BucketPath, (os.fspath(self),)

    def expanduser(self):
        return self

    @property
    def _file(self):
        return pathlib.Path(os.environ[FOLDER]) / urllib.parse.quote(os.fspath(self), safe="")

    def _below(self):
        """All files below this path, by their names below it."""
        start = os.fspath(self) + "/"
        names = map(urllib.parse.unquote, os.listdir(os.environ[FOLDER]))
        return sorted(name.removeprefix(start) for name in names if name.startswith(start))

    def is_file(self):
        return self._file.exists()

    def is_dir(self):
        return bool(self._below())

    def exists(self):
        return self.is_file() or self.is_dir()

    def iterdir(self):
        if not self.is_dir():
            raise FileNotFoundError(2, "No such file or directory", os.fspath(self))
        for name in sorted({name.partition("/")[0] for name in self._below()}):
            yield self / name

    def glob(self, pattern):
        depth = pattern.count("/")
        names = {"/".join(name.split("/")[: depth + 1]) for name in self._below()}
        matching = (n for n in names if n.count("/") == depth and _matches(n, pattern))
        return (self / name for name in sorted(matching))

    def mkdir(self, mode=None, parents=False, exist_ok=False):
        pass

    def rmdir(self):
        assert not self.is_dir()

    def rmtree(self, missing_ok=False):
        if not missing_ok and not self.is_dir():
            raise FileNotFoundError(2, "No such file or directory", os.fspath(self))
        for name in self._below():
            (self / name).unlink()

    def unlink(self, missing_ok=False):
        self._file.unlink(missing_ok=missing_ok)

    def open(self, mode="r", **options):
        if "w" in mode:
            return _Upload(self._file) if "b" in mode else io.TextIOWrapper(_Upload(self._file))
        assert "a" not in mode, "what is in a bucket cannot be appended to"
        return self._file.open(mode, **options)

    def replace(self, target):
        target = epath.Path(target)
        if self.is_file():
            self._file.replace(target._file)
        for name in self._below():
            (self / name)._file.replace((target / name)._file)
        return target

    rename = replace

    def copy(self, dst, overwrite=False):
        dst = epath.Path(dst)
        assert isinstance(dst, BucketPath)
        assert overwrite or not dst.exists()
        shutil.copyfile(self._file, dst._file)
        return dst

    def stat(self):
        return epath.Path(self._file).stat()


def _matches(name, pattern):
    pairs = zip(name.split("/"), pattern.split("/"), strict=True)
    return all(fnmatch.fnmatchcase(part, of) for part, of in pairs)


class _Upload(io.BytesIO):
    """A file that is there, whole, once it has been closed."""

    def __init__(self, path):
        super().__init__()
        self._path = path

    def close(self):
        if not self.closed:
            self._path.write_bytes(self.getvalue())
        super().close()
