"""`m4m compile`: what training takes on TPUs."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from m4m_jax.cli.app import app
from m4m_jax.cli.options import ConfigFile, JsonFile


@app.command("compile")
def compile_program(
    config: ConfigFile,
    topology: Annotated[
        str, typer.Option(metavar="KIND:SHAPE", help="Such as v5e:16x16, v5p:4x8x8, v6e:8x8.")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="As for m4m train; adapters need no base here."),
    ] = None,
    slices: Annotated[int, typer.Option(min=1, help="Slices of that shape.")] = 1,
    per_device_batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Windows of a shard, or sequences (default: as batch says, or 8)."
        ),
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="The sampler instead of the training step.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Compile a training step for TPUs without one, and say what it needs (extra tpu)."""
    from m4m_jax.config import load_config
    from m4m_jax.files import check_place
    from m4m_jax.tpu import compile as compiling

    settings = load_config(config, changes or (), baseless=True)
    target = compiling.Target(topology, slices)
    if json_file is not None:
        check_place(json_file)
    compiling.environment()
    if sample:
        report = compiling.compile_sampling(settings, target, per_device_batch or 8)
    else:
        report = compiling.compile_training(settings, target, per_device_batch)
    print("\n".join(compiling.lines(report, target)))
    if json_file is not None:
        compiling.write(report, json_file)
    sys.stdout.flush()
    os._exit(0)  # a thread may be busy with machine code, which nobody waits for
