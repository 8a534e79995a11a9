"""Dropout as a function of a key and of rates that are numbers, not program constants."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Noise(NamedTuple):
    """The random part of a training step: a key and the dropout rates, all traced.

    rate: dropout of attention probabilities and of each sub-layer's output.
    lora_rate: dropout of what a low-rank update reads.
    mask_rate: the share of steps that span masking hides, about.
    """

    key: Array
    rate: Array | float = 0.1
    lora_rate: Array | float = 0.1
    mask_rate: Array | float = 0.0

    def fold(self, index: int) -> Noise:
        """The `index`-th independent source of noise within this one."""
        return self._replace(key=jax.random.fold_in(self.key, index))


def at(noise: Noise | None, index: int) -> Noise | None:
    """The `index`-th independent source of noise within `noise`; None (evaluation) stays None."""
    return None if noise is None else noise.fold(index)


def dropout(x: Array, noise: Noise | None, rate: Array | float | None = None) -> Array:
    """Set a share of `x` to zero and scale the rest up; the identity when `noise` is None.

    The rate (default: `noise.rate`) is resolved to 1/65536: sixteen random bits an element.
    """
    if noise is None:
        return x
    bits = jax.random.bits(noise.key, x.shape, jnp.uint16)
    threshold = jnp.round(jnp.asarray(noise.rate if rate is None else rate) * 65536.0)
    keep = bits.astype(jnp.int32) >= threshold.astype(jnp.int32)
    scale = 65536.0 / (65536.0 - threshold)
    return jnp.where(keep, x * scale.astype(x.dtype), jnp.zeros((), x.dtype))


def span_mask(key: Array, shape: tuple[int, ...], rate: Array | float, span: int = 10) -> Array:
    """Steps to hide, bool `shape` = [..., T]: spans of `span` steps at distinct random starts.

    A sequence gets int(rate * T / span + U(0, 1)) spans, two at the least, and none at rate 0.
    """
    length = shape[-1]
    starts = max(length - span + 1, 1)
    draw, order = jax.random.split(key)
    number = rate * length / span + jax.random.uniform(draw, (*shape[:-1], 1))
    number = jnp.where(jnp.asarray(rate) > 0, jnp.maximum(number.astype(jnp.int32), 2), 0)
    rank = jnp.argsort(jnp.argsort(jax.random.uniform(order, (*shape[:-1], starts))))
    chosen = rank < number  # [..., starts]
    edges = jnp.zeros(shape, jnp.int32).at[..., :starts].add(chosen)
    ends = jnp.pad(edges, [(0, 0)] * (len(shape) - 1) + [(span, 0)])[..., :length]
    return jnp.cumsum(edges - ends, axis=-1) > 0
