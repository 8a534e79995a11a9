"""Rows of a table by their indices, and the gradients that come back to them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

CELLS = 2**25
"""How large a part of the one-hot table of a gradient is held at a time, of each shard."""


def gather(rows: Array, index: Array) -> Array:
    """`rows` [S, R, D] at `index` [S, ...] -> [S, ..., D]; an index of -1 gives some row."""
    return jax.vmap(lambda r, i: r[i])(rows, index)


def look_up(rows: Array, index: Array) -> Array:
    """`gather` from tables of which a few rows are read most of the time; indices from 0 on.

    A row's gradient is the sum of those of all that was read of it. A gather's own gradient adds
    them one by one, so that on an accelerator they wait for each other, half of all steps being the
    same empty row, and in no fixed order. Here the sums are a product with a one-hot table.
    """
    return jax.vmap(functools.partial(_look_up, rows.shape[-2]))(rows, jnp.asarray(index))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _look_up(size: int, rows: Array, index: Array) -> Array:
    return rows[index]


def _forward(size: int, rows: Array, index: Array) -> tuple[Array, Array]:
    return rows[index], index


def _backward(size: int, index: Array, gradient: Array) -> tuple[Array, None]:
    part = max(1, min(index.size, CELLS // size))
    spare = -index.size % part
    flat = jnp.pad(index.reshape(-1), (0, spare), constant_values=-1).reshape(-1, part)
    given = gradient.reshape(index.size, -1)
    given = jnp.pad(given, [(0, spare), (0, 0)]).reshape(-1, part, given.shape[-1])

    def sums(index: Array, given: Array) -> Array:
        hot = jax.nn.one_hot(index, size, dtype=given.dtype)  # [part, R], 0 at -1
        precise = jnp.promote_types(given.dtype, jnp.float32)
        return jnp.einsum("mr,md->rd", hot, given, preferred_element_type=precise)

    total = sums(flat[0], given[0])
    if len(flat) > 1:
        rest = (flat[1:], given[1:])
        total, _ = jax.lax.scan(lambda total, x: (total + sums(*x), None), total, rest)
    return total.astype(gradient.dtype), None


_look_up.defvjp(_forward, _backward)
