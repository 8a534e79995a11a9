"""`m4m generate`: write a part to a song."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from m4m_jax.cli.app import app, quiet_libraries, warn_off_grid
from m4m_jax.cli.options import (
    BasePath,
    MidiFile,
    ReferenceBase,
    Seed,
    Temperature,
    TopK,
    TopP,
    bases_of,
)

TaskName = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="What the model was trained for: chord-to-melody, melody-to-chord, harmonize, "
        "drums-to-others, others-to-drums, song-to-chord, chord-to-song, analysis, "
        "random-split, density-split, copy or continuation.",
    ),
]
Writer = Annotated[
    str,
    typer.Option(
        metavar="DIR",
        help="A model's or a run's directory (RUN/STEP: one step's), or PyTorch weights.",
    ),
]
OutFile = Annotated[
    str, typer.Option("--out", "-o", metavar="FILE", help="The MIDI file to write.")
]
Reference = Annotated[
    str | None, typer.Option(metavar="PART", help="Part that is read (default: the task's).")
]
Samples = Annotated[
    int, typer.Option(min=1, help="How many; more than one are numbered OUT_1, OUT_2, ...")
]
Prompt = Annotated[int, typer.Option(min=0, help="Steps of the song's own target kept.")]
Steps = Annotated[
    int | None,
    typer.Option(min=1, max=100_000, help="Length of the target (default: the song's)."),
]
Programs = Annotated[
    str | None,
    typer.Option(metavar="P,...", help="Instruments allowed, such as 0,24 (drums are 127)."),
]
Plot = Annotated[str | None, typer.Option(metavar="FILE", help="Also draw a piano roll, a PNG.")]


@app.command()
def generate(
    task: TaskName,
    file: MidiFile,
    model: Writer,
    out: OutFile,
    base: BasePath = None,
    reference_base: ReferenceBase = None,
    reference: Reference = None,
    samples: Samples = 1,
    seed: Seed = 0,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    prompt: Prompt = 0,
    steps: Steps = None,
    programs: Programs = None,
    plot: Plot = None,
) -> None:
    """Write the target part of a task beside the reference of a song."""
    from m4m_jax.files import check_place
    from m4m_jax.music import get_task, read_midi
    from m4m_jax.music.instruments import parse_programs
    from m4m_jax.music.notes import STEP

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
    paths = generation.write_samples(written, out, plot)
    for path in paths:
        print(path)
    for path, (_, target) in zip(paths, written, strict=False):
        if not (target.notes[:, STEP] >= prompt).any():
            print(
                f"m4m: warning: {path}: no note was written; another --seed, a higher"
                " --temperature or other --programs may write some",
                file=sys.stderr,
            )
