"""The training loop, which only loops: everything else is a hook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

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
) -> TrainState:
    """Train until step number `steps`."""
    try:
        for number in range(int(state.step) + 1, steps + 1):
            state, metrics = step_fn(base, state, next(batches), hyper, key)
            for hook in hooks:
                hook.after(number, state, metrics)
    finally:
        for hook in hooks:
            hook.close()
    return state
