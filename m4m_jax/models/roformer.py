"""RoFormer layers: post-LayerNorm transformer layers with rotary positions.

The layer of Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021), in
BERT's arrangement: biases everywhere, exact GELU, LayerNorm (eps 1e-12) after each residual.

A layer has openings for what adapters need, and its attention can be called on its own; a linked
system is a short loop over layers that uses them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from m4m_jax.models.noise import Noise, at, dropout

LAYER_NORM_EPSILON = 1e-12


Initializer = Callable[..., Array]

NORMAL = nnx.initializers.normal(0.02)
"""How weights start, in BERT's arrangement."""

KEEP_VARIANCE = nnx.initializers.lecun_normal()
"""How weights start where the output is to vary as much as the input."""


class PositionTable(nnx.Variable):
    """Rotary angles [positions, head size]: sines in the first half, cosines in the second.

    Not a parameter: nothing trains it. Converted weights may hold any numbers here, so the table
    belongs to the model and is saved with it.
    """


class Cache(NamedTuple):
    """Keys and values of the positions that a decoder layer has read so far.

    keys, values: [B, S, H, d], filled up to `length` (int32 scalar).
    """

    keys: Array
    values: Array
    length: Array

    def broadcast(self, batch: int) -> Cache:
        """The cache of one sequence, B = 1, as that of `batch` equal ones."""
        shape = (batch, *self.keys.shape[1:])
        keys, values = (jnp.broadcast_to(x, shape) for x in (self.keys, self.values))
        return Cache(keys, values, self.length)


def sinusoids(positions: int, features: int) -> np.ndarray:
    """Angles pos / 10000^(2i/d): their sines, then their cosines, float32 [positions, features]."""
    frequency = 10000.0 ** (-np.arange(0, features, 2) / features)
    angle = np.arange(positions)[:, None] * frequency  # [positions, features / 2]
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=-1).astype(np.float32)


def rotate(x: Array, rope: Array) -> Array:
    """Turn adjacent feature pairs (2i, 2i+1) of x [..., T, H, d] by the rows of rope [..., T, d].

    The rotation is done in the table's precision (float32) and returned in that of `x`.
    """
    sin, cos = jnp.split(rope[..., None, :], 2, axis=-1)  # [..., T, 1, d / 2]
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)


def attend(q: Array, k: Array, v: Array, mask: Array | None, noise: Noise | None) -> Array:
    """Scaled dot-product attention, softmax in float32.

    q [..., T, H, d], k and v [..., S, H, d], mask bool, broadcastable to [..., T, S], True where a
    query may look. Returns [..., T, H, d].
    """
    if noise is None and fused(q, k):
        return attend_fused(q, k, v, mask)
    # Heads first: batched products over leading axes are several times faster on CPU.
    q, k, v = (jnp.swapaxes(x, -2, -3) for x in (q, k, v))  # [..., H, T | S, d]
    scores = q @ jnp.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]).astype(q.dtype)
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    if mask is not None:
        scores = jnp.where(mask[..., None, :, :], scores, jnp.finfo(scores.dtype).min)
    weights = dropout(jax.nn.softmax(scores, axis=-1).astype(q.dtype), noise)
    return jnp.swapaxes(weights @ v, -2, -3)


FUSED_FROM = 128
"""Queries from which on a fused attention saves time."""


def fused(q: Array, k: Array) -> bool:
    """Whether a GPU's fused attention takes queries [..., T, H, d] and keys [..., S, H, d].

    It never holds the scores. It wants half precision and even lengths; dropout with rates that
    are numbers of the program's input it does not know.
    """
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    even = not (q.shape[-3] % 2 or k.shape[-3] % 2 or q.shape[-1] % 8)
    long = q.shape[-3] >= FUSED_FROM and q.shape[-1] <= 128
    return half and even and long and "cuda" in jax.devices()[0].client.platform_version


