"""Step folders in a place that Orbax cannot open, by way of a local folder.

Orbax reads and writes local files and Google's buckets (gs://). Anywhere else that etils.epath
reaches, it works on a local folder, and files are copied between the two.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

from etils import epath

# The file that makes a step folder a finished checkpoint: it is copied last, and removed first.
_DONE = "_CHECKPOINT_METADATA"
# What tells which steps are best, and is copied of all.
_METRICS = "metrics"


def in_reach(path: epath.PathLike) -> bool:
    """Whether Orbax can open a path itself."""
    path = os.fspath(path)
    return "://" not in path or path.startswith("gs://")


class Mirror:
    """A local folder that stands for another place; it goes with this object.

    Attributes:
        near: the local folder. At first it has all steps of the other place with their figures, but
            without their arrays.
    """

    def __init__(self, far: epath.PathLike):
        self._far = epath.Path(far)
        self._folder = tempfile.TemporaryDirectory()
        self.near = epath.Path(self._folder.name)
        for step in _steps(self._far):
            (self.near / step).mkdir()
            for name in (_METRICS, _DONE):
                copy_tree(self._far / step / name, self.near / step / name)

    def fetch(self, step: int) -> None:
        """Copy a step's arrays from the other place."""
        far = self._far / str(step)
        for path in far.iterdir():
            if path.name not in (_METRICS, _DONE):
                copy_tree(path, self.near / str(step) / path.name)

    def push(self) -> None:
        """Copy the steps that are new to the other place, and remove those that are gone."""
        there, here = set(_steps(self._far)), set(_steps(self.near))
        for step in sorted(here - there, key=int):
            copy_tree(self.near / step, self._far / step, last=_DONE)
        for step in there - here:
            (self._far / step / _DONE).unlink()
            (self._far / step).rmtree()


def copy_tree(source: epath.Path, target: epath.Path, last: str = "") -> None:
    """Copy a file, or a folder with all that is in it, and what is called `last` after the rest."""
    if not source.is_dir():
        if source.exists():
            target.write_bytes(source.read_bytes())
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir(), key=lambda path: path.name == last):
        copy_tree(path, target / path.name)


def _steps(folder: epath.Path) -> Iterator[str]:
    """The names of the finished step folders."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.isdigit() and (path / _DONE).exists():
                yield path.name
