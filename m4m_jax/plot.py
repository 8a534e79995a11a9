"""Piano rolls."""

from __future__ import annotations

from collections.abc import Mapping

from etils import epath

from m4m_jax.files import atomic_path
from m4m_jax.music.grid import STEPS_PER_QUARTER
from m4m_jax.music.notes import NoteTable

COLOURS = ("#4878cf", "#e1812c", "#3a923a", "#8c613c")


def piano_roll(parts: Mapping[str, NoteTable], path: epath.PathLike, title: str = "") -> None:
    """Draw tables above each other's time axis, a colour each, named in a legend, as PNG."""
    from matplotlib.figure import Figure  # heavy, and few commands draw

    steps = max(table.length for table in parts.values())
    figure = Figure(figsize=(min(max(steps / 16, 8), 40), 4), layout="constrained")
    axes = figure.add_subplot()
    for colour, (name, table) in zip(COLOURS, parts.items(), strict=False):
        step, duration, pitch = table.notes[:, :3].T
        axes.barh(
            pitch,
            duration.clip(0.5) - 0.15,
            left=step,
            height=0.8,
            color=colour,
            label=name,
        )
    axes.set_xlim(0, steps)
    axes.set_xticks(range(0, steps + 1, 4 * STEPS_PER_QUARTER))
    axes.set_xticklabels([str(k + 1) for k in range(len(axes.get_xticks()))])
    axes.set(xlabel="whole notes", ylabel="MIDI pitch", title=title)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper right", ncols=len(parts))
    with atomic_path(path) as temporary:
        figure.savefig(str(temporary), dpi=110, format="png")
