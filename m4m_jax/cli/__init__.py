"""The command line, `m4m`: parse, call, print.

Heavy imports wait until a command has checked what it can without them, so that help, music
commands and mistakes are answered at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from m4m_jax import runtime
from m4m_jax.cli import analyze, bench, compiling, convert, data, evaluate, generate, music, train  # noqa: F401
from m4m_jax.cli.app import INTERRUPTED, StoppedError, app
from m4m_jax.errors import M4MError

__all__ = ["main"]

# Typer carries a copy of Click in some versions and needs Click in others; this is either's.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_COMPUTING = ("train", "generate", "analyze", "evaluate", "quickstart", "bench")


def _fail(message: str) -> int:
    print(f"m4m: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _run(arguments: Sequence[str] | None) -> int:
    """The exit status of a command line; a user's mistake is one line on stderr and status 2."""
    try:
        # Typer turns Ctrl-C into an exit status, or into its own exception in older versions.
        status = app(args=arguments, prog_name="m4m", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except M4MError as error:
        return _fail(str(error))
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "m4m"
        return _fail(f"{error.format_message()} ({command} --help lists what there is)")  # type: ignore[attr-defined]
    except BrokenPipeError:
        # Whoever read the output has gone; nothing is left to be told, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror or error}")
    except StoppedError as error:
        print(f"m4m: {error}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (`sys.argv` by default) and exit with its status."""
    if arguments is None and sys.argv[1:2] and sys.argv[1] in _COMPUTING:
        runtime.use_large_pages()
    runtime.leave_out_missing_tpus()
    runtime.keep_compiled_programs()
    status = _run(arguments)
    if status == INTERRUPTED:
        print("m4m: interrupted", file=sys.stderr)
    sys.exit(status)
