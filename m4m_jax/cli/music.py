"""Commands that look into a MIDI file."""

from __future__ import annotations

from typing import Annotated

import typer

from m4m_jax.cli.app import app, printable, warn_off_grid
from m4m_jax.cli.options import MidiFile


@app.command()
def tracks(file: MidiFile) -> None:
    """List a file's parts: selector, name, program, notes, range."""
    from m4m_jax.music import read_midi
    from m4m_jax.music.inspect import describe_tracks

    song = read_midi(file)
    rows = [("part", "name", "program", "notes", "range")]
    for part in describe_tracks(song):
        span = "-" if part.lowest is None else f"{part.lowest}-{part.highest}"
        program = f"{part.program} {part.instrument}"
        rows.append((part.selector, printable(part.name), program, str(part.notes), span))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    print(f"{song.length} steps, {len(song.notes)} notes")
    warn_off_grid(song, file)


@app.command()
def tokenize(
    file: MidiFile,
    reference: Annotated[
        str, typer.Option(metavar="PART", help="Part that is given, such as track-1.")
    ],
    target: Annotated[
        str, typer.Option(metavar="PART", help="Part to be written, such as track-0.")
    ],
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="The .npz to write.")],
    max_notes: Annotated[int, typer.Option(min=1, help="Notes that a step holds, N.")] = 16,
    dedup: Annotated[
        bool, typer.Option("--dedup", help="Make notes of equal program and pitch one.")
    ] = False,
    vocabulary: Annotated[
        str, typer.Option(metavar="NAME", help="plain, or velocity to keep velocities.")
    ] = "plain",
) -> None:
    """Write the tokens and rows of two parts of a MIDI file as .npz.

    A part is all, track-K, upto-K, from-K, notrack-K, drum, nondrum, random-0, random-1, dense,
    sparse, empty, or a track's name.
    """
    from m4m_jax.music.inspect import tokenize_file

    tokenize_file(file, reference, target, max_notes, dedup, vocabulary, out)
    print(out)
