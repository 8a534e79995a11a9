"""What happens between training steps: validation, logs, progress, guards, checkpoints."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np
import rich.progress
from etils import epath
from tensorboardX import SummaryWriter

from m4m_jax.errors import M4MError
from m4m_jax.files import atomic_path
from m4m_jax.mirror import copy_tree
from m4m_jax.pretrained import METRIC
from m4m_jax.training.checkpoints import Checkpoints
from m4m_jax.training.preemption import Preempted, Preemption
from m4m_jax.training.state import TrainState

Metrics = dict[str, Any]

UNFINISHED = "unfinished"
"""Of a checkpoint's data: the metrics of its step, where hooks have yet to be called with them."""


class Validation:
    """Adds the NLL on validation windows to the metrics, now and then and at the end."""

    def __init__(
        self,
        validate: Callable[[Any], dict[str, float] | None],
        every: int,
        last: int,
        save: SaveCheckpoints,
    ):
        """validate: parameters -> NLL, or None where the run is told to stop meanwhile."""
        self.validate, self.every, self.last, self.save = validate, every, last, save

    def after(self, step: int, state: TrainState, metrics: Metrics) -> None:
        """Validate where a multiple of `every`, or the end, is reached."""
        if step % self.every == 0 or step == self.last:
            jax.block_until_ready(state)  # the validation waits for that anyway
            began = time.monotonic()
            found = self.validate(state.params)
            if found is None:
                self.save.unfinished(step, state, metrics)
            else:
                metrics.update(found, validation_seconds=time.monotonic() - began)

    def close(self) -> None:
        """Nothing to do."""


def check_finite(step: int, metrics: Metrics, checkpoints: Checkpoints) -> None:
    """M4MError that names the last good checkpoint where a loss or gradient is not finite.

    Waits for the step where its figures have not been fetched.
    """
    for name in ("nll", "gradient_norm", METRIC):
        if not math.isfinite(value := float(metrics.get(name, 0.0))):
            checkpoints.wait()
            raise M4MError(
                f"{name} is {value} at step {step}; "
                f"{checkpoints.last_good}; try a lower learning rate or a clip"
            )


class StopAtNaN:
    """Ends the run where a loss or gradient is not finite, as far as figures are fetched."""

    def __init__(self, checkpoints: Checkpoints):
        self.checkpoints = checkpoints

    def after(self, step: int, state: TrainState, metrics: Metrics) -> None:
        """Look at the figures, before they are written."""
        if "logged" in metrics:
            check_finite(step, metrics, self.checkpoints)

    def close(self) -> None:
        """Nothing to do."""


class SaveCheckpoints:
    """Saves state and data iterator, every so many steps and at the end, and where the run stops.

    Nothing can be saved while a program compiles, so it saves before one does, too. A state is not
    saved, and the run ends, where the loss or gradient of its step is not finite: whatever went on
    from there would not be either.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        data: Callable[[], dict[str, Any]],
        every: int,
        last: int,
        stop: Preemption,
    ):
        self.checkpoints, self.data, self.every, self.last = checkpoints, data, every, last
        self.stop, self.unsaved, self.metrics = stop, dict[str, Any](), Metrics()

    def after(self, step: int, state: TrainState, metrics: Metrics) -> None:
        """Begin to save where a multiple of `every`, or the end, is reached."""
        self.checkpoints.check()
        self.unsaved, self.metrics, stops = self.data(), metrics, self.stop.passed()
        if stops or step % self.every == 0 or step == self.last:
            self._save(step, state, metrics.get(METRIC))
        if stops and step < self.last:
            self._end()

    def unfinished(self, step: int, state: TrainState, metrics: Metrics) -> NoReturn:
        """End the run after a step before all is done that comes after it, to be done next time."""
        self.unsaved, self.metrics = {**self.data(), UNFINISHED: _plain(metrics)}, metrics
        self._save(step, state, None)
        self._end()

    def before_compiling(self, state: TrainState) -> None:
        """Save what is not."""
        if self.unsaved:
            self._save(int(state.step), state, None)
        self.stop.hold(False)

    def _save(self, step: int, state: TrainState, nll: float | None) -> None:
        check_finite(step, self.metrics, self.checkpoints)
        self.checkpoints.save(step, state, self.unsaved, nll)
        self.unsaved = {}

    def _end(self) -> NoReturn:
        self.checkpoints.wait()
        self.stop.hold(False)
        raise Preempted

    def close(self) -> None:
        """Finish what is being saved."""
        self.checkpoints.close()


class Hold:
    """Marks that a step was made, which is yet to be saved."""

    def __init__(self, stop: Preemption):
        self.stop = stop

    def after(self, step: int, state: TrainState, metrics: Metrics) -> None:
        """Hold on to the state."""
        self.stop.hold(True)

    def close(self) -> None:
        """There is nothing more to be saved."""
        self.stop.hold(False)


def _plain(metrics: Metrics) -> Metrics:
    """Metrics as numbers."""
    return {name: np.asarray(value).item() for name, value in metrics.items()}


class SavingTime:
    """Adds the seconds that training has waited for checkpoints since the line before."""

    def __init__(self, checkpoints: Checkpoints):
        self.checkpoints, self.told = checkpoints, 0.0

    def after(self, step: int, state: TrainState, metrics: Metrics) -> None:
        """Tell where figures were fetched."""
        if "logged" in metrics:
            metrics["saving_seconds"] = self.checkpoints.blocked - self.told
            self.told = self.checkpoints.blocked

    def close(self) -> None:
        """Nothing to do."""


def read_figures(path: epath.Path) -> list[dict[str, Any]]:
    """The whole lines of a `metrics.jsonl`; the last may be cut off where a run was killed."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


