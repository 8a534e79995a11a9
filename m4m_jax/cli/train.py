"""`m4m train` and `m4m quickstart`."""

from __future__ import annotations

from typing import Annotated

import typer

from m4m_jax import runtime
from m4m_jax.cli.app import app, quiet_libraries
from m4m_jax.cli.options import ConfigFile, DataDir


@app.command()
def train(
    config: ConfigFile,
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="preset=NAME, steps=500, optimizer.clip=1.0, ..."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="DIR", help="The run's directory (default: runs/...)."),
    ] = None,
    data_dir: DataDir = None,
    all_hosts: Annotated[
        bool, typer.Option("--all-hosts", help="Let all hosts tell, not only the first.")
    ] = False,
    coordinator: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Of several processes: where number 0 is."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="How many processes there are.")
    ] = None,
    process: Annotated[
        int | None, typer.Option(metavar="I", min=0, help="The number of this one, from 0.")
    ] = None,
    join_seconds: Annotated[
        int, typer.Option(metavar="S", min=1, help="How long to wait for all of them.")
    ] = 300,
) -> None:
    """Train a language model or an adapter; goes on by itself where a run stopped.

    On TPU pods, SLURM and GKE its processes find each other; elsewhere --coordinator, --processes
    and --process tell them. Status 75 says that it was stopped by SIGTERM, saved, and can go on.
    """
    runtime.stop_by_signal()
    from m4m_jax.config import load_config, run_name

    settings = load_config(config, changes or ())
    path = out or f"runs/{run_name(config, changes or ())}"
    quiet_libraries()
    from m4m_jax.training import hosts
    from m4m_jax.training.process import train_here
    from m4m_jax.training.telling import quiet_unless, tells

    hosts.join(coordinator, processes, process, seconds=join_seconds)
    with quiet_unless(tells(all_hosts)):
        result = train_here(settings, path, data_dir, all_hosts=all_hosts)
        print(f"validation NLL {result.before:.4f} -> {result.best:.4f} nats a token")
        print(result.path)


@app.command()
def quickstart(
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="Where to write.")
    ] = "quickstart",
) -> None:
    """The whole road in minutes: Bach chorales, a language model, an adapter, a harmonisation."""
    quiet_libraries()
    from m4m_jax.quickstart import quickstart

    quickstart(out)
