"""What untrusted files do to a process that reads them. Imported by worker processes."""

from __future__ import annotations

import os
import signal
import sys
import time

from m4m_jax.datasets.midi_files import read_midi_file


def square(value: int) -> int:
    return value * value


def misbehave(value: int | str) -> int:
    if value == "aborts":
        os.abort()
    if value == "segfaults":
        os.kill(os.getpid(), signal.SIGSEGV)
    if value == "exits":
        os._exit(7)
    if value == "hangs":
        while True:
            time.sleep(1)
    if value == "raises":
        raise ValueError("first line\nsecond line")
    if value == "prints":
        print("noise", flush=True)
        print("noise", file=sys.stderr, flush=True)
        return 0
    if value == "unpicklable":
        return lambda: 0  # type: ignore[return-value]
    assert isinstance(value, int)
    return value * value


def imported_modules(_: int) -> list[str]:
    return sorted(sys.modules)


def read(folder: str, quality: bool, name: str):
    """As the real reader, after the file has done its worst."""
    if name in ("aborts.mid", "hangs.mid"):
        misbehave(name.removesuffix(".mid"))
    return read_midi_file(folder, quality, name)
