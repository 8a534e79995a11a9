"""The figures of systems beside the truth's, on the console."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import rich.console
import rich.table

from m4m_jax.evaluation.catalogue import METRICS
from m4m_jax.evaluation.judged import Judged, printable
from m4m_jax.evaluation.summary import Summary, fewer, mean_and_deviation

_LISTED = 5
_WIDE, _COLUMN = 60, 36
"""Columns of what is no terminal, and more for each system: nothing is cut there."""
_ARROWS = {"high": "higher is better", "low": "lower is better", "as truth": "as the truth"}


def show(judged: Judged) -> None:
    """Print a table of means and spreads, what was left out, and other remarks."""
    console = rich.console.Console(highlight=False)
    if not console.is_terminal:
        width = _WIDE + _COLUMN * (1 + len(judged.systems))
        console = rich.console.Console(highlight=False, width=width)
    console.print(_table(judged))
    distances = [f"Fréchet Music Distance, {s}: {d:.1f}" for s, d in judged.distances.items()]
    for line in (*judged.notes, *distances, *lacking(judged), *left_out(judged)):
        console.print(printable(line), markup=False, soft_wrap=True)


def _table(judged: Judged) -> rich.table.Table:
    samples = sum(len(found) for song in judged.songs for found in song.systems.values())
    table = rich.table.Table(
        title=f"{judged.task}: {len(judged.songs)} songs, {samples} samples; mean ± deviation over"
        " songs, (median), and `k of n` where only k songs have the figure",
        title_justify="left",
    )
    columns, counts = judged.summaries(), judged.counts()
    table.add_column("figure", overflow="fold")
    for name in columns:
        table.add_column(rich.markup.escape(printable(name)), justify="right", overflow="fold")
    table.add_column("good", overflow="fold")
    table.add_row("songs", *(str(n or "") for n in counts.values()))
    for metric in METRICS.values():
        cells = [cell(found.get(metric.name), counts[name]) for name, found in columns.items()]
        if any(cells):
            table.add_row(metric.title, *cells, _ARROWS[metric.good])
    return table


def cell(found: Summary | None, songs: int) -> str:
    """One figure in short; empty where there is none. songs: how many its column has."""
    if found is None:
        return ""
    return f"{mean_and_deviation(found)} ({found['median']:.3f}) {fewer(found, songs)}".rstrip()


def left_out(judged: Judged) -> list[str]:
    """What was left out in a few lines, by reason."""
    lines, more = _by_reason((item.what, item.reason) for item in judged.left_out)
    lines = [f"left out: {line}" for line in lines]
    return lines + ([f"left out for {more} other reasons: see report.json"] if more else [])


def lacking(judged: Judged) -> list[str]:
    """What songs were judged without in a few lines, by what it is and by reason."""
    found = []
    for what in dict.fromkeys(item.what for item in judged.lacking):
        lines, more = _by_reason((i.song, i.reason) for i in judged.lacking if i.what == what)
        found += [f"{what} for {line}" for line in lines]
        found += [f"{what} for {more} other reasons: see report.json"] if more else []
    return found


def _by_reason(items: Iterable[tuple[str, str]]) -> tuple[list[str], int]:
    """A line for each of the commonest reasons, naming the first; how many other reasons are."""
    items = list(items)
    reasons = Counter(reason for _, reason in items)
    lines = []
    for reason, count in reasons.most_common(_LISTED):
        first = next(name for name, why in items if why == reason)
        lines.append(f"{first if count == 1 else f'{first} and {count - 1} more'}: {reason}")
    return lines, max(len(reasons) - _LISTED, 0)
