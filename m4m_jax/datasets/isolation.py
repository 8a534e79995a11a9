"""Running a function over untrusted files in worker processes that may crash or hang.

A malformed file can end its process below Python, or keep a parser busy for ever. So each item is
worked on in a worker process: when the process dies or overruns its time, that item is reported as
failed, a fresh process takes its place, and every other item is unaffected.

The processes are started as `python -m m4m_jax.datasets.worker`, so they import what the function
needs and nothing of the program that called (no jax, no second run of a script's top level).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

# A worker that is not ready by then is a defect of the installation, not of a file.
START_SECONDS = 120.0
# How far ahead of the oldest unfinished item others may run, for each worker. It bounds what waits
# in memory behind one slow file.
LOOKAHEAD = 256


@dataclass(frozen=True)
class Failure:
    """Why an item gave no result: a short `reason` to group by, and the `detail` for a reader."""

    reason: str
    detail: str


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    ready: bool = False
    item: int | None = None


@dataclass
class _Pool:
    """The running workers and the items they are on."""

    setup: dict[str, Any]
    time_limit: float
    workers: list[_Worker] = field(default_factory=list)

    def start(self) -> _Worker:
        ours, theirs = Pipe()
        with theirs:
            environment = dict(
                os.environ,
                PYTHONPATH=os.pathsep.join(path for path in sys.path if path),
                OMP_NUM_THREADS="1",
                OPENBLAS_NUM_THREADS="1",
            )
            process = subprocess.Popen(
                [sys.executable, "-m", "m4m_jax.datasets.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                # Ctrl-C reaches the builder alone, which ends its workers.
                process_group=0,
            )
        worker = _Worker(process, ours)
        self.workers.append(worker)
        self._send(worker, self.setup)
        return worker

    def give(self, worker: _Worker, item: int, value: Any) -> None:
        worker.item = item
        self._send(worker, value)

    @staticmethod
    def _send(worker: _Worker, value: Any) -> None:
        # A worker that has just died is noticed, with its exit status, when its pipe is read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            worker.pipe.send(value)

    def receive(self, worker: _Worker) -> Any:
        """Return the worker's result, or the Failure of its item when it has died."""
        try:
            return worker.pipe.recv()
        except (EOFError, ConnectionResetError, pickle.UnpicklingError):
            return self._bury(worker)

    def _bury(self, worker: _Worker) -> Failure:
        worker.pipe.close()
        # Its pipe closes a moment before it is gone; killed right away, it would lose its status.
        try:
            status = worker.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            status = worker.process.wait()
        self.workers.remove(worker)
        if not worker.ready:
            raise RuntimeError(f"a data worker did not start (exit status {status})")
        return _death(status, self.time_limit)

    def stop(self) -> None:
        for worker in self.workers:
            worker.process.kill()
            worker.process.wait()
            worker.pipe.close()
        self.workers.clear()


def _death(status: int, time_limit: float) -> Failure:
    if status == -signal.SIGALRM:
        return Failure("timed out", f"not done after {time_limit:g} s")
    if status < 0:
        return Failure("crashed the parser", f"ended by {signal.Signals(-status).name}")
    return Failure("crashed the parser", f"ended with exit status {status}")


def isolated_map(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    workers: int,
    time_limit: float = 60.0,
) -> Iterator[tuple[Any, Any]]:
    """Yield `(item, function(item))` in the order of `items`, computed by worker processes.

    The order and the results do not depend on the number of workers. Where there is no result, a
    `Failure` takes its place: the function raised, its process died, or `time_limit` ran out.

    Args:
        function: importable by name (or a `functools.partial` of such a function); it and what it
            returns must pickle.
        items: what to call it with; they must pickle.
        workers: how many processes to run at once, at least 1.
        time_limit: seconds of wall-clock time that one item may take.
    """
    if not items:
        return
    setup = {
        "function": pickle.dumps(function),
        "time_limit": time_limit,
        "start_seconds": START_SECONDS,
    }
    pool = _Pool(setup, time_limit)
    results: dict[int, Any] = {}
    given = done = 0
    try:
        for _ in range(min(workers, len(items))):
            pool.start()
        while done < len(items):
            while len(pool.workers) < min(workers, len(items) - done):
                pool.start()
            readable = set(wait([worker.pipe for worker in pool.workers]))
            for worker in [w for w in pool.workers if w.pipe in readable]:
                result = pool.receive(worker)
                if worker.item is not None:
                    results[worker.item] = result
                    worker.item = None
                worker.ready = True
            horizon = min(len(items), done + LOOKAHEAD * workers)
            for worker in pool.workers:
                if worker.ready and worker.item is None and given < horizon:
                    pool.give(worker, given, items[given])
                    given += 1
            while done in results:
                yield items[done], results.pop(done)
                done += 1
    finally:
        pool.stop()
