from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m4m_jax.models.nll import CHUNK, nll_sum, token_nll

pytestmark = pytest.mark.usefixtures("quick_compile")

S, P, D, V = 2, 4, 5, 11


def example(blocks: int, dtype=jnp.float32, seed: int = 0):
    rng = np.random.default_rng(seed)
    h = jnp.asarray(rng.normal(size=(S, blocks, P, D)), dtype)
    kernel, bias = (jnp.asarray(rng.normal(size=s), dtype) for s in ((D, V), (V,)))
    tokens = jnp.asarray(rng.integers(0, V, (S, blocks, P)), jnp.int32)
    weight = jnp.asarray(rng.integers(0, 2, (S, blocks, P)), jnp.float32)
    return h, kernel, bias, tokens, weight


def plain(h, kernel, bias, tokens, weight):
    logits = (h @ kernel + bias).astype(jnp.promote_types(h.dtype, jnp.float32))
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], -1)[..., 0]
    return -(chosen * weight).sum()


def close(got, want, tolerance=2e-5):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_token_nll_is_the_log_softmax_of_the_token():
    logits = jnp.asarray(np.random.default_rng(0).normal(0, 30, (7, V)), jnp.float32)
    tokens = jnp.arange(7)
    want = -jax.nn.log_softmax(logits)[jnp.arange(7), tokens]
    close(token_nll(logits, tokens), want)
    assert token_nll(logits.astype(jnp.bfloat16), tokens).dtype == jnp.float32


@pytest.mark.parametrize("blocks", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
def test_value_and_gradients_are_those_of_the_plain_sum(blocks):
    h, kernel, bias, tokens, weight = example(blocks)

    def of(fn):
        def scaled(h, kernel, bias):
            return 0.7 * fn(h, kernel, bias, tokens, weight)

        return jax.jit(jax.value_and_grad(scaled, (0, 1, 2)))(h, kernel, bias)

    close(of(nll_sum), of(plain), 1e-4)
    assert abs(float(nll_sum(h, kernel, bias, tokens, weight)) - float(
        (token_nll(h @ kernel + bias, tokens) * weight).sum())) < 1e-3  # fmt: skip


def test_a_frozen_output_layer():
    h, kernel, bias, tokens, weight = example(CHUNK + 1)

    def of(fn):
        return jax.jit(jax.grad(lambda x: fn(x, kernel, bias, tokens, weight)))(h)

    close(of(nll_sum), of(plain))


def test_only_the_output_layer():
    h, kernel, bias, tokens, weight = example(3)

    def of(fn):
        return jax.grad(lambda k, b: fn(h, k, b, tokens, weight), (0, 1))(kernel, bias)

    close(of(nll_sum), of(plain))


def test_under_vmap_over_states_and_over_heads():
    examples = [example(CHUNK + 2, seed=s) for s in range(3)]
    h, kernel, bias, tokens, weight = (jnp.stack(x) for x in zip(*examples, strict=True))

    def of(fn, *axes):
        grad = jax.value_and_grad(lambda h, k, b, t, w: fn(h, k, b, t, w), (0, 1, 2))
        return jax.jit(jax.vmap(grad, axes))

    close(
        of(nll_sum, 0, 0, 0, 0, 0)(h, kernel, bias, tokens, weight),
        of(plain, 0, 0, 0, 0, 0)(h, kernel, bias, tokens, weight),
        1e-4,
    )
    # One batch for all, as in a population of adapters, and one frozen head.
    shared = (kernel[0], bias[0], tokens[0], weight[0])
    frozen = [jax.vmap(jax.grad(lambda x, fn=fn: fn(x, *shared)))(h) for fn in (nll_sum, plain)]
    close(*frozen)


def test_inside_a_scan():
    h, kernel, bias, tokens, weight = example(5)

    def of(fn):
        def part(total, x):
            return total + fn(x[0][None], kernel, bias, x[1][None], x[2][None]), None

        def whole(h):
            return jax.lax.scan(part, jnp.float32(0), (h, tokens, weight))[0]

        return jax.grad(whole)(h)

    close(of(nll_sum), of(plain))


def test_bfloat16_stays_near():
    args = example(2 * CHUNK, jnp.bfloat16)
    wide = [x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x for x in args]
    got = jax.jit(jax.value_and_grad(nll_sum, (0, 1, 2)))(*args)
    want = jax.value_and_grad(plain, (0, 1, 2))(*wide)
    assert got[0].dtype == jnp.float32
    assert abs(float(got[0] / want[0]) - 1) < 0.01
    for a, b in zip(got[1], want[1], strict=True):
        assert a.dtype == jnp.bfloat16
        assert jnp.linalg.norm(a.astype(jnp.float32) - b) < 0.02 * jnp.linalg.norm(b)


def test_what_chunks_add_to_the_gradient_of_the_output_layer_is_not_rounded():
    """Logits of 0 over 8 tokens have gradients that bfloat16 holds, so only sums can differ."""
    h, _, _, tokens, weight = example(64 * CHUNK, jnp.bfloat16)
    head = [jnp.zeros(shape, jnp.bfloat16) for shape in ((D, 8), (8,))]
    wide = [x.astype(jnp.float32) for x in (h, *head)]
    gradient = jax.jit(jax.grad(nll_sum, (1, 2)))
    got, want = (gradient(*x, tokens % 8, weight) for x in ((h, *head), wide))
    for a, b in zip(got, want, strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=2**-8)
