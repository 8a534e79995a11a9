"""`m4m bench`: measure."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from m4m_jax.cli.app import app
from m4m_jax.cli.options import AnalysisModel, BasePath, JsonFile, ReferenceBase, bases_of
from m4m_jax.errors import lacking

bench_app = typer.Typer(
    help="Measure how fast it is, and how well it analyses.", rich_markup_mode=None
)
app.add_typer(bench_app, name="bench")


@bench_app.callback()
def _start_bench() -> None:
    """Measure how fast it is, and how well it analyses."""


BenchMusic = Annotated[
    str | None,
    typer.Option("--data", metavar="DIR", help="Folder of MIDI files (default: songs made up)."),
]
BenchRounds = Annotated[
    int, typer.Option("--rounds", min=1, metavar="N", help="Times that each of the two is timed.")
]


@bench_app.command("train")
def bench_train(
    work: Annotated[
        str | None,
        typer.Option(
            "--work",
            metavar="NAME",
            help="chord-to-melody or others-to-drums, or either with -masked, on the masked encoder"
            " (default: all four).",
        ),
    ] = None,
    data: BenchMusic = None,
    rounds: BenchRounds = 3,
    json_file: JsonFile = None,
) -> None:
    """Time training steps beside the PyTorch build (needs the extra convert)."""
    _bench("train", json_file, work=work, folder=data, rounds=rounds)


@bench_app.command("sample")
def bench_sample(
    work: Annotated[
        str | None,
        typer.Option(
            "--work",
            metavar="NAME",
            help="drums-to-others, the only one.",
        ),
    ] = None,
    data: BenchMusic = None,
    rounds: BenchRounds = 3,
    json_file: JsonFile = None,
) -> None:
    """Time sampling beside the PyTorch build (needs the extra convert)."""
    _bench("sample", json_file, work=work, folder=data, rounds=rounds)


@bench_app.command("data")
def bench_data(
    work: Annotated[
        str | None,
        typer.Option(
            "--work",
            metavar="NAME",
            help="build, others-to-drums or continuation (default: all three).",
        ),
    ] = None,
    data: BenchMusic = None,
    json_file: JsonFile = None,
) -> None:
    """Measure how fast songs are read and windows are packed."""
    _bench("data", json_file, work=work, folder=data)


@bench_app.command("analysis")
def bench_analysis(
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Folder of annotated MIDI files: with .lab files, or chord tracks.",
        ),
    ],
    work: Annotated[
        str | None,
        typer.Option(
            "--work", metavar="NAME", help="meters-given or meters-found (default: both)."
        ),
    ] = None,
    model: AnalysisModel = None,
    base: BasePath = None,
    reference_base: ReferenceBase = None,
    json_file: JsonFile = None,
) -> None:
    """Measure how well m4m analyze finds chords and beats of annotated songs."""
    bases = bases_of(base, reference_base)[::-1]
    _bench("analysis", json_file, work=work, folder=data, model=model, bases=bases)


def _bench(kind: str, json_file: str | None, **given: Any) -> None:
    """Measure, and print and write what was found."""
    import importlib
    import json

    from m4m_jax.files import atomic_path, check_place

    if json_file is not None:
        check_place(json_file)
    try:
        bench = importlib.import_module(f"m4m_jax.bench.{kind}")
    except ModuleNotFoundError as error:
        raise lacking(f"m4m bench {kind} needs {error.name}", "convert") from error
    rows = bench.measure(**given)
    if json_file is not None:
        with atomic_path(json_file) as temporary:
            temporary.write_text(json.dumps(rows, indent=1) + "\n")
