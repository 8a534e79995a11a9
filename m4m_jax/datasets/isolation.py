"""Work on untrusted files, in worker processes that may crash or hang.

A malformed file can end its process below Python, or keep a parser busy for ever. So a task is done
in a worker process, and each attempt at a file is announced: when the process dies or overruns its
time during one, the task is done again by a fresh process, which leaves that file out as failed.
Every other file is unaffected.

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
import tempfile
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from typing import IO, Any, Protocol

from m4m_jax.errors import M4MError

# A worker that is not ready by then is a defect of the installation, not of a file.
START_SECONDS = 120.0
# What a worker may take up. A file that needs more is rejected, and the machine survives it.
MEMORY_BYTES = 7 * 2**28
# How often a worker may be killed from outside, or die outside of attempts, at one and the same
# place before that place is at fault.
CHANCES = 3


@dataclass(frozen=True)
class Failure:
    """Why a file gave no result: a short `reason` to group by, and the `detail` for a reader."""

    reason: str
    detail: str


class Attempt(Protocol):
    """Calls a function on one file of a task, within the time limit."""

    def __call__(self, step: int, function: Callable[..., Any], /, *arguments: Any) -> Any:
        """Return what the function returns, or the `Failure` of the file.

        Args:
            step: the file's number within the task, at least 0.
            function: it may raise anything, crash or hang; its writing must not matter.
            *arguments: of the function.
        """


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    mark: IO[bytes]
    ready: bool = False
    task: int | None = None


@dataclass
class Workers:
    """Processes that call a function; a context, at the end of which they are gone.

    Attributes:
        function: called as `function(task, attempt)`, with an `Attempt`. Importable by name, or an
            instance of such a class; it, tasks and results must pickle. What it raises ends the
            run, and a task may be done more than once.
        count: how many processes to run at once, at least 1. They start when there is work.
        time_limit: seconds of wall-clock time that one attempt may take.
    """

    function: Callable[[Any, Attempt], Any]
    count: int
    time_limit: float = 60.0
    _running: list[_Worker] = field(default_factory=list, init=False, repr=False)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield (number of the task, what the function returned), as tasks are done.

        Raises:
            M4MError: workers died at one and the same place outside of attempts.
            RuntimeError: workers cannot start.
        """
        waiting = deque(range(len(tasks)))
        faults: defaultdict[int, dict[int, Failure]] = defaultdict(dict)
        deaths: Counter[tuple[int, int]] = Counter()
        left = len(tasks)
        while left:
            self._employ(min(self.count, left))
            for worker in self._running:
                if worker.ready and worker.task is None and waiting:
                    worker.task = waiting.popleft()
                    self._send(worker, (tasks[worker.task], faults[worker.task]))
            for worker in self._speaking():
                task = worker.task
                try:
                    message = worker.pipe.recv()
                except (EOFError, ConnectionResetError, pickle.UnpicklingError):
                    status, step = self._bury(worker)
                    if task is not None:
                        deaths[task, step] += 1
                        self._blame(status, step, deaths[task, step], faults[task])
                        waiting.appendleft(task)
                    continue
                worker.ready, worker.task = True, None
                if task is None:
                    continue
                done, result = message
                if not done:
                    raise result
                left -= 1
                faults.pop(task)
                yield task, result

    def stop(self) -> None:
        """End all processes, whatever they are doing."""
        for worker in self._running:
            worker.process.kill()
        for worker in self._running:
            worker.process.wait()
            worker.pipe.close()
            worker.mark.close()
        self._running.clear()

    def _employ(self, count: int) -> None:
        while len(self._running) < count:
            self._start()

    def _start(self) -> None:
        ours, theirs = Pipe()
        # Where the worker writes down what it attempts: it may have no time to say so.
        mark = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (it lives as long as the worker)
        with theirs:
            environment = dict(
                os.environ,
                PYTHONPATH=os.pathsep.join(path for path in sys.path if path),
                OMP_NUM_THREADS="1",
                OPENBLAS_NUM_THREADS="1",
            )
            descriptors = [theirs.fileno(), mark.fileno()]
            arguments = map(str, [*descriptors, os.getpid()])
            process = subprocess.Popen(
                [sys.executable, "-m", "m4m_jax.datasets.worker", *arguments],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                # Ctrl-C reaches the builder alone, which ends its workers.
                process_group=0,
            )
        worker = _Worker(process, ours, mark)
        self._running.append(worker)
        setup = {
            "function": pickle.dumps(self.function),
            "time_limit": self.time_limit,
            "start_seconds": START_SECONDS,
            "memory_bytes": MEMORY_BYTES,
        }
        self._send(worker, setup)

    @staticmethod
    def _send(worker: _Worker, value: Any) -> None:
        # A worker that has just died is noticed, with its exit status, when its pipe is read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            worker.pipe.send(value)

    def _speaking(self) -> list[_Worker]:
        readable = set(wait([worker.pipe for worker in self._running]))
        return [worker for worker in self._running if worker.pipe in readable]

    def _bury(self, worker: _Worker) -> tuple[int, int]:
        """Return a dead worker's exit status, and the step that it was at (-1: none)."""
        worker.pipe.close()
        # Its pipe closes a moment before it is gone; killed right away, it would lose its status.
        try:
            status = worker.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            status = worker.process.wait()
        self._running.remove(worker)
        with worker.mark:
            step = read_mark(worker.mark.fileno())
        if not worker.ready:
            raise RuntimeError(f"a data worker did not start (exit status {status})")
        return status, step

    def _blame(self, status: int, step: int, times: int, faults: dict[int, Failure]) -> None:
        """Enter the failure of the step that a worker died at, if it was to blame."""
        if step < 0:
            if times == CHANCES:
                raise M4MError(
                    f"data workers {_end(status)} {times} times while they wrote records; is"
                    " there memory enough for so many (--workers)?"
                )
        elif status == -signal.SIGALRM:
            faults[step] = Failure("timed out", f"not done after {self.time_limit:g} s")
        elif status != -signal.SIGKILL or times == CHANCES:
            faults[step] = Failure("crashed the parser", _end(status))


def _end(status: int) -> str:
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"


def write_mark(descriptor: int, step: int) -> None:
    """Note the step that is being attempted, or -1."""
    os.pwrite(descriptor, step.to_bytes(8, "little", signed=True), 0)


def read_mark(descriptor: int) -> int:
    """Return the step that was being attempted, or -1."""
    mark = os.pread(descriptor, 8, 0)
    return int.from_bytes(mark, "little", signed=True) if mark else -1
