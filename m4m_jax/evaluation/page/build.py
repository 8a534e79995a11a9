"""Filling in the page."""

from __future__ import annotations

import html
import importlib.resources
import json
import string
from typing import Any

import numpy as np

from m4m_jax.evaluation.catalogue import METRICS, Metric
from m4m_jax.evaluation.judged import TRUTH, Judged, JudgedSong, printable
from m4m_jax.evaluation.page.plots import strip_plot
from m4m_jax.evaluation.scoring import Figures
from m4m_jax.evaluation.summary import Summary, fewer, mean_and_deviation
from m4m_jax.music.labels import bar_lines
from m4m_jax.music.notes import DRUM_PROGRAM, DURATION, PITCH, PROGRAM, STEP, VELOCITY, NoteTable

SHOWN = 20
"""Songs whose notes are in the page; more would make it slow to open."""

_TRUTH_COLOUR = "#3a923a"
_COLOURS = ("#4878cf", "#e1812c", "#8c613c", "#956cb4", "#d5518a", "#2b8cbe")
_TEMPO = [[0.0, 120.0]]


def build(judged: Judged) -> str:
    """The page of what was judged, as HTML."""
    files = importlib.resources.files(__package__)
    style, script, page = (
        files.joinpath(f"page.{kind}").read_text() for kind in ("css", "js", "html")
    )
    colours = _colours(judged)
    samples = sum(len(found) for song in judged.songs for found in song.systems.values())
    count = len(judged.songs)
    shown = f"The first {SHOWN} of {count} songs." if count > SHOWN else f"All {count} songs."
    data = [_song(song, colours) for song in judged.songs[:SHOWN]]
    text = string.Template(page).substitute(
        title=html.escape(f"Evaluation: {judged.task}"),
        about=html.escape(f"{count} songs, {samples} samples. {_told(judged)}"),
        legend=_legend(colours),
        table=_table(judged),
        plots="\n".join(_plots(judged, colours)),
        shown=shown,
        left_out=_left_out(judged),
        # A script ends at the first "</", wherever it stands.
        data=json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/"),
        style=style,
        script=script,
    )
    return printable(text)


def _colours(judged: Judged) -> dict[str, str]:
    """A colour each: name -> as CSS has it, the truth first."""
    palette = {name: _COLOURS[k % len(_COLOURS)] for k, name in enumerate(judged.systems)}
    return {TRUTH: _TRUTH_COLOUR, **palette}


def _told(judged: Judged) -> str:
    """The settings in words."""
    settings = {**judged.settings, **(judged.settings.get("draws") or {})}
    hidden = ("draws", "systems", "prompt_steps")  # the last is the prompt
    told = [f"{k} {v}" for k, v in settings.items() if k not in hidden and v is not None]
    return "; ".join(told)


def _legend(colours: dict[str, str]) -> str:
    return "".join(
        f'<span class="key" style="background:{colour}"></span>{html.escape(name)}'
        for name, colour in colours.items()
    )


def _table(judged: Judged) -> str:
    columns, songs = judged.summaries(), judged.counts()
    names = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    rows = [f"<tr><th>figure</th>{names}<th>good</th></tr>"]
    counts = "".join(f"<td>{n or ''}</td>" for n in songs.values())
    rows.append(f"<tr><td>songs</td>{counts}<td></td></tr>")
    for metric in METRICS.values():
        found = [column.get(metric.name) for column in columns.values()]
        if any(found):
            texts = map(_cell, found, songs.values())
            rows.append(_row(metric, "".join(f"<td>{text}</td>" for text in texts)))
    if judged.distances:
        distances = [judged.distances.get(name) for name in columns]
        cells = "".join(f"<td>{'' if d is None else f'{d:.1f}'}</td>" for d in distances)
        rows.append(f"<tr><td>Fréchet Music Distance</td>{cells}<td>low</td></tr>")
    warning = html.escape(judged.uneven() or "")
    return (
        f'<div class="scroll"><table>{"".join(rows)}</table></div><p>{warning}</p>'
        '<p class="legend">Mean ± standard deviation over songs; median; deviation within the'
        " samples of a song; how many songs have the figure, where not all have it.</p>"
    )


