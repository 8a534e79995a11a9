"""The memory that a process holds."""

from __future__ import annotations

from typing import NamedTuple


class Resident(NamedTuple):
    """Bytes of this process that lie in memory: now, and at the most so far."""

    now: int
    most: int


def resident() -> Resident | None:
    """What Linux says of this process, both figures at one moment; None on other systems."""
    try:
        with open("/proc/self/status") as file:
            told = dict(line.split(":", 1) for line in file)
        return Resident(*(int(told[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")))
    except (OSError, KeyError):
        return None
