"""The application that all commands belong to, and what they have in common."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from m4m_jax.music import NoteTable


app = typer.Typer(
    help="Music-for-music models: train, generate, inspect.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


INTERRUPTED = 130  # as a shell reports a program ended by Ctrl-C


class StoppedError(Exception):
    """Ctrl-C, of which more is to be said than that it came."""


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"m4m {importlib.metadata.version('m4m_jax')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def printable(text: str) -> str:
    """A text without characters that would disturb a console."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def warn_off_grid(song: NoteTable, file: str) -> None:
    """Say on stderr where a file's beats are probably wrong."""
    from m4m_jax.music.inspect import off_grid_warning

    if warning := off_grid_warning(song):
        print(f"m4m: warning: {file}: {warning}", file=sys.stderr)


def quiet_libraries() -> None:
    """Keep what libraries say of their own internals off the console; errors still show.

    Most of them speak through absl, which sets its own level when it is imported.
    """
    from absl import logging

    logging.set_verbosity(logging.ERROR)
    # Orbax prints the tracebacks of errors that it also raises.
    logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)
    sys.unraisablehook = _tell_but_of_late_writes


def _tell_but_of_late_writes(met: Any) -> None:
    """Leave out what tensorstore's threads meet where other files of a save have failed already."""
    if not (met.exc_type is RuntimeError and str(met.exc_value) == "Event loop is closed"):
        sys.__unraisablehook__(met)
