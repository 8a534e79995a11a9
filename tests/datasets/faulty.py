"""What untrusted files do to a process that reads them. Imported by worker processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from m4m_jax.datasets.midi_files import read_midi_file


def square(value: int) -> int:
    return value * value


def misbehave(value: int | str) -> int:
    if value == "aborts":
        os.abort()
    if value == "segfaults":
        os.kill(os.getpid(), signal.SIGSEGV)
    if value == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if value == "exits":
        os._exit(7)
    if value == "hangs":
        while True:
            time.sleep(1)
    if value == "raises":
        raise ValueError("first line\nsecond line")
    if value == "fills memory":
        return len(np.ones(2**29))
    if value == "prints":
        print("noise", flush=True)
        print("noise", file=sys.stderr, flush=True)
        return 0
    assert isinstance(value, int)
    return value * value


def squares(values: list[int], attempt) -> list:
    """A task of several files."""
    return [attempt(step, misbehave, value) for step, value in enumerate(values)]


def imported_modules(_: int, attempt) -> list[str]:
    return sorted(sys.modules)


def unpicklable(_: int, attempt):
    return lambda: 0


def full_disk(_: int, attempt):
    raise OSError(28, "No space left on device", "somewhere")


def killed_the_first_time(marker: str, attempt) -> int:
    """As by somebody who cleans up, and who does not come back."""

    def once() -> int:
        if not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 1

    return attempt(0, once)


def dies_while_writing(_: int, attempt) -> None:
    attempt(0, square, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def read(folder: str, quality: bool, name: str):
    """As the real reader, after the file has done its worst."""
    if name in ("aborts.mid", "hangs.mid"):
        misbehave(name.removesuffix(".mid"))
    return read_midi_file(folder, quality, name)
