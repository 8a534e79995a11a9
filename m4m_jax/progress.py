"""Progress of long work on the console."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

import rich.console
import rich.progress


class Report(Protocol):
    """Is told how far work is."""

    def __call__(self, done: int, total: int, /, stage: str = "") -> None:
        """So much is done, of how much, in a stage of the work where that has several."""


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Report]:
    """A bar for work that reports how far it is; without a terminal, a line a tenth."""
    columns = (*rich.progress.Progress.get_default_columns(), rich.progress.MofNCompleteColumn())
    console = rich.console.Console()
    with rich.progress.Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task, shown = bar.add_task(title, total=None), ("", -1)

        def report(done: int, total: int, /, stage: str = "") -> None:
            nonlocal shown
            told = f"{title}: {stage}" if stage else title
            bar.update(task, completed=done, total=total, description=told)
            now = (stage, 10 * done // max(total, 1))
            if not console.is_terminal and now != shown:
                shown = now
                print(f"{told} {done}/{total}", flush=True)

        yield report
