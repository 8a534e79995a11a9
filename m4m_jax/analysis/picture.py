"""A song's notes with its bars, beats and chords, as a PNG."""

from __future__ import annotations

import numpy as np
from etils import epath

from m4m_jax.analysis.recognise import Analysis
from m4m_jax.files import atomic_path
from m4m_jax.music.labels import steps_at
from m4m_jax.music.notes import DRUM_PROGRAM, DURATION, PITCH, PROGRAM, STEP
from m4m_jax.plot import COLOURS, draw_notes

_BARS, _ROWS = 12, 40  # in a row, if so many rows are enough
_ROW_WIDTH, _ROW_HEIGHT, _MARGIN = 18, 2, 0.4  # inches


def draw_analysis(analysis: Analysis, path: epath.PathLike, title: str = "") -> None:
    """Draw rows of twelve bars: notes, bar lines with the bars' numbers, beats, chord names."""
    from matplotlib.figure import Figure  # heavy, and few commands draw

    length = analysis.song.length
    bars = np.append(np.unique(np.append(0, analysis.beats[analysis.numbers == 1])), length)
    in_row = max(_BARS, -(-(len(bars) - 1) // _ROWS))
    rows = [bars[k : k + in_row + 1] for k in range(0, len(bars) - 1, in_row)]
    width = max(int(row[-1] - row[0]) for row in rows)
    pitched = analysis.song.notes[analysis.song.notes[:, PROGRAM] != DRUM_PROGRAM]
    height = _ROW_HEIGHT * len(rows) + 2 * _MARGIN
    figure = Figure(figsize=(_ROW_WIDTH, height))
    figure.subplots_adjust(0.04, _MARGIN / height, 0.99, 1 - 1.5 * _MARGIN / height, hspace=0.4)
    # A name may hold dollars, which would begin a formula.
    figure.suptitle(title, y=1 - 0.5 * _MARGIN / height, parse_math=False)
    starts = steps_at(analysis.song, np.array([label.start for label in analysis.chords]))
    for index, (axes, row) in enumerate(
        zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows, strict=True)
    ):
        begun = pitched[:, STEP] + pitched[:, DURATION] > row[0]
        draw_notes(axes, pitched[begun & (pitched[:, STEP] < row[-1])], COLOURS[0], "notes")
        tall = axes.get_xaxis_transform()  # steps across, 0 to 1 from the row's bottom to its top
        beats = analysis.beats[(analysis.beats >= row[0]) & (analysis.beats < row[-1])]
        axes.vlines(beats, 0, 1, "0.9", lw=0.6, zorder=0, transform=tall)
        axes.vlines(row, 0, 1, "0.4", lw=1, zorder=0, transform=tall)
        axes.set_xticks(row[:-1], [str(index * in_row + k + 1) for k in range(len(row) - 1)])
        axes.set(xlim=(row[0], row[0] + width), ylabel="MIDI pitch")
        axes.set_ylim(pitched[:, PITCH].min() - 2, pitched[:, PITCH].max() + 2)
        for start, label in zip(starts.round(3).tolist(), analysis.chords, strict=True):
            if row[0] <= start < row[-1]:
                axes.text(start, 1.02, label.text, transform=tall, color=COLOURS[1])
    with atomic_path(path) as temporary:
        figure.savefig(str(temporary), dpi=90, format="png")
