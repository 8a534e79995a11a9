"""The files of an analysis."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence

from etils import epath

from m4m_jax.analysis.jams_file import as_jams
from m4m_jax.analysis.picture import draw_analysis
from m4m_jax.analysis.recognise import Analysis, analyze
from m4m_jax.files import atomic_path, check_folder, check_place, made_folder
from m4m_jax.music.labels import write_lab
from m4m_jax.music.notes import NoteTable, read_midi, write_midi

SUFFIXES = (".lab", ".beats", ".jams", ".analysis.mid", ".png")


def write_analysis(analysis: Analysis, folder: epath.PathLike, stem: str) -> list[epath.Path]:
    """Write an analysis in all its forms; either all files appear or none.

    - `STEM.lab`: chords, in Harte's syntax, with starts and ends in seconds.
    - `STEM.beats`: a line for each beat: seconds and number in the bar.
    - `STEM.jams`: both, as JAMS.
    - `STEM.analysis.mid`: beats (track 0) and chords (track 1) as notes, then the song.
    - `STEM.png`: the notes with bar lines and chord names.

    Args:
        analysis: what to write.
        folder: made if it does not exist.
        stem: of the names.

    Returns:
        The paths, in this order.

    Raises:
        M4MError: a file cannot be written.
    """
    with made_folder(folder) as made, contextlib.ExitStack() as stack:
        paths = [made / f"{stem}{suffix}" for suffix in SUFFIXES]
        for path in paths:
            check_place(path)
        lab, beats, jams, midi, png = (stack.enter_context(atomic_path(path)) for path in paths)
        write_lab(analysis.chords, lab)
        beats.write_text(_beat_lines(analysis))
        jams.write_text(json.dumps(as_jams(analysis, stem), indent=1) + "\n")
        write_midi(analysis.as_table(), midi)
        draw_analysis(analysis, png, stem)
    return paths


def analyze_file(
    file: epath.PathLike,
    folder: epath.PathLike,
    model: epath.PathLike | None = None,
    bases: Sequence[epath.PathLike] = (),
    *,
    warn: Callable[[NoteTable, str], None],
) -> list[epath.Path]:
    """Analyse a MIDI file, by a model if one is given, and write what was found; see above.

    bases: the model's own language models, as for `load`. warn: is told of the song before work.

    Raises:
        M4MError: the file or the model cannot be read, or as `analyze` and `write_analysis`.
    """
    name, song = os.fspath(file), read_midi(file)
    check_folder(folder)
    warn(song, name)
    loaded = None
    if model is not None:
        from m4m_jax.pretrained import load  # heavy, and rules need no model

        loaded = load(model, bases or None)
    return write_analysis(analyze(song, loaded, name=name), folder, epath.Path(file).stem)


def _beat_lines(analysis: Analysis) -> str:
    rows = zip(analysis.beat_times.tolist(), analysis.numbers.tolist(), strict=True)
    return "".join(f"{time:.3f}\t{number}\n" for time, number in rows)
