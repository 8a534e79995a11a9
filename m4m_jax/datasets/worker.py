"""The program of one worker process: see `m4m_jax.datasets.isolation`."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from m4m_jax.datasets.isolation import Failure
from m4m_jax.errors import M4MError


def _call(function: Any, item: Any) -> Any:
    # A parser may raise anything at all on a malformed file; the file is at fault, so it is
    # reported and the worker goes on.
    try:
        return function(item)
    except M4MError as error:
        return Failure(getattr(error, "reason", "unreadable"), str(error))
    except Exception as error:
        message = str(error).partition("\n")[0]
        return Failure("unreadable", type(error).__name__ + (f": {message}" if message else ""))


def _silence_stderr() -> None:
    """Drop what parsers print: what matters of it comes back as a result."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stderr.fileno())


def main() -> None:
    """Serve calls over the inherited connection until it closes."""
    # The kernel ends the process when its time is up, wherever it hangs, and even if the parent
    # is gone.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with Connection(int(sys.argv[1])) as pipe:
        setup = pipe.recv()
        signal.setitimer(signal.ITIMER_REAL, setup["start_seconds"])
        function = pickle.loads(setup["function"])
        _silence_stderr()
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(None)
        while True:
            try:
                item = pipe.recv()
            except EOFError:
                return
            signal.setitimer(signal.ITIMER_REAL, setup["time_limit"])
            result = _call(function, item)
            signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.send(result)


if __name__ == "__main__":
    main()
