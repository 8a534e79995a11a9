"""Figures of all songs as dots on a line, drawn as SVG."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np

_WIDTH, _LEFT, _RIGHT, _ROW = 320, 96, 12, 20
_LABEL = 14  # characters of a system's name


def strip_plot(title: str, rows: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> str:
    """Draw a row of dots for each name, over one axis, with a bar at each row's mean.

    rows: name -> the values of songs, at least one in all.
    """
    values = np.concatenate([np.asarray(row, float) for row in rows.values()])
    low, high = values.min(), values.max()
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
    height = 26 + _ROW * len(rows) + 18

    def place(value: float) -> float:
        share = (value - low) / (high - low)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    parts = [f'<text x="0" y="14" font-weight="600">{html.escape(title)}</text>']
    for number, (name, row) in enumerate(rows.items()):
        y = 26 + _ROW * number + _ROW / 2
        label = name if len(name) <= _LABEL else f"{name[: _LABEL - 1]}…"
        parts.append(f'<text x="0" y="{y + 4}">{html.escape(label)}</text>')
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="#e4e4e4"/>'
        )
        colour = colours[name]
        parts += [
            f'<circle cx="{place(v)}" cy="{y}" r="3" fill="{colour}" fill-opacity=".45"/>'
            for v in row
        ]
        if len(row):
            x = place(float(np.mean(row)))
            parts.append(f'<rect x="{x - 1}" y="{y - 7}" width="2" height="14" fill="#222"/>')
    for value, x, anchor in ((low, _LEFT, "start"), (high, _WIDTH - _RIGHT, "end")):
        text = f"{value:.3g}"
        parts.append(f'<text x="{x}" y="{height - 4}" text-anchor="{anchor}">{text}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{"".join(parts)}</svg>'
