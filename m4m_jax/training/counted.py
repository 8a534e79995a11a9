"""A training step that tells how much arithmetic it did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from m4m_jax.data.packing import PackedBatch
from m4m_jax.flops import matmul_flops
from m4m_jax.training.state import TrainState


class CountedStep:
    """A jitted training step whose metrics have `flops`, of its matrix products on all devices.

    They are counted once for each size of batches, from the trace that the step is compiled from.
    """

    def __init__(self, step: Any, before_compiling: Callable[[TrainState], None] = lambda _: None):
        """step: of `make_step`, jitted. before_compiling: called with the state before it is."""
        self.step, self.before_compiling = step, before_compiling
        self.flops: dict[Any, int] = {}

    def __call__(
        self, base: Any, state: TrainState, batch: PackedBatch, *rest: Any
    ) -> tuple[TrainState, dict[str, Any]]:
        """A step, as `training.step.Step`."""
        size = tuple(x.shape for x in jax.tree.leaves(batch))
        if size not in self.flops:
            self.before_compiling(state)
            traced = self.step.trace(base, state, batch, *rest)
            self.flops[size] = matmul_flops(traced.jaxpr)
        state, metrics = self.step(base, state, batch, *rest)
        return state, metrics | {"flops": self.flops[size]}
