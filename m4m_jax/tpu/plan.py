"""Programs as XLA has planned them for a TPU: optimised, in order, each array in its place.

What a program costs is known then. Machine code, of which nothing is wanted here, takes several
times as long again, so nobody waits for it.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from m4m_jax.errors import M4MError

TEXT = "*.after_optimizations_after_buffer_assignment.txt"
PLACES = "*.after_optimizations-buffer-assignment.txt"
"""What XLA writes of a plan: the program, and before it where its arrays lie."""


class Plan(NamedTuple):
    """A planned program.

    text: its instructions. arguments, results, temporary: bytes of HBM a device of what it is
    called with, of what takes no argument's place, and of all else.
    """

    text: str
    arguments: int
    results: int
    temporary: int


def plan(lowered: Any) -> Plan:
    """The plan of a lowered program. A thread goes on to machine code when this returns.

    Raises:
        jax.errors.JaxRuntimeError: XLA refuses the program, such as for want of memory.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        options = {"xla_dump_to": name, "xla_dump_hlo_as_text": True}
        failed: list[Exception] = []

        def compile() -> None:
            try:
                lowered.compile(options)
            except Exception as error:
                failed.append(error)

        compiling = threading.Thread(target=compile, daemon=True)
        compiling.start()
        while True:
            ended = not compiling.is_alive()  # looked at first: what it wrote is there by then
            if (text := _written(Path(name))) is not None:
                return Plan(text, *sizes(next(Path(name).glob(PLACES)).read_text()))
            if failed:
                raise failed[0]
            if ended:
                raise M4MError("libtpu has not written what it planned; use another version of it")
            time.sleep(0.1)


def _written(folder: Path) -> str | None:
    """The text of the plan once all of it is there."""
    for path in folder.glob(TEXT):
        text = path.read_text()
        if text.endswith("}\n\n"):
            return text
    return None


def sizes(places: str) -> tuple[int, int, int]:
    """Bytes of arguments, of results, and of all else in HBM, of what XLA writes of allocations.

    A line such as `allocation 3: size 512, parameter 0, shape |f32[128]|, maybe-live-out:` is one;
    those of other memories have a `color`.
    """
    arguments = results = temporary = 0
    for size, kind in re.findall(r"^allocation \d+: size (\d+),? ?(.*)$", places, re.MULTILINE):
        if re.match(r"color \d", kind) or "thread-local" in kind:
            continue
        if kind.startswith("parameter"):
            arguments += int(size)
        elif "maybe-live-out" in kind:
            results += int(size)
        else:
            temporary += int(size)
    return arguments, results, temporary
