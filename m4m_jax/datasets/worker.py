"""The program of one worker process: see `m4m_jax.datasets.isolation`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from m4m_jax.datasets.isolation import Failure, write_mark
from m4m_jax.errors import M4MError

_PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True)
class _Attempt:
    """See `isolation.Attempt`."""

    mark: int
    time_limit: float
    memory_bytes: int
    faults: dict[int, Failure]

    def __call__(self, step: int, function: Callable[..., Any], /, *arguments: Any) -> Any:
        if step in self.faults:
            return self.faults[step]
        write_mark(self.mark, step)
        signal.setitimer(signal.ITIMER_REAL, self.time_limit)
        # A parser may raise anything at all on a malformed file; the file is at fault, so it is
        # reported and the worker goes on.
        try:
            return function(*arguments)
        except M4MError as error:
            return Failure(getattr(error, "reason", "unreadable"), str(error))
        except MemoryError:
            return Failure("too large", f"needs more than {self.memory_bytes / 2**30:.3g} GB")
        except Exception as error:
            message = str(error).partition("\n")[0]
            return Failure("unreadable", type(error).__name__ + (f": {message}" if message else ""))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            write_mark(self.mark, -1)


def _silence_stderr() -> None:
    """Drop what parsers print: what matters of it comes back as a result."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stderr.fileno())


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process with the one that it works for, if it knows how."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit()


def _limit_memory(size: int) -> None:
    # Elsewhere than on Linux the limit may be unknown, or not be kept.
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (size, hard))


def _answer(pipe: Connection, function: Any, task: Any, attempt: _Attempt) -> None:
    try:
        answer = True, function(task, attempt)
    except Exception as error:
        answer = False, error
    try:
        pipe.send(answer)
    except (pickle.PicklingError, AttributeError, TypeError):
        pipe.send((False, RuntimeError(f"a data worker's answer does not pickle: {answer[1]!r}")))


def main() -> None:
    """Serve calls over the inherited connection until it closes."""
    # The kernel ends the process when its time is up, wherever it hangs, and even if the parent
    # is gone.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    pipe_descriptor, mark, parent = map(int, sys.argv[1:])
    _die_with(parent)
    with Connection(pipe_descriptor) as pipe, contextlib.suppress(EOFError, BrokenPipeError):
        setup = pipe.recv()
        signal.setitimer(signal.ITIMER_REAL, setup["start_seconds"])
        function = pickle.loads(setup["function"])
        _silence_stderr()
        _limit_memory(setup["memory_bytes"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(None)
        while True:
            task, faults = pipe.recv()
            attempt = _Attempt(mark, setup["time_limit"], setup["memory_bytes"], faults)
            _answer(pipe, function, task, attempt)


if __name__ == "__main__":
    main()
