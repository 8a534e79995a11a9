"""Training steps of small systems."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from m4m_jax.models.parameters import by_name
from m4m_jax.models.system import System
from m4m_jax.training.optim import Hyper, Schedule
from m4m_jax.training.state import TrainState, init_state, split
from m4m_jax.training.step import make_step
from tests.models.conftest import random_rows
from tests.models.small import microbatches

CALM = Hyper(3e-3, 0.01, float("inf"), 0.0, 0.0, 0.0)
NOISY = CALM._replace(dropout=0.1, lora_dropout=0.2, mask_rate=0.2)


def batches(number: int, parts: int = 1, shards: int = 1, linked: bool = True, batch: int = 4):
    """Packed batches of random rows, leaves [A, S, ...]; the same music however it is split."""
    for seed in range(number):
        target = random_rows(seed, batch, 10, 3)
        reference = random_rows(seed + 100, batch, 10, 3) if linked else None
        yield microbatches(target, reference, parts, shards)


class Trainer:
    """A jitted step of a system, and its frozen base."""

    def __init__(self, system: System, schedule: Schedule | None = None, dtype=jnp.float32):
        self.graph, self.params, self.base = split(system)
        self.raw = make_step(self.graph, schedule or Schedule(), dtype)
        self.step = jax.jit(self.raw)

    def run(self, data, hyper: Hyper = CALM, seed: int = 0) -> tuple[TrainState, list[dict]]:
        """Train on the batches."""
        state, figures, key = init_state(self.params), [], jax.random.key(seed)
        for batch in data:
            state, metrics = self.step(self.base, state, batch, hyper, key)
            figures.append({k: float(v) for k, v in metrics.items()})
        return state, figures


def vector(params, without: str | None = None) -> np.ndarray:
    """All numbers of a state in one row, but for names that end in `without`.

    Softmax does not see the biases of keys: their gradients are rounding errors, which AdamW
    blows up to the size of all others.
    """
    kept = [x for k, x in sorted(by_name(params).items()) if not (without and k.endswith(without))]
    return np.concatenate([np.ravel(x) for x in kept])
