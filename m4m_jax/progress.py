"""Progress of long work on the console."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import rich.console
import rich.progress


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for work that reports (done, of how many); without a terminal, a line a tenth."""
    columns = (*rich.progress.Progress.get_default_columns(), rich.progress.MofNCompleteColumn())
    console = rich.console.Console()
    with rich.progress.Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task, shown = bar.add_task(title, total=None), -1

        def report(done: int, total: int) -> None:
            nonlocal shown
            bar.update(task, completed=done, total=total)
            tenth = 10 * done // max(total, 1)
            if not console.is_terminal and tenth > shown:
                shown = tenth
                print(f"{title} {done}/{total}", flush=True)

        yield report
