"""`m4m data`: build, inspect and pack data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from m4m_jax.cli.app import StoppedError, app
from m4m_jax.cli.options import DataDir, MaxNotes
from m4m_jax.errors import M4MError

if TYPE_CHECKING:
    from m4m_jax.config import Config

data_app = typer.Typer(help="Build, inspect and pack data sets.", rich_markup_mode=None)
app.add_typer(data_app, name="data")

Builder = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="bach_chorales, nottingham, pop909_cl, rwc_pop, los_angeles, lakh or midi_folder.",
    ),
]
SourceDir = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="Folder with the songs, or (not nottingham) its .zip or .tar."
    ),
]
OwnName = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="Of a midi_folder: your own (default: default); of los_angeles: first_N; of"
        " pop909_cl: analysis.",
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes that read files (default: all cores).")
]
TimeLimit = Annotated[float, typer.Option(min=0.1, help="Seconds that reading a file may take.")]
Runner = Annotated[
    str | None,
    typer.Option(
        metavar="RUNNER",
        help="Build with Apache Beam: direct, dataflow, flink or spark (extra beam).",
    ),
]
RunnerOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="An option of Beam's, such as region=us-central1; repeatable.",
    ),
]
Packable = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG", help="A training configuration (.yaml), or the name of a data set."
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="As for m4m train: window=192, seed=1, ..."),
]
TaskName = Annotated[
    str | None,
    typer.Option(metavar="TASK", help="The view of its songs; the same as task=TASK."),
]
Epochs = Annotated[
    float | None,
    typer.Option(help="How often each song comes up (default: 1, or as steps and batch say)."),
]
PackedName = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="Of the packed data set (default: DATA-TASK-HASH, the hash of what is in it).",
    ),
]


@data_app.callback()
def _start_data() -> None:
    """Build, inspect and pack data sets."""


@data_app.command("build")
def data_build(
    name: Builder,
    source: SourceDir = None,
    data_dir: DataDir = None,
    config: OwnName = None,
    workers: Workers = None,
    time_limit: TimeLimit = 60.0,
    runner: Runner = None,
    runner_option: RunnerOption = None,
) -> None:
    """Build a data set; what could not be used is listed with its reason.

    A build that was stopped goes on when it is started again.
    """
    from m4m_jax import datasets
    from m4m_jax.datasets.builder import REPORT_FILE
    from m4m_jax.progress import progress_bar

    full = name if config is None else f"{name}/{config}"
    try:
        with progress_bar(f"building {full}") as progress:
            report = datasets.build(
                full,
                source,
                data_dir,
                workers=workers,
                time_limit=time_limit,
                progress=progress,
                say=print,
                runner=runner,
                runner_options=[f"--{option}" for option in runner_option or ()],
            )
    except KeyboardInterrupt as error:
        raise StoppedError(str(error) or "interrupted") from None
    directory = datasets.info(full, data_dir).directory
    print("\n".join(report.summary()))
    if report.rejected or report.notices:
        print(f"  all of these, by file: {directory / REPORT_FILE}")
    print(directory)


@data_app.command("inspect")
def data_inspect(
    name: Packable,
    changes: Changes = None,
    task: TaskName = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="Steps of a window; the same as window=STEPS.")
    ] = None,
    max_notes: MaxNotes = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Windows of a batch; the same as batch=WINDOWS.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Say what a run's data sets hold, and how much of its batches is padding.

    The task of a data set that is given by its name is continuation, unless another is named.
    """
    from m4m_jax.data.inspect import inspect

    given = list(changes or ())
    if task is None and not (_is_file(name) or _gives("task", given) or _gives("mixture", given)):
        task = "continuation"
    options = {"task": task, "window": window, "max_notes": max_notes, "batch": batch}
    print("\n".join(inspect(_config_of(name, given, options), data_dir)))


@data_app.command("pack")
def data_pack(
    name: Packable,
    changes: Changes = None,
    task: TaskName = None,
    epochs: Epochs = None,
    data_dir: DataDir = None,
    packed: PackedName = None,
) -> None:
    """Store the windows that a run reads, so that its hosts need not make them from songs."""
    from etils import epath

    from m4m_jax.data import stored
    from m4m_jax.data.supply import pack, pack_name, told
    from m4m_jax.datasets.store import default_data_dir
    from m4m_jax.progress import progress_bar

    if epochs is not None and epochs <= 0:
        raise M4MError(f"--epochs {epochs:g}: songs come up at least a part of once; give more")
    given = list(changes or ())
    config = _config_of(name, given, {"task": task})
    if epochs is None and not (_is_file(name) or _gives("steps", given)):
        epochs = 1.0
    root = default_data_dir() if data_dir is None else epath.Path(data_dir)
    called = packed or pack_name(config, epochs)
    with progress_bar("packing windows") as progress:
        about = pack(
            config,
            root / "packed" / called / stored.VERSION,
            data_dir,
            epochs=epochs,
            progress=progress,
        )
    print("\n".join(about.summary))
    print(told(config, about.windows))
    print(about.directory)


def _config_of(name: str, changes: list[str], options: Mapping[str, str | int | None]) -> Config:
    """The configuration of a file, or of a data set; options: changes that were given as such."""
    from m4m_jax.config import change_config, load_config

    for key, value in options.items():
        if value is None:
            continue
        if _gives(key, changes):
            option = f"--{key.replace('_', '-')} {value}"
            raise M4MError(f"{option} and {key}=... say the same thing; give one of them")
        changes = [*changes, f"{key}={value}"]
    if _is_file(name):
        return load_config(name, changes)
    return change_config({"data": name}, changes, name)


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _gives(key: str, changes: list[str]) -> bool:
    return any(text.startswith(f"{key}=") for text in changes)
