"""`m4m generate`: write a part to a song."""

from __future__ import annotations

from typing import Annotated

import typer

from m4m_jax.cli.app import (
    BasePath,
    MidiFile,
    ReferenceBase,
    app,
    bases_of,
    quiet_libraries,
    warn_off_grid,
)


@app.command()
def generate(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="What the model was trained for: chord-to-melody, melody-to-chord, harmonize, "
            "drums-to-others, others-to-drums, song-to-chord, chord-to-song, analysis, "
            "random-split, density-split, copy or continuation.",
        ),
    ],
    file: MidiFile,
    model: Annotated[
        str, typer.Option(metavar="DIR", help="A model's or a run's directory, or PyTorch weights.")
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE", help="The MIDI file to write.")
    ],
    base: BasePath = None,
    reference_base: ReferenceBase = None,
    reference: Annotated[
        str | None, typer.Option(metavar="PART", help="Part that is read (default: the task's).")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="How many; more than one are numbered OUT_1, OUT_2, ...")
    ] = 1,
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
    prompt: Annotated[int, typer.Option(min=0, help="Steps of the song's own target kept.")] = 0,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Length of the target (default: the song's)."),
    ] = None,
    programs: Annotated[
        str | None,
        typer.Option(metavar="P,...", help="Instruments allowed, such as 0,24 (drums are 127)."),
    ] = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Also draw a piano roll, a PNG.")
    ] = None,
) -> None:
    """Write the target part of a task beside the reference of a song."""
    from m4m_jax.files import check_place
    from m4m_jax.music import get_task, read_midi
    from m4m_jax.music.instruments import parse_programs

    get_task(task)
    for path in (out, plot):
        if path is not None:
            check_place(path)
    allowed = None if programs is None else parse_programs(programs)
    song = read_midi(file)
    warn_off_grid(song, file)
    quiet_libraries()
    from m4m_jax import generation, pretrained

    written = generation.generate(
        pretrained.load(model, bases_of(base, reference_base)[::-1] or None),
        song,
        task,
        name=file,
        reference=reference,
        samples=samples,
        seed=seed,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        prompt_steps=prompt,
        steps=steps,
        programs=allowed,
    )
    for written_to in generation.write_samples(written, out, plot):
        print(written_to)
