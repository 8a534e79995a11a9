"""`m4m convert`: weights from and to PyTorch."""

from __future__ import annotations

from typing import Annotated

import typer

from m4m_jax.cli.app import app, quiet_libraries
from m4m_jax.cli.options import BasePath, MaxNotes, ModelDir, ReferenceBase, bases_of

convert_app = typer.Typer(help="Convert weights from and to PyTorch.", rich_markup_mode=None)
app.add_typer(convert_app, name="convert")
Weights = Annotated[
    str,
    typer.Argument(metavar="FILE", help="A .ckpt or .safetensors file, or a PEFT folder."),
]
TaskName = Annotated[
    str | None,
    typer.Option(metavar="TASK", help="What it was trained for (default: as the file tells)."),
]


@convert_app.callback()
def _start_convert() -> None:
    """Convert weights from and to PyTorch."""


@convert_app.command("to-flax")
def convert_to_flax(
    file: Weights,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="The model directory to write.")
    ],
    base: BasePath = None,
    reference_base: ReferenceBase = None,
    task: TaskName = None,
    max_notes: MaxNotes = None,
) -> None:
    """Make a model directory of PyTorch weights, recognised by their contents."""
    quiet_libraries()
    from m4m_jax.convert import commands
    from m4m_jax.convert.inspect import headline

    bases = bases_of(base, reference_base)
    card = commands.to_flax(file, out, bases, task=task, max_notes=max_notes)
    print(headline(card))
    print(out)


@convert_app.command("to-torch")
def convert_to_torch(
    model: ModelDir,
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="The .ckpt to write.")],
) -> None:
    """Write a model as a checkpoint that the PyTorch implementation loads."""
    quiet_libraries()
    from m4m_jax.convert import commands

    commands.to_torch(model, out)
    print(out)


@convert_app.command("to-safetensors")
def convert_to_safetensors(
    model: ModelDir,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE", help="The .safetensors to write.")
    ],
) -> None:
    """Write a model, or an adapter alone, as one safetensors file."""
    quiet_libraries()
    from m4m_jax.convert import commands

    commands.to_safetensors(model, out)
    print(out)


@convert_app.command("to-peft")
def convert_to_peft(
    model: ModelDir,
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="The folder to write.")],
) -> None:
    """Write an adapter as a folder whose low-rank updates the peft library loads."""
    quiet_libraries()
    from m4m_jax.convert import commands

    commands.to_peft(model, out)
    print(out)


@convert_app.command("inspect")
def convert_inspect(file: Weights) -> None:
    """Say what weights are: system, sizes, task, parameters, and what maps where."""
    quiet_libraries()
    from m4m_jax.convert.inspect import describe

    print("\n".join(describe(file)))


@convert_app.command("verify")
def convert_verify(
    file: Weights,
    base: BasePath = None,
    reference_base: ReferenceBase = None,
    task: TaskName = None,
    max_notes: MaxNotes = None,
    midi: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The piece to compare on (default: one from here)."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=384, help="How much of it, in 16ths.")] = 128,
) -> None:
    """Compare weights under the PyTorch build and here; status 1 where they disagree."""
    quiet_libraries()
    from m4m_jax.convert.inspect import headline
    from m4m_jax.convert.verify import verify

    found = verify(
        file,
        bases_of(base, reference_base),
        midi=midi,
        steps=steps,
        task=task,
        max_notes=max_notes,
    )
    print(headline(found.card))
    print("\n".join(found.summary()))
    if not found.agrees:
        raise typer.Exit(1)