def attend_fused(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Array:
    """`attend` without noise, by JAX's attention with one batch axis; `cudnn` is the fused one."""
    leading = jnp.broadcast_shapes(q.shape[:-3], k.shape[:-3])

    def flat(x: Array) -> Array:  # [B, T | S, H, d]
        return jnp.broadcast_to(x, (*leading, *x.shape[-3:])).reshape(-1, *x.shape[-3:])

    if mask is not None and mask.ndim > 2:
        mask = jnp.broadcast_to(mask, (*leading, *mask.shape[-2:]))
    if mask is not None:
        mask = mask.reshape(-1, 1, *mask.shape[-2:])  # [B | 1, 1, T, S]
    mixed = jax.nn.dot_product_attention(
        flat(q), flat(k), flat(v), mask=mask, implementation=implementation
    )
    return mixed.reshape(*leading, *q.shape[-3:])


class Linear(nnx.Linear):
    """An affine map over the last axis, to which a low-rank update may be attached (`lora.py`)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        axes: tuple[str, str],
        *,
        kernel_init: Initializer = NORMAL,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            inputs,
            outputs,
            kernel_init=kernel_init,
            kernel_metadata={"axes": axes},
            bias_metadata={"axes": axes[1:]},
            rngs=rngs,
        )
        self.lora: nnx.Module | None = nnx.data(None)

    def __call__(self, x: Array, noise: Noise | None = None) -> Array:
        """`x` [..., inputs] -> [..., outputs]."""
        y = super().__call__(x)
        return y if self.lora is None else y + self.lora(x, noise)


def layer_norm(width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm as the reference computes it (two-pass variance)."""
    return nnx.LayerNorm(
        width,
        epsilon=LAYER_NORM_EPSILON,
        use_fast_variance=False,
        scale_metadata={"axes": ("embed",)},
        bias_metadata={"axes": ("embed",)},
        rngs=rngs,
    )


class Attention(nnx.Module):
    """Multi-head attention with its output map; queries and keys may come from different places."""

    def __init__(
        self, width: int, heads: int, *, kernel_init: Initializer = NORMAL, rngs: nnx.Rngs
    ):
        self.heads = heads
        linear = functools.partial(Linear, width, width, kernel_init=kernel_init, rngs=rngs)
        self.query = linear(("embed", "heads"))
        self.key = linear(("embed", "heads"))
        self.value = linear(("embed", "heads"))
        self.output = linear(("heads", "embed"))

    def split(self, x: Array) -> Array:
        """[..., width] -> [..., H, d]."""
        return x.reshape(*x.shape[:-1], self.heads, -1)

    def __call__(
        self,
        x: Array,
        source: Array,
        *,
        rope: tuple[Array, Array] | None = None,
        mask: Array | None = None,
        cache: Cache | None = None,
        noise: Noise | None = None,
    ) -> tuple[Array, Cache | None]:
        """Attend from `x` [..., T, D] to `source` [..., S, D]; returns ([..., T, D], cache).

        `rope` holds the table's rows of the queries and of the keys. With a cache, `source` is
        what follows the positions already read: its keys and values are appended, and each query
        sees the cache up to its own position.
        """
        q = self.split(self.query(x, at(noise, 0)))
        k, v = self.read(source, noise)
        if rope is not None:
            q, k = rotate(q, rope[0]), rotate(k, rope[1])
        if cache is not None:
            cache, mask = extend(cache, k, v)
            k, v = cache.keys, cache.values
        return self._mix(q, k, v, mask, noise), cache

    def read(self, source: Array, noise: Noise | None = None) -> tuple[Array, Array]:
        """Keys and values [..., S, H, d] of `source` [..., S, D], without positions."""
        return (
            self.split(self.key(source, at(noise, 1))),
            self.split(self.value(source, at(noise, 2))),
        )

    def look(self, x: Array, memory: tuple[Array, Array], noise: Noise | None = None) -> Array:
        """Attend from `x` [..., T, D] to all that was `read`, without positions: [..., T, D]."""
        return self._mix(self.split(self.query(x, at(noise, 0))), *memory, None, noise)

    def _mix(self, q: Array, k: Array, v: Array, mask: Array | None, noise: Noise | None) -> Array:
        mixed = attend(q, k, v, mask, at(noise, 3))
        return self.output(mixed.reshape(*q.shape[:-2], -1), at(noise, 4))


def following(cache: Cache, h: Array) -> Array:
    """The positions int32 [T] of `h` [B, T, D] behind those that were read."""
    return cache.length + jnp.arange(h.shape[1])


def extend(cache: Cache, k: Array, v: Array) -> tuple[Cache, Array]:
    """Append k, v [B, T, H, d]; returns the cache and the causal mask [T, S] of the new queries."""
    zero = jnp.zeros((), jnp.int32)
    start = (zero, cache.length, zero, zero)
    keys = jax.lax.dynamic_update_slice(cache.keys, k.astype(cache.keys.dtype), start)
    values = jax.lax.dynamic_update_slice(cache.values, v.astype(cache.values.dtype), start)
    position = cache.length + jnp.arange(k.shape[1])
    mask = jnp.arange(keys.shape[1])[None, :] <= position[:, None]
    return Cache(keys, values, cache.length + k.shape[1]), mask


Queries = int | Array | None
"""Which of T positions: the first so many, those of an index int32 [..., Q], or all."""


def chosen(x: Array, queries: Queries) -> Array:
    """Those positions of `x` [..., T, D]."""
    if queries is None or isinstance(queries, int):
        return x[..., :queries, :]
    return jnp.take_along_axis(x, queries[..., None], axis=-2)


class Layer(nnx.Module):
    """Attention and a feed-forward part, each followed by its residual and LayerNorm.

    remat: compute it anew in the backward pass, which needs its input alone.
    """

    remat = False

    def __init__(
        self,
        width: int,
        heads: int,
        ffn: int,
        *,
        kernel_init: Initializer = NORMAL,
        rngs: nnx.Rngs,
    ):
        self.attention = Attention(width, heads, kernel_init=kernel_init, rngs=rngs)
        self.attention_norm = layer_norm(width, rngs)
        self.up = Linear(width, ffn, ("embed", "mlp"), kernel_init=kernel_init, rngs=rngs)
        self.down = Linear(ffn, width, ("mlp", "embed"), kernel_init=kernel_init, rngs=rngs)
        self.norm = layer_norm(width, rngs)

    def __call__(
        self,
        h: Array,
        rope: Array | None,
        mask: Array | None = None,
        cache: Cache | None = None,
        *,
        attn_in: Array | None = None,
        attn_out: Array | None = None,
        queries: Queries = None,
        noise: Noise | None = None,
    ) -> tuple[Array, Cache | None]:
        """One layer on `h` [..., T, D]; returns (the layer's output, the extended cache).

        rope: rows of the position table [..., T, d]. mask: bool [..., T, T], True where a query
        may look; with a cache, attention is causal and no mask is taken.
        attn_in: added to what q, k and v are made from, not to the residual.
        attn_out: added to the attention's output, before its residual and LayerNorm.
        queries: compute only these positions, [..., Q, D].
        """
        compute: Callable = functools.partial(self._compute, queries=queries)
        compute = jax.checkpoint(compute) if self.remat else compute
        return compute(h, rope, mask, cache, attn_in, attn_out, noise)

    def _compute(
        self,
        h: Array,
        rope: Array | None,
        mask: Array | None,
        cache: Cache | None,
        attn_in: Array | None,
        attn_out: Array | None,
        noise: Noise | None,
        *,
        queries: Queries,
    ) -> tuple[Array, Cache | None]:
        source = h if attn_in is None else h + attn_in
        x = chosen(source, queries)
        turn = None if rope is None else (chosen(rope, queries), rope)
        mask = None if mask is None else chosen(mask, queries)
        mixed, cache = self.attention(
            x, source, rope=turn, mask=mask, cache=cache, noise=at(noise, 0)
        )
        if attn_out is not None:
            mixed = mixed + attn_out
        h = self.attention_norm(chosen(h, queries) + dropout(mixed, at(noise, 1)))
        return self.feed_forward(h, at(noise, 2)), cache

    def feed_forward(self, h: Array, noise: Noise | None = None) -> Array:
        """The second part, on `h` [..., T, D]."""
        inner = jax.nn.gelu(self.up(h), approximate=False)
        return self.norm(h + dropout(self.down(inner), noise))


class Stack(nnx.Module):
    """Layers that share a position table. No input map, no input or final LayerNorm.

    kind: the class of its layers.
    """

    def __init__(
        self,
        layers: int,
        width: int,
        heads: int,
        ffn: int,
        positions: int,
        *,
        kind: type[Layer] = Layer,
        kernel_init: Initializer = NORMAL,
        rngs: nnx.Rngs,
    ):
        self.heads = heads
        self.positions = PositionTable(jnp.asarray(sinusoids(positions, width // heads)))
        layer = functools.partial(kind, width, heads, ffn, kernel_init=kernel_init, rngs=rngs)
        self.layers = nnx.List([layer() for _ in range(layers)])

    def rope(self, positions: Array | slice) -> Array:
        """Rows of the position table, float32 [*positions, d]."""
        return self.positions[...][positions]

    def reset_positions(self) -> None:
        """Make the position table true sines, whatever it held."""
        self.positions[...] = jnp.asarray(sinusoids(*self.positions.shape))

    def __call__(
        self,
        h: Array,
        rope: Array,
        mask: Array | None = None,
        *,
        queries: Queries = None,
        noise: Noise | None = None,
    ) -> Array:
        """All layers on `h` [..., T, D]; the last one only for `queries`."""
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            only = queries if i == last else None
            h, _ = layer(h, rope, mask, queries=only, noise=at(noise, i))
        return h

    def caches(self, batch: int, length: int, dtype: jnp.dtype) -> list[Cache]:
        """Empty caches of `length` positions, one a layer."""
        width = self.layers[0].attention.query.in_features
        shape = (batch, length, self.heads, width // self.heads)
        zero = jnp.zeros((), jnp.int32)
        return [Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), zero) for _ in self.layers]

    def advance(
        self, h: Array, caches: list[Cache], rope: Array | None = None
    ) -> tuple[Array, list[Cache]]:
        """The next positions `h` [B, T, D] through all layers, with what the caches hold.

        rope: their rows of the position table [T, d]; by default those that follow the caches.
        """
        if rope is None:
            rope = self.rope(following(caches[0], h))
        extended = []
        for layer, cache in zip(self.layers, caches, strict=True):
            h, cache = layer(h, rope, cache=cache)
            extended.append(cache)
        return h, extended


def causal(length: int) -> Array:
    """Lower-triangular mask, bool [length, length]."""
    return jnp.tril(jnp.ones((length, length), bool))
