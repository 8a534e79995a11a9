"""Low-rank updates of frozen linear maps (Hu et al., "LoRA", 2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from m4m_jax.models.adapter import AdapterParam
from m4m_jax.models.noise import Noise, dropout
from m4m_jax.models.roformer import Layer, Linear, Stack


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """Rank, scale (alpha / rank) and the attention maps updated: query, key, value or output."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ("query", "value")


class LoRA(nnx.Module):
    """x -> (alpha / rank) * B A dropout(x), with B starting at zero."""

    def __init__(self, inputs: int, outputs: int, config: LoRAConfig, *, rngs: nnx.Rngs):
        rank, bound = config.rank, 1 / np.sqrt(inputs)
        a = jax.random.uniform(rngs.params(), (inputs, rank), minval=-bound, maxval=bound)
        self.scale = config.alpha / rank
        self.a = AdapterParam(a, axes=("embed", "rank"))
        self.b = AdapterParam(jnp.zeros((rank, outputs)), axes=("rank", "heads"))

    def __call__(self, x: Array, noise: Noise | None = None) -> Array:
        """`x` [..., inputs] -> [..., outputs]."""
        rate = None if noise is None else noise.lora_rate
        return (dropout(x, noise, rate) @ self.a[...]) @ self.b[...] * self.scale


def attach_lora(stacks: Iterable[Stack], config: LoRAConfig, *, rngs: nnx.Rngs) -> None:
    """Put a LoRA on the maps that the configuration targets, in every layer of `stacks`."""
    for stack in stacks:
        update_layers(stack.layers, config, rngs=rngs)


def update_layers(layers: Iterable[Layer], config: LoRAConfig, *, rngs: nnx.Rngs) -> None:
    """Put a LoRA on the maps that the configuration targets, in these layers."""
    for layer in layers:
        for name in config.targets:
            linear: Linear = getattr(layer.attention, name)
            linear.lora = LoRA(linear.in_features, linear.out_features, config, rngs=rngs)
