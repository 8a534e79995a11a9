"""`m4m evaluate`: judge a model, or folders of music."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from m4m_jax.cli.app import app, quiet_libraries
from m4m_jax.cli.options import (
    BasePath,
    DataDir,
    ReferenceBase,
    Seed,
    Temperature,
    TopK,
    TopP,
    bases_of,
)

TaskName = Annotated[str, typer.Argument(metavar="TASK", help="As for m4m generate.")]
ReportDir = Annotated[
    str, typer.Option("--out", "-o", metavar="DIR", help="The folder of the report.")
]
Writer = Annotated[
    str | None, typer.Option(metavar="DIR", help="As for m4m generate: it writes to all songs.")
]
Generated = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=DIR",
        help="A folder of MIDI files to judge, STEM.mid or STEM_k.mid; repeatable.",
    ),
]
Truth = Annotated[str | None, typer.Option(metavar="DIR", help="A folder of the songs, STEM.mid.")]
Data = Annotated[str | None, typer.Option(metavar="NAME", help="A data set of the songs, instead.")]
Split = Annotated[str, typer.Option(metavar="SPLIT", help="Of the data set.")]
SongPart = Annotated[
    str | None, typer.Option(metavar="PART", help="Of the songs (default: the task's).")
]
TargetPart = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PART",
        help="The part of the folders' files that is judged, or NAME=PART for one of them"
        " (default: as in the songs, or what m4m generate wrote).",
    ),
]
Samples = Annotated[int, typer.Option(min=1, help="Of the model, for each song.")]
Prompt = Annotated[
    int, typer.Option(min=0, help="Steps of the song's own target kept; they are not judged.")
]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Judge so much of each song (default: all).")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Judge the first songs only.")]


@app.command()
def evaluate(
    task: TaskName,
    out: ReportDir,
    model: Writer = None,
    base: BasePath = None,
    reference_base: ReferenceBase = None,
    generated: Generated = None,
    truth: Truth = None,
    data: Data = None,
    split: Split = "test",
    data_dir: DataDir = None,
    target_part: TargetPart = None,
    reference: SongPart = None,
    target: SongPart = None,
    samples: Samples = 8,
    seed: Seed = 0,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    prompt: Prompt = 0,
    steps: Steps = None,
    limit: Limit = None,
) -> None:
    """Judge what a model, or any other system, writes to songs; goes on where it stopped."""
    from m4m_jax.evaluation import command, table
    from m4m_jax.evaluation.draws import Draws
    from m4m_jax.music import get_task

    get_task(task)
    quiet_libraries()
    judged = command.evaluate(
        task,
        out,
        command.source(truth, data, split, data_dir),
        generated or (),
        model=model,
        base=bases_of(base, reference_base)[::-1],
        target_part=target_part or (),
        reference=reference,
        target=target,
        draws=Draws(samples, seed, temperature, top_k, top_p, prompt),
        steps=steps,
        limit=limit,
    )
    table.show(judged)
    for name in (command.REPORT, command.PAGE):
        print(os.path.join(out, name))
