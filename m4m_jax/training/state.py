"""What a training run carries from step to step, and what stays frozen beside it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from m4m_jax.models.roformer import Layer
from m4m_jax.models.system import System
from m4m_jax.training.optim import Hyper, Schedule, adamw


class TrainState(NamedTuple):
    """The trained parameters (float32), the optimiser's moments and the steps done (int32 [])."""

    params: Any
    moments: Any
    step: Array


def split(system: System) -> tuple[nnx.GraphDef, Any, Any]:
    """(graph, trained parameters, frozen base): the first is static, the others are pytrees."""
    graph, trained, base = nnx.split(system, system.trained, ...)
    return graph, trained, base


def save_memory(system: System) -> None:
    """Have every layer computed anew in the backward pass."""
    for _, module in nnx.iter_modules(system):
        if isinstance(module, Layer):
            module.remat = True


def init_state(params: Any) -> TrainState:
    """The state before the first step; moments lie where their parameters do."""
    step = jnp.zeros((), jnp.int32)
    return TrainState(params, adamw(Hyper(), Schedule(), step).init(params), step)
