"""Two builds side by side: each in a process of its own, which works when it is told to."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, Self

from m4m_jax import runtime
from m4m_jax.errors import M4MError


class Answer(NamedTuple):
    """What a call of a build gave, and how long it took."""

    seconds: float
    result: Any


class Side:
    """A build in a process of its own.

    Its memory is its own, and what it keeps busy after its work ends is nobody else's thread pool.
    """

    def __init__(self, make: type, *args: Any, large_pages: bool = True):
        """make: the build's class, which is made of `args` in the process.

        large_pages: whether the process keeps those that this library's commands run with.
        """
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, make, args), daemon=True)
        with nullcontext() if large_pages else _small_pages():
            self.process.start()
        other.close()
        self.name = make.__name__

    def call(self, method: str, *args: Any) -> Answer:
        """Call a method of the build, and wait for its end.

        Raises:
            M4MError: the process failed; its own words are on stderr.
        """
        try:
            self.pipe.send((method, args))
            return self.pipe.recv()
        except (EOFError, ConnectionError) as error:
            self.process.join()
            raise M4MError(
                f"the process of {self.name} ended with status {self.process.exitcode}; "
                "what it printed says why"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.pipe.close()
        self.process.join(10)
        self.process.kill()


@contextmanager
def _small_pages() -> Iterator[None]:
    """Processes that are started meanwhile manage memory as any program does."""
    ours = os.environ.get(runtime.TUNABLES) == runtime.LARGE_PAGES
    if ours:
        del os.environ[runtime.TUNABLES]
    try:
        yield
    finally:
        if ours:
            os.environ[runtime.TUNABLES] = runtime.LARGE_PAGES


def _serve(pipe: Any, make: type, args: tuple[Any, ...]) -> None:
    try:
        build = make(*args)
        while True:
            method, given = pipe.recv()
            began = time.perf_counter()
            result = getattr(build, method)(*given)
            pipe.send(Answer(time.perf_counter() - began, result))
    except EOFError:  # nothing more to do
        pass
    except Exception:
        traceback.print_exc()
        raise SystemExit(1) from None


def fastest(work: Callable[[], None], times: int = 10) -> float:
    """Seconds that something takes at the least, after a first time."""
    work()
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return min(spent)
