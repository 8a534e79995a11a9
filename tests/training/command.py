"""`m4m` with a tiny model, `size=micro`, that says on stdout what it is about; run as a program."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from tests.training import runs

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / "launch" / "local.py"
MODULE = "tests.training.command"


def write_config(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(runs.SETTINGS | changes))
    return path


class Process:
    """`m4m` in a process of its own, or several, started and read line by line."""

    def __init__(
        self, *arguments: object, devices: int = 1, processes: int = 1, **environment: str
    ):
        flags = f"--xla_force_host_platform_device_count={devices}"
        together = (
            [] if processes == 1 else [str(LOCAL), "-n", str(processes), "--", sys.executable]
        )
        settings = {
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}",
            "JAX_PLATFORMS": "cpu",
            "PYTHONUNBUFFERED": "1",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # half the time to compile
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0",  # or it would start itself again
            "PYTHONPATH": str(ROOT),
        }
        self.process = subprocess.Popen(
            [
                sys.executable,
                *(together if processes > 1 else ()),
                "-m",
                MODULE,
                *map(str, arguments),
            ],
            env=os.environ | settings | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []

    def read_to(self, words: str) -> None:
        """Read until a line has these words."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if words in line:
                return
        raise AssertionError(f"{words!r} did not come:\n{''.join(self.lines)[-3000:]}")

    def end(self, number: signal.Signals | None = None, seconds: float = 300) -> tuple[int, float]:
        """Send a signal; returns the exit status, and the seconds to the end."""
        begun = time.monotonic()
        if number is not None:
            self.process.send_signal(number)
        try:
            self.lines.append(self.process.communicate(timeout=seconds)[0])
        finally:
            self.process.kill()
        return self.process.returncode, time.monotonic() - begun

    @property
    def told(self) -> str:
        return "".join(self.lines)


def announce(owner: Any, name: str, words: str) -> None:
    """Print before a function is called."""
    call = getattr(owner, name)

    @functools.wraps(call)
    def announced(*args: Any, **kwargs: Any) -> Any:
        print(words)
        return call(*args, **kwargs)

    setattr(owner, name, announced)


def in_float64() -> None:
    """Make runs compute in double precision, in which sums do not depend on their order."""
    from m4m_jax.training import run as module
    from tests.models.small import in_double

    new, step, evaluation = module.new_system, module.make_step, module.make_evaluation

    module.new_system = lambda *args: in_double(new(*args))
    module.make_step = lambda graph, schedule, dtype, mesh: step(graph, schedule, "float64", mesh)
    module.make_evaluation = lambda graph, dtype, mesh: evaluation(graph, "float64", mesh)


def main() -> None:
    from m4m_jax import digests
    from m4m_jax.cli import main as m4m
    from m4m_jax.models import lm
    from m4m_jax.training.feed import HeldOut
    from tests.models.small import MICRO

    lm.PRESETS["micro"] = MICRO
    announce(HeldOut, "_sums", "[validating]")
    announce(digests, "write", "[saving]")
    if os.environ.get("JAX_ENABLE_X64"):
        in_float64()
    m4m()


if __name__ == "__main__":
    main()
