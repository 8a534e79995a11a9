"""The command line, `m4m`: parse, call, print.

Heavy imports wait until a command needs them, so that help and music commands start at once.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import rich.console
import rich.table
import typer

from m4m_jax.errors import M4MError

app = typer.Typer(
    help="Music-for-music models: train, generate, inspect.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Build data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

DataDir = Annotated[
    str | None, typer.Option(help="Where data sets live (default: TFDS's own folder).")
]


@app.command()
def tracks(file: Annotated[str, typer.Argument(help="A MIDI file.")]) -> None:
    """List a file's parts: selector, name, program, notes, range."""
    from m4m_jax.music import read_midi
    from m4m_jax.music.inspect import describe_tracks, off_grid_warning

    song = read_midi(file)
    table = rich.table.Table("part", "name", "program", "notes", "range", box=None)
    for part in describe_tracks(song):
        program = f"{part.program} {part.instrument}"
        span = f"{part.lowest}-{part.highest}"
        table.add_row(part.selector, part.name, program, str(part.notes), span)
    console = rich.console.Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(f"{song.length} steps, {len(song.notes)} notes")
    if warning := off_grid_warning(song):
        print(f"warning: {file}: {warning}", file=sys.stderr)


@app.command()
def tokenize(
    file: Annotated[str, typer.Argument(help="A MIDI file.")],
    reference: Annotated[str, typer.Option(help="Part that is given, such as track-1.")],
    target: Annotated[str, typer.Option(help="Part to be written, such as track-0.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The .npz file to write.")],
    max_notes: Annotated[int, typer.Option(help="Notes that a step holds, N.")] = 16,
    dedup: Annotated[bool, typer.Option(help="Make notes of equal program and pitch one.")] = False,
    vocabulary: Annotated[str, typer.Option(help="plain or velocity.")] = "plain",
) -> None:
    """Write the tokens and rows of two parts of a MIDI file as .npz."""
    from m4m_jax.music.inspect import tokenize_file

    tokenize_file(file, reference, target, max_notes, dedup, vocabulary, out)
    print(out)


@data_app.command("build")
def data_build(
    name: Annotated[str, typer.Argument(help="bach_chorales, nottingham or midi_folder.")],
    source: Annotated[str | None, typer.Option(help="Folder with the songs.")] = None,
    data_dir: DataDir = None,
    config: Annotated[
        str | None, typer.Option("--name", help="A name of your own for a midi_folder.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read files.")] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds that reading a file may take.")] = 60.0,
) -> None:
    """Build a data set; what could not be used is listed with its reason."""
    from m4m_jax import datasets

    full = name if config is None else f"{name}/{config}"
    with _progress("reading songs") as progress:
        report = datasets.build(
            full, source, data_dir, workers=workers, time_limit=time_limit, progress=progress
        )
    print(report.summary())
    print(datasets.info(full, data_dir).directory)


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A configuration, such as configs/*.yaml.")],
    changes: Annotated[
        list[str] | None,
        typer.Argument(help="preset=NAME, key=value, ...", metavar="[KEY=VALUE]..."),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="The run's directory (default: runs/...).")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Train a language model or an adapter; goes on by itself where a run stopped."""
    from m4m_jax.config import load_config, run_name
    from m4m_jax.training.run import run

    settings = load_config(config, changes or ())
    path = out or f"runs/{run_name(config, changes or ())}"
    result = run(settings, path, data_dir)
    print(f"validation NLL {result.before:.4f} -> {result.best:.4f} nats a token")
    print(result.path)


@app.command()
def generate(
    task: Annotated[str, typer.Argument(help="A task, such as chord-to-melody.")],
    file: Annotated[str, typer.Argument(help="A MIDI file.")],
    model: Annotated[str, typer.Option(help="A model's or a run's directory.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The MIDI file to write.")],
    base: Annotated[
        str | None, typer.Option(help="The adapter's language model (default: as it names).")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Part that is read (default: the task's).")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="How many; more than one are numbered OUT_1, OUT_2, ...")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of the random draws.")] = 0,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw from the k likeliest.")] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Draw from the likeliest share.")
    ] = None,
    prompt: Annotated[int, typer.Option(min=0, help="Steps of the song's own target kept.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Length of the target (default: the song's).")
    ] = None,
    programs: Annotated[
        str | None, typer.Option(help="Instruments allowed, such as 0,24 (drums are 127).")
    ] = None,
    plot: Annotated[str | None, typer.Option(help="Also draw a piano roll, a PNG.")] = None,
) -> None:
    """Write the target part of a task beside the reference of a song."""
    from m4m_jax import generation, pretrained
    from m4m_jax.music import read_midi

    song = read_midi(file)
    written = generation.generate(
        pretrained.load(model, base),
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
        programs=None if programs is None else generation.parse_programs(programs),
    )
    for path in generation.write_samples(written, out, plot):
        print(path)


@app.command()
def quickstart(
    out: Annotated[str, typer.Option("--out", "-o", help="Where to write.")] = "quickstart",
) -> None:
    """The whole road in minutes: Bach chorales, a language model, an adapter, a harmonisation."""
    from m4m_jax.quickstart import quickstart

    quickstart(out)


def _progress(title: str):
    from m4m_jax.progress import progress_bar

    return progress_bar(title)


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and status 2."""
    # The libraries' own warnings speak of their internals.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        app()
    except M4MError as error:
        print(f"m4m: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