class MetricsFile:
    """Adds the fetched figures to `metrics.jsonl`, a line a step.

    Files in buckets cannot be appended to, so there the whole file is written each time. A host
    that does not tell (`writes` false) keeps the lines to itself.
    """

    def __init__(self, path: epath.Path, resumed: int, writes: bool = True):
        self.path, self.writes, self.written = path, writes, list[str]()
        if path.exists():  # a resumed run writes the steps past its checkpoint again
            kept = (line for line in read_figures(path) if resumed and line["step"] <= resumed)
            self.written = [json.dumps(line) for line in kept]
            self._write_all()

    def _write_all(self) -> None:
        if not self.writes:
            return
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(text + "\n" for text in self.written))

    def lines(self) -> list[dict[str, Any]]:
        """What the file holds."""
        return [json.loads(line) for line in self.written]

    def write(self, step: int, metrics: Metrics) -> None:
        """Add a line."""
        self.written.append(json.dumps({"step": step} | metrics))
        if "://" in os.fspath(self.path):
            self._write_all()
        elif self.writes:
            with self.path.open("a") as file:
                file.write(self.written[-1] + "\n")

    def after(self, step: int, state: TrainState, metrics: Metrics) -> None:
        """Write a line where figures were fetched."""
        if "logged" in metrics:
            self.write(step, {k: v for k, v in metrics.items() if k != "logged"})

    def close(self) -> None:
        """Nothing to do."""


class TensorBoard:
    """Writes the fetched figures where TensorBoard finds them; into a bucket, once a minute."""

    def __init__(self, path: epath.Path):
        self.path, self.folder, self.copied = path, None, time.monotonic()
        if "://" in os.fspath(path):
            self.folder = tempfile.TemporaryDirectory()
        self.writer = SummaryWriter(str(path) if self.folder is None else self.folder.name)

    def after(self, step: int, state: TrainState, metrics: Metrics) -> None:
        """Write scalars where figures were fetched."""
        if "logged" in metrics:
            for name, value in metrics.items():
                if name != "logged":
                    self.writer.add_scalar(name, value, step)
            if self.folder is not None and time.monotonic() - self.copied > 60:
                self.writer.flush()
                self._copy()

    def _copy(self) -> None:
        if self.folder is not None:
            copy_tree(epath.Path(self.folder.name), self.path)
        self.copied = time.monotonic()

    def close(self) -> None:
        """Finish the file."""
        self.writer.close()
        self._copy()


class Console:
    """A progress bar with the latest figures; lines instead where there is no terminal."""

    def __init__(self, title: str, done: int, total: int):
        self.title, self.total, self.shown = title, total, ""
        self.bar = rich.progress.Progress(
            "[progress.description]{task.description}",
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(),
            "{task.fields[figures]}",
        )
        self.task = self.bar.add_task(title, total=total, completed=done, figures="")
        if self.bar.console.is_terminal:
            self.bar.start()

    def after(self, step: int, state: TrainState, metrics: Metrics) -> None:
        """Move the bar on."""
        if METRIC in metrics:
            self.shown = f"  validation {metrics[METRIC]:.3f}"
        if "logged" in metrics:
            figures = f"nll {metrics['nll']:.3f}{self.shown}{_speed(metrics)}"
            if not self.bar.console.is_terminal:
                print(f"{self.title} {step}/{self.total}  {figures}", flush=True)
                self.shown = ""
            self.bar.update(self.task, figures=figures)
        self.bar.update(self.task, completed=step)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar.console.is_terminal:
            self.bar.stop()


def _speed(metrics: Metrics) -> str:
    """Steps and tokens a second, and how well the chips are used, as far as these are known."""
    if "step_seconds" not in metrics:
        return ""
    steps, tokens = 1 / metrics["step_seconds"], metrics["tokens_per_second"]
    used = f"  {metrics['utilization']:.0%} of peak" if "utilization" in metrics else ""
    return f"  {steps:.2f} steps/s  {tokens:.0f} tokens/s{used}"
