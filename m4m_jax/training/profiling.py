"""A profile of some steps of a run, for TensorBoard and Perfetto."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import jax
from etils import epath

from m4m_jax.mirror import copy_tree
from m4m_jax.training.state import TrainState


def still_to_come(steps: range, done: int) -> range:
    """Those of some steps that come after step `done`; says so on the console where none does."""
    left = range(max(steps.start, done + 1), steps.stop)
    if steps and not left:
        print(f"no profile: step {steps[-1]} is done before", flush=True)
    return left


class Profile:
    """Traces steps of a run by JAX's profiler, and writes what it saw into a folder.

    steps: those to trace, as far as they are still to come. done: the steps that are done before.
    """

    def __init__(self, path: epath.Path, steps: range, done: int):
        self.path, self.tracing = path, False
        self.steps = still_to_come(steps, done)
        self._start_before(done + 1)

    def _start_before(self, step: int) -> None:
        if self.steps and step == self.steps[0]:
            # The profiler opens local files only.
            self.folder = tempfile.TemporaryDirectory()
            jax.profiler.start_trace(self.folder.name)
            self.tracing = True

    def after(self, step: int, state: TrainState, metrics: dict[str, Any]) -> None:
        """Begin before the first of the steps; end when the devices are done with the last."""
        if self.tracing and step == self.steps[-1]:
            jax.block_until_ready(state)
            self._stop()
        self._start_before(step + 1)

    def _stop(self) -> None:
        self.tracing = False
        jax.profiler.stop_trace()
        copy_tree(epath.Path(self.folder.name), self.path)
        self.folder.cleanup()
        first, last = self.steps[0], self.steps[-1]
        print(f"profile of steps {first}..{last}: {os.fspath(self.path)}", flush=True)

    def close(self) -> None:
        """Write what there is of a profile that the run's end cut short."""
        if self.tracing:
            self._stop()
