"""Dropout as a function of a key and of rates that are numbers, not program constants."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


class Noise(NamedTuple):
    """The random part of a training step: a key and the dropout rates, all traced.

    rate: dropout of attention probabilities and of each sub-layer's output.
    lora_rate: dropout of what a low-rank update reads.
    mask_rate: how many steps the spans of span masking have, as a share of all; they may overlap.
    """

    key: Array
    rate: Array | float = 0.1
    lora_rate: Array | float = 0.1
    mask_rate: Array | float = 0.0

    def fold(self, index: int | Array) -> Noise:
        """The `index`-th independent source of noise within this one."""
        return self._replace(key=jax.random.fold_in(self.key, index))


def at(noise: Noise | None, index: int) -> Noise | None:
    """The `index`-th independent source of noise within `noise`; None (evaluation) stays None."""
    return None if noise is None else noise.fold(index)


def random_bits(key: Array, shape: tuple[int, ...]) -> Array:
    """Random uint32 of a shape: each element's index, hashed twice with halves of the key.

    A counter-based generator for dropout. It is a few integer operations an element, which fuse
    with what uses them, where threefry would cost more than the layer that it disturbs; it gives
    the same numbers under vmap and on any mesh. The hash is Wellons' lowbias32 (2018).
    """
    seeds = jax.random.bits(key, (2,), jnp.uint32)
    index = jnp.zeros(shape, jnp.uint32)
    for axis, stride in enumerate(np.cumprod([1, *shape[:0:-1]])[::-1]):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride % 2**32)
    return _hash(_hash(index + seeds[0]) ^ seeds[1])


def _hash(x: Array) -> Array:
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def dropout(x: Array, noise: Noise | None, rate: Array | float | None = None) -> Array:
    """Set a share of `x` to zero and scale the rest up; the identity when `noise` is None.

    rate: the share, [0, 1), `noise.rate` by default.
    """
    if noise is None:
        return x
    rate = jnp.asarray(noise.rate if rate is None else rate, jnp.float32)
    # 24 bits are what a float32 tells apart.
    keep = (random_bits(noise.key, x.shape) >> 8).astype(jnp.float32) >= rate * 2.0**24
    return jnp.where(keep, x * (1 / (1 - rate)).astype(x.dtype), jnp.zeros((), x.dtype))


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
