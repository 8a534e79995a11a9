"""The training loop, which only loops: everything else is a hook."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
from jax import Array

from m4m_jax.data.packing import PackedBatch
from m4m_jax.training.optim import Hyper
from m4m_jax.training.state import TrainState
from m4m_jax.training.step import Step


class Hook(Protocol):
    """Something done after steps. Hooks run in order and may add to `metrics`."""

    def after(self, step: int, state: TrainState, metrics: dict[str, Any]) -> None:
        """After step number `step`, counted from 1."""

    def close(self) -> None:
        """After the last step, or when the loop is left by an error."""


def train(
    step_fn: Step,
    base: Any,
    state: TrainState,
    batches: Iterator[PackedBatch],
    hyper: Hyper,
    key: Array,
    *,
    steps: int,
    hooks: Sequence[Hook] = (),
    unfinished: dict[str, Any] | None = None,
) -> TrainState:
    """Train until step number `steps`.

    The metrics that hooks see are the step's, and `input_wait_seconds`, for which it waited for its
    batch. unfinished: those of the state's step, where its hooks have yet to be called.
    """
    try:
        if unfinished is not None:
            for hook in hooks:
                hook.after(int(state.step), state, unfinished)
        for number in range(int(state.step) + 1, steps + 1):
            with jax.profiler.StepTraceAnnotation("train", step_num=number):
                began = time.monotonic()
                batch = next(batches)
                waited = time.monotonic() - began
                state, metrics = step_fn(base, state, batch, hyper, key)
            figures = {**metrics, "input_wait_seconds": waited}
            for hook in hooks:
                hook.after(number, state, figures)
    finally:
        for hook in hooks:
            hook.close()
    return state