def _row(metric: Metric, cells: str) -> str:
    title = f'<span title="{html.escape(metric.about)}">{html.escape(metric.title)}</span>'
    return f"<tr><td>{title}</td>{cells}<td>{metric.good}</td></tr>"


def _cell(found: Summary | None, songs: int) -> str:
    if found is None:
        return ""
    spread = f"median {found['median']:.3f}"
    if found["within"] is not None:
        spread += f"; within {found['within']:.3f}"
    if less := fewer(found, songs):
        spread += f"; {less} songs"
    return f"{mean_and_deviation(found)}<br><small>{spread}</small>"


def _plots(judged: Judged, colours: dict[str, str]) -> list[str]:
    plots = []
    for metric in METRICS.values():
        rows = {TRUTH: [s.truth[metric.name] for s in judged.songs if metric.name in s.truth]}
        for system in judged.systems:
            rows[system] = [
                float(np.mean(values))
                for song in judged.songs
                if (values := _values(song, system, metric.name))
            ]
        rows = {name: values for name, values in rows.items() if values}
        if rows:
            plots.append(strip_plot(metric.title, rows, colours))
    return plots


def _values(song: JudgedSong, system: str, name: str) -> list[float]:
    samples = song.systems.get(system, [])
    return [sample.figures[name] for sample in samples if name in sample.figures]


def _left_out(judged: Judged) -> str:
    items = [f"{item.what}: {item.reason}" for item in judged.left_out]
    items += [f"{item.what} for {item.song}: {item.reason}" for item in judged.lacking]
    items += judged.notes
    if not items:
        return "<p>Nothing.</p>"
    return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>"


def _song(song: JudgedSong, colours: dict[str, str]) -> dict[str, Any]:
    """A song's notes and figures, as the script takes them."""
    parts = []
    if song.parts.truth is not None:
        parts.append(_part(TRUTH, colours[TRUTH], song.parts.truth, song.truth))
    for system, samples in song.systems.items():
        for number, sample in enumerate(samples, 1):
            label = f"{system} {number}"
            part = _part(label, colours[system], sample.part, sample.figures)
            if song.parts == (None, None) or sample.reference is not None:
                part["song"] = _beside(sample.reference, sample.part)
            parts.append(part)
    tables = [song.parts.truth, song.parts.reference]
    tables += [sample.part for samples in song.systems.values() for sample in samples]
    clock = next(table for table in tables if table is not None)
    return {
        "name": song.name,
        "steps": max(table.length for table in tables if table is not None),
        **_beside(song.parts.reference, clock),
        "parts": parts,
    }


def _beside(reference: NoteTable | None, clock: NoteTable) -> dict[str, Any]:
    """What parts are shown beside: bars, tempos and the reference's notes."""
    tempos = clock.tempos.tolist()
    return {
        "bars": bar_lines(clock).tolist(),
        "tempos": tempos if tempos and tempos[0][0] == 0 else _TEMPO + tempos,
        "reference": [] if reference is None else _notes(reference),
    }


def _part(label: str, colour: str, table: NoteTable, figures: Figures) -> dict[str, Any]:
    told = [
        f"{metric.title} {figures[name]:.2f}"
        for name, metric in METRICS.items()
        if name in figures and metric.good != "as truth"
    ]
    return {
        "label": label,
        "colour": colour,
        "figures": ", ".join(told),
        "notes": _notes(table),
    }


def _notes(table: NoteTable) -> list[list[int]]:
    notes = table.notes[:, [STEP, DURATION, PITCH, VELOCITY, PROGRAM]].copy()
    notes[:, -1] = notes[:, -1] == DRUM_PROGRAM
    return notes.tolist()
