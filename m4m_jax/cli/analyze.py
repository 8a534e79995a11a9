"""`m4m analyze`: chords and beats."""

from __future__ import annotations

from typing import Annotated

import typer

from m4m_jax.cli.app import app, quiet_libraries, warn_off_grid
from m4m_jax.cli.options import AnalysisModel, BasePath, MidiFile, ReferenceBase, bases_of


@app.command()
def analyze(
    file: MidiFile,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="The folder to write to.")
    ] = ".",
    model: AnalysisModel = None,
    base: BasePath = None,
    reference_base: ReferenceBase = None,
) -> None:
    """Find the chords, beats and bars of a song: .lab, .beats, .jams, a MIDI file and a picture."""
    from m4m_jax.analysis.write import analyze_file

    quiet_libraries()
    bases = bases_of(base, reference_base)[::-1]
    for path in analyze_file(file, out, model, bases, warn=warn_off_grid):
        print(path)
