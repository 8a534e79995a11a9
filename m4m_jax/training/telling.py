"""Which of several hosts tell what a run does: the first one, or each of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import jax
from etils import epath


def tells(all_hosts: bool) -> bool:
    """Whether this host does."""
    return all_hosts or jax.process_index() == 0


def own(path: epath.Path) -> epath.Path:
    """This host's own in the place of a file: `metrics.jsonl`, `metrics-host_1.jsonl`, ..."""
    number = jax.process_index()
    return path if number == 0 else path.with_name(f"{path.stem}-host_{number}{path.suffix}")


@contextlib.contextmanager
def quiet_unless(telling: bool) -> Iterator[None]:
    """Print nothing meanwhile, unless this host tells. Errors, on stderr, are always seen."""
    if telling:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
