from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m4m_jax.models.lm import same
from m4m_jax.models.noise import Noise
from m4m_jax.models.roformer import (
    PositionTable,
    Stack,
    attend,
    attend_fused,
    causal,
    fused,
    rotate,
    sinusoids,
)
from tests.models.small import filled

pytestmark = pytest.mark.usefixtures("quick_compile")

B, T, D = 2, 9, 32


def close(got, want, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def stack() -> Stack:
    return filled(nnx.eval_shape(lambda: Stack(3, D, 2, 48, 64, rngs=nnx.Rngs(0))), 0)


def hidden(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape or (B, T, D))


def test_the_table_is_sines_then_cosines():
    table = sinusoids(50, 8)
    for position in (0, 1, 49):
        for i in range(4):
            angle = position / 10000 ** (2 * i / 8)
            assert table[position, i] == pytest.approx(np.sin(angle), abs=1e-6)
            assert table[position, 4 + i] == pytest.approx(np.cos(angle), abs=1e-6)


def test_rotation_turns_adjacent_pairs_and_sees_only_distance():
    table = jnp.asarray(sinusoids(30, 4))
    x = jnp.zeros((1, 1, 4)).at[..., 2].set(1.0)
    angle = 7 / 10000**0.5
    close(rotate(x, table[7:8])[0, 0], [0, 0, np.cos(angle), np.sin(angle)])
    q, k = hidden(0, 1, 1, 4), hidden(1, 1, 1, 4)

    def product(a: int, b: int) -> float:
        return float((rotate(q, table[a : a + 1]) * rotate(k, table[b : b + 1])).sum())

    assert product(12, 5) == pytest.approx(product(20, 13), abs=1e-5)
    assert product(12, 5) != pytest.approx(product(12, 6), abs=1e-3)


@pytest.mark.parametrize("pieces", [[1] * T, [4, 1, 4], [T]])
def test_the_cache_gives_the_full_pass(stack, pieces):
    h = hidden(0)
    want = stack(h, stack.rope(slice(T)), causal(T))
    # The cache is longer than what is read, and starts with zeros that must not count.
    caches, found = stack.caches(B, T + 5, h.dtype), []
    for part in jnp.split(h, np.cumsum(pieces)[:-1], axis=1):
        out, caches = jax.jit(stack.advance)(part, caches)
        found.append(out)
    close(jnp.concatenate(found, axis=1), want)
    assert all(int(cache.length) == T for cache in caches)


@pytest.mark.parametrize("queries", [1, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_queries_slice_the_full_result(stack, queries, masked):
    h, rope = hidden(1), stack.rope(slice(T))
    mask = jnp.broadcast_to(jnp.arange(T) < T - 2, (B, 1, T)) if masked else None
    want = stack(h, rope, mask)[:, :queries]
    close(stack(h, rope, mask, queries=queries), want)


def test_attn_in_feeds_the_projections_and_not_the_residual(stack):
    layer, rope, mask = stack.layers[1], stack.rope(slice(T)), causal(T)
    h, added = hidden(2), hidden(3)
    got, _ = layer(h, rope, mask, attn_in=added)
    mixed, _ = layer.attention(h + added, h + added, rope=(rope, rope), mask=mask)
    x = layer.attention_norm(h + mixed)
    want = layer.norm(x + layer.down(jax.nn.gelu(layer.up(x), approximate=False)))
    close(got, want)
    # The added part counts for keys and values too: a change of an earlier step is seen later.
    other, _ = layer(h, rope, mask, attn_in=added.at[:, 0].add(jnp.sin(jnp.arange(32.0))))
    assert (jnp.abs(other - got).max(axis=(0, 2)) > 1e-4).all()


def test_attn_out_is_added_before_residual_and_norm(stack):
    layer, rope, mask = stack.layers[1], stack.rope(slice(T)), causal(T)
    h, added = hidden(4), hidden(5)
    got, _ = layer(h, rope, mask, attn_out=added)
    mixed, _ = layer.attention(h, h, rope=(rope, rope), mask=mask)
    x = layer.attention_norm(h + mixed + added)
    want = layer.norm(x + layer.down(jax.nn.gelu(layer.up(x), approximate=False)))
    close(got, want)
    # Position by position: what is added at one step changes no other.
    other, _ = layer(h, rope, mask, attn_out=added.at[:, 3].add(jnp.sin(jnp.arange(32.0))))
    changed = np.flatnonzero(jnp.abs(other - got).max(axis=(0, 2)) > 1e-6)
    assert changed.tolist() == [3]


def test_openings_work_with_a_cache(stack):
    layer = stack.layers[0]
    h, inward, outward = hidden(6), hidden(7), hidden(8)
    rope = stack.rope(slice(T))
    want, _ = layer(h, rope, causal(T), attn_in=inward, attn_out=outward)
    cache, found = stack.caches(B, T, h.dtype)[0], []
    for t in range(T):
        one = slice(t, t + 1)
        out, cache = layer(
            h[:, one], rope[one], cache=cache, attn_in=inward[:, one], attn_out=outward[:, one]
        )
        found.append(out)
    close(jnp.concatenate(found, axis=1), want)


def test_later_positions_are_not_read(stack):
    h, rope = hidden(9), stack.rope(slice(T))
    changed = h.at[:, 5].add(jnp.sin(jnp.arange(32.0)))
    gap = jnp.abs(stack(h, rope, causal(T)) - stack(changed, rope, causal(T))).max(axis=(0, 2))
    assert not gap[:5].any()
    assert (gap[5:] > 1e-4).all()


def test_scores_are_finite_in_bfloat16(stack):
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), nnx.split(stack)[1])
    narrow = nnx.merge(nnx.split(stack)[0], half)
    h = hidden(10).astype(jnp.bfloat16)
    rope = stack.rope(slice(T))
    got = narrow(h, rope, causal(T))
    assert got.dtype == jnp.bfloat16
    close(got.astype(jnp.float32), stack(hidden(10), rope, causal(T)), 0.3)


@pytest.fixture(
    params=["one mask", "a mask each", "one memory for all", "a memory and a mask each"]
)
def attended(request):
    """Queries, keys, values, a mask, and a gradient."""
    q, k, v, g = (hidden(i, 2, 3, 128, 2, 64) for i in range(4))
    segment = jnp.arange(128) // jnp.array([[[128]], [[32]]])
    each = same(jnp.broadcast_to(segment, (2, 3, 128))) & causal(128)
    if request.param.startswith("one memory"):
        return q, k[:1], v[:1], None, g
    masks = {"one mask": causal(128), "a mask each": each}
    return q, k, v, masks.get(request.param, each[:, :1]), g


def test_attention_with_one_batch_axis_is_the_plain_one(attended):
    *given, mask, g = attended
    want, back = jax.vjp(partial(attend, mask=mask, noise=None), *given)
    got, other = jax.vjp(partial(attend_fused, mask=mask, implementation="xla"), *given)
    close(got, want)
    jax.tree.map(close, other(g), back(g))


def test_half_precision_attention_is_close_to_full(attended):
    """On a GPU, the fused attention of its library to the plain one."""
    q, k, v, mask, g = attended

    def check(dtype):
        half = [x.astype(dtype) for x in (q, k, v)]
        assert fused(half[0], half[1]) == (jax.default_backend() == "gpu" and dtype != "float32")
        out, back = jax.vjp(lambda *x: attend(*x, mask, None), *half)
        return out, *back(g.astype(dtype))

    for got, want in zip(check("bfloat16"), check("float32"), strict=True):
        error = jnp.linalg.norm(got.astype("float32") - want) / jnp.linalg.norm(want)
        assert error < 0.01


def test_noise_changes_every_layer_alike_reproducibly(stack):
    h, rope = hidden(11), stack.rope(slice(T))
    noise = Noise(jax.random.key(0), 0.5)
    run = jax.jit(lambda n: stack(h, rope, causal(T), noise=n))
    assert jnp.array_equal(run(noise), run(noise))
    assert not jnp.array_equal(run(noise), run(noise.fold(1)))
    close(run(noise._replace(rate=0.0)), stack(h, rope, causal(T)))


def test_reset_positions():
    stack = Stack(1, D, 2, 48, 20, rngs=nnx.Rngs(0))
    stack.positions[...] = jnp.ones_like(stack.positions[...])
    stack.reset_positions()
    assert jnp.array_equal(stack.positions[...], sinusoids(20, D // 2))
    assert isinstance(stack.positions, PositionTable)
