"""The loss of a linear output layer over a large vocabulary, without holding its logits.

Logits of all tokens are by far the largest arrays of a training step. So they are made a chunk at
a time, and a chunk's gradient is taken right away, in the forward pass: the sum's cotangent is a
single number, which the backward pass multiplies in.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from m4m_jax.models.placement import constrain

CHUNK = 16
"""Blocks of tokens, of each shard, whose logits are held at a time."""


def token_nll(logits: Array, tokens: Array) -> Array:
    """Natural-log NLL float32 [...] of `tokens` int32 [...] under `logits` [..., V]."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return jax.nn.logsumexp(logits, axis=-1) - jnp.where(_hits(logits, tokens), logits, 0).sum(-1)


def _hits(logits: Array, tokens: Array) -> Array:
    """Where each token stands in its logits, bool [..., V]."""
    place = jax.lax.broadcasted_iota(tokens.dtype, logits.shape, logits.ndim - 1)
    return place == tokens[..., None]


def nll_sum(h: Array, kernel: Array, bias: Array, tokens: Array, weight: Array) -> Array:
    """The weighted sum of the NLL of tokens whose logits are `h @ kernel + bias`, float32 [].

    h [S, K, P, D], kernel [D, V], bias [V], tokens int32 and weight float32 [S, K, P]. Gradients of
    kernel and bias are summed in the dtype of `weight`, and rounded to theirs at the end.
    """
    spare = -h.shape[1] % CHUNK

    def chunks(x: Array) -> Array:  # [S, K, ...] -> [K / CHUNK, S, CHUNK, ...]
        x = jnp.pad(x, [(0, 0), (0, spare)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], -1, CHUNK, *x.shape[2:]), 1, 0)

    return _nll_sum(chunks(h), kernel, bias, chunks(tokens), chunks(weight))


def split(part: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """A chunk, whose tokens are shared out among devices that hold the same shard."""
    h, tokens, weight = part
    place = ("shard", None, "token")
    return constrain(h, *place, "embed"), constrain(tokens, *place), constrain(weight, *place)


@jax.custom_vjp
def _nll_sum(h: Array, kernel: Array, bias: Array, tokens: Array, weight: Array) -> Array:
    def add(total: Array, part: tuple[Array, Array, Array]) -> tuple[Array, None]:
        h, tokens, weight = split(part)
        return total + (token_nll(h @ kernel + bias, tokens) * weight).sum(axis=(1, 2)), None

    return jax.lax.scan(add, by_shard(weight, ()), (h, tokens, weight))[0].sum()


def by_shard(like: Array, shape: tuple[int, ...]) -> Array:
    """Zeros [S, *shape] to add up by shard, so that devices add up theirs once, not at each chunk.

    like: an array [K / CHUNK, S, ...].
    """
    zeros = jnp.zeros((like.shape[1], *shape), like.dtype)
    return constrain(zeros, "shard", *[None] * len(shape))


def _forward(h: Any, kernel: Any, bias: Any, tokens: Any, weight: Any) -> tuple[Array, Any]:
    """The sum, and its gradient by what is trained."""
    trained = kernel.perturbed
    h, kernel, bias, tokens, weight = (x.value for x in (h, kernel, bias, tokens, weight))

    def add(sums: Any, part: tuple[Array, Array, Array]) -> tuple[Any, Array]:
        total, d_kernel, d_bias = sums
        h, tokens, weight = split(part)
        logits = h @ kernel + bias
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        hits, top = _hits(logits, tokens), logits.max(axis=-1, keepdims=True)
        # One exponential serves both the loss and its gradient.
        shares = jnp.exp(logits - top)  # [S, C, P, V], up to their sum
        whole = shares.sum(axis=-1, keepdims=True)
        nll = (jnp.log(whole) + top)[..., 0] - jnp.where(hits, logits, 0).sum(axis=-1)
        scale = weight[..., None]
        d_logits = (shares * (scale / whole) - jnp.where(hits, scale, 0)).astype(h.dtype)
        if trained:
            precise = d_kernel.dtype
            d_kernel = d_kernel + jnp.einsum(
                "scpd,scpv->sdv", h, d_logits, preferred_element_type=precise
            )
            d_bias = d_bias + d_logits.sum(axis=(1, 2), dtype=precise)
        total = total + (nll * weight).sum(axis=(1, 2))
        return (total, d_kernel, d_bias), d_logits @ kernel.T

    # What chunks add is far smaller than the sum: in bfloat16 it would be rounded away.
    zeros = tuple(by_shard(weight, shape) for shape in ((), kernel.shape, bias.shape))
    sums, d_h = jax.lax.scan(add, zeros, (h, tokens, weight))
    total, d_kernel, d_bias = (x.sum(axis=0) for x in sums)
    d_head = (d_kernel.astype(kernel.dtype), d_bias.astype(bias.dtype)) if trained else (None, None)
    return total, (d_h, *d_head)


def _backward(gradient: Any, cotangent: Array) -> tuple[Any, ...]:
    if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
        return (None,) * 5
    scaled = [None if g is None else (g * cotangent).astype(g.dtype) for g in gradient]
    return (*scaled, None, None)


_nll_sum.defvjp(_forward, _backward, symbolic_zeros=True)
