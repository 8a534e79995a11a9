"""Piano rolls."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from etils import epath

from m4m_jax.files import atomic_path
from m4m_jax.music.grid import STEPS_PER_QUARTER
from m4m_jax.music.notes import NoteTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#4878cf", "#e1812c", "#3a923a", "#8c613c")


def piano_roll(parts: Mapping[str, NoteTable], path: epath.PathLike, title: str = "") -> None:
    """Draw the notes of tables over one time axis, each in a colour, as a PNG.

    Args:
        parts: what the legend calls each table, and the table; at least one.
        path: the file to write, whole or not at all.
        title: above the picture.

    Raises:
        M4MError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # heavy, and few commands draw

    steps = max(table.length for table in parts.values())
    figure = Figure(figsize=(min(max(steps / 16, 8), 40), 4), layout="constrained")
    axes = figure.add_subplot()
    for colour, (name, table) in zip(cycle(COLOURS), parts.items(), strict=False):
        draw_notes(axes, table.notes, colour, name)
    axes.set_xlim(0, steps)
    axes.set_xticks(range(0, steps + 1, 4 * STEPS_PER_QUARTER))
    axes.set_xticklabels([str(k + 1) for k in range(len(axes.get_xticks()))])
    axes.set(xlabel="whole notes", ylabel="MIDI pitch", title=title)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper right", ncols=len(parts))
    with atomic_path(path) as temporary:
        figure.savefig(str(temporary), dpi=110, format="png")


def draw_notes(axes: Axes, notes: np.ndarray, colour: str, name: str) -> None:
    """Draw notes int32 [n, 6] as boxes over steps and pitches, `name` in the legend."""
    from matplotlib.collections import PolyCollection

    step, duration, pitch = notes[:, :3].T
    end = step + duration.clip(0.5) - 0.15
    # [n, 4, 2]: corners, as step and pitch
    corners = np.stack(
        [
            np.stack([step, end, end, step], axis=1),
            np.stack([pitch - 0.4, pitch - 0.4, pitch + 0.4, pitch + 0.4], axis=1),
        ],
        axis=2,
    )
    axes.add_collection(PolyCollection(list(corners), facecolors=colour, linewidths=0, label=name))
    axes.autoscale_view()
