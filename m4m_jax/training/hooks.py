"""What happens between training steps: validation, logs, progress, guards, checkpoints."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import rich.progress
from etils import epath
from tensorboardX import SummaryWriter

from m4m_jax.errors import M4MError
from m4m_jax.files import atomic_path
from m4m_jax.mirror import copy_tree
from m4m_jax.pretrained import METRIC
from m4m_jax.training.checkpoints import Checkpoints
from m4m_jax.training.state import TrainState

Metrics = dict[str, Any]


class Validation:
    """Adds the NLL on validation windows to the metrics, now and then and at the end."""

    def __init__(self, validate: Callable[[Any], dict[str, float]], every: int, last: int):
        self.validate, self.every, self.last = validate, every, last

    def after(self, step: int, state: TrainState, metrics: Metrics) -> None:
        """Validate where a multiple of `every`, or the end, is reached."""
        if step % self.every == 0 or step == self.last:
            jax.block_until_ready(state)  # the validation waits for that anyway
            began = time.monotonic()
            metrics.update(self.validate(state.params))
            metrics["validation_seconds"] = time.monotonic() - began

    def close(self) -> None:
        """Nothing to do."""


class StopAtNaN:
    """Ends the run with the last good checkpoint named when a loss or gradient is not finite."""

    def __init__(self, checkpoints: Checkpoints, every: int):
        self.checkpoints, self.every = checkpoints, every

    def after(self, step: int, state: TrainState, metrics: Metrics) -> None:
        """Look at the figures that were fetched, and always before a checkpoint."""
        if step % self.every and "logged" not in metrics:
            return
        for name in ("nll", "gradient_norm", METRIC):
            if not math.isfinite(float(metrics.get(name, 0.0))):
                self.checkpoints.wait()
                good = self.checkpoints.latest()
                kept = "no checkpoint was saved" if good is None else f"the last good one is {good}"
                raise M4MError(
                    f"{name} is {float(metrics[name])} at step {step}; {kept} in "
                    f"{self.checkpoints.path}; try a lower learning rate or a clip"
                )

    def close(self) -> None:
        """Nothing to do."""


class SaveCheckpoints:
    """Saves state and data iterator, every so many steps and at the end."""

    def __init__(
        self, checkpoints: Checkpoints, data: Callable[[], dict[str, Any]], every: int, last: int
    ):
        self.checkpoints, self.data, self.every, self.last = checkpoints, data, every, last

    def after(self, step: int, state: TrainState, metrics: Metrics) -> None:
        """Begin to save where a multiple of `every`, or the end, is reached."""
        if step % self.every == 0 or step == self.last:
            self.checkpoints.save(state, self.data(), metrics.get(METRIC))

    def close(self) -> None:
        """Finish what is being saved."""
        self.checkpoints.close()


class MetricsFile:
    """Adds the fetched figures to `metrics.jsonl`, a line a step.

    Files in buckets cannot be appended to, so there the whole file is written each time. A host
    that does not tell (`writes` false) keeps the lines to itself.
    """

    def __init__(self, path: epath.Path, resumed: int, writes: bool = True):
        self.path, self.writes, self.written = path, writes, list[str]()
        if path.exists():  # a resumed run writes the steps past its checkpoint again
            # The last line may be cut off, if that is where the run stopped.
            whole = [text for text in path.read_text().splitlines() if text.endswith("}")]
            self.written = [
                text for text in whole if resumed and json.loads(text)["step"] <= resumed
            ]
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
