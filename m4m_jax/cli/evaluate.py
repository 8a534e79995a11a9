"""`m4m evaluate`: judge a model, or folders of music."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from m4m_jax.cli.app import BasePath, DataDir, ReferenceBase, app, bases_of, quiet_libraries


@app.command()
def evaluate(
    task: Annotated[str, typer.Argument(metavar="TASK", help="As for m4m generate.")],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="The folder of the report.")
    ],
    model: Annotated[
        str | None, typer.Option(metavar="DIR", help="As for m4m generate: it writes to all songs.")
    ] = None,
    base: BasePath = None,
    reference_base: ReferenceBase = None,
    generated: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="A folder of MIDI files to judge, STEM.mid or STEM_k.mid; repeatable.",
        ),
    ] = None,
    truth: Annotated[
        str | None, typer.Option(metavar="DIR", help="A folder of the songs, STEM.mid.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="NAME", help="A data set of the songs, instead.")
    ] = None,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="Of the data set.")] = "test",
    data_dir: DataDir = None,
    target_part: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="The part of the folders' files that is judged, or NAME=PART for one of them"
            " (default: as in the songs, or what m4m generate wrote).",
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="PART", help="Of the songs (default: the task's).")
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="PART", help="Of the songs (default: the task's).")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Of the model, for each song.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of the random draws.")] = 0,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, help="0 takes the likeliest token (default: the task's)."),
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw from the k likeliest.")] = None,
    top_p: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Draw from the likeliest share (default: the task's)."),
    ] = None,
    prompt: Annotated[
        int, typer.Option(min=0, help="Steps of the song's own target kept; they are not judged.")
    ] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Judge so much of each song (default: all).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Judge the first songs only.")] = None,
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
