"""What must be settled before a command computes: memory pages and a cache of compiled programs."""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import sys
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
LARGE_PAGES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1"
    f":glibc.malloc.trim_threshold={2**36}"
)
"""Large pages, all memory of all threads out of one region, and none given back before the end."""

NO_TPU = {
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}
"""What libtpu is told on a machine without a TPU, where it would look for one on the network."""

RESUME = 75
"""The exit status of a run that was stopped and can go on (EX_TEMPFAIL of sysexits.h)."""


def stop_by_signal() -> None:
    """End the command on SIGTERM as a run that goes on later, as long as it has begun nothing."""

    def leave(number: int, frame: object) -> None:
        stopped("nothing was saved yet")
        os._exit(RESUME)

    signal.signal(signal.SIGTERM, leave)


def stopped(saved: str) -> None:
    """Say that a run was stopped, and what is left of it."""
    line = f"m4m: stopped by SIGTERM; {saved}; the same command takes it up again"
    print(line, file=sys.stderr, flush=True)


def use_large_pages() -> None:
    """Start the command again with glibc's memory in large pages that it keeps.

    A training step on a processor takes gigabytes of new memory, and without this spends up to a
    quarter of its time on having them mapped page by page. Where `GLIBC_TUNABLES` is set, and on
    other systems than Linux, nothing is changed.
    """
    if not sys.platform.startswith("linux") or TUNABLES in os.environ:
        return
    os.environ[TUNABLES] = LARGE_PAGES
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def leave_out_missing_tpus() -> None:
    """Keep libtpu, where it is installed, from telling at length that the machine has no TPU."""
    google = "0x1ae0"  # the maker of chips on the PCI bus
    makers = Path("/sys/bus/pci/devices").glob("*/vendor")
    if not any(file.read_text().strip() == google for file in makers):
        for name, value in NO_TPU.items():
            os.environ.setdefault(name, value)


def keep_compiled_programs() -> None:
    """Keep programs that took long to compile in the user's cache, for the next time.

    `JAX_COMPILATION_CACHE_DIR` names another folder; empty, it keeps none.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache_folder()))


def _cache_folder() -> Path:
    """One for each kind of processor, since programs are made for one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kind = platform.machine() + platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kind += next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        pass
    return cache / "m4m_jax" / "programs" / hashlib.sha256(kind.encode()).hexdigest()[:12]
