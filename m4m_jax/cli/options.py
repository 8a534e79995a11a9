"""Arguments and options that several commands have, or that would hide what a command does."""

from __future__ import annotations

from typing import Annotated

import typer

MidiFile = Annotated[str, typer.Argument(metavar="FILE", help="A MIDI file.")]
ModelDir = Annotated[
    str,
    typer.Argument(metavar="DIR", help="A model's or a run's directory; RUN/STEP is one step's."),
]
ConfigFile = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A YAML file, such as those in configs/.")
]
DataDir = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Where data sets live (default: TFDS's own folder)."),
]
JsonFile = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Also write the figures as JSON.")
]
MaxNotes = Annotated[
    int | None, typer.Option(min=1, max=32, help="Notes that a step holds (default: the task's).")
]

BasePath = Annotated[
    str | None,
    typer.Option(metavar="BASE", help="An adapter's language model: a directory or such a file."),
]
ReferenceBase = Annotated[
    str | None,
    typer.Option(metavar="BASE", help="The one that reads references, where that is another."),
]

AnalysisModel = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="A model of the task analysis (default: rules, no model)."),
]

Seed = Annotated[int, typer.Option(min=0, help="Of the random draws.")]
Temperature = Annotated[
    float | None, typer.Option(min=0, help="0 takes the likeliest token (default: the task's).")
]
TopK = Annotated[int | None, typer.Option(min=1, help="Draw from the k likeliest.")]
TopP = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Draw from the likeliest share (default: the task's)."),
]


def bases_of(base: str | None, reference_base: str | None) -> list[str]:
    """An adapter's language models, of the target first."""
    return [path for path in (base, reference_base) if path is not None]
