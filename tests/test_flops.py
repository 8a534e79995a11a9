"""Arithmetic counted from programs, against sums by hand and against the models' own count."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo
from jax.sharding import Mesh, PartitionSpec

from m4m_jax.bench import limits
from m4m_jax.data import pack
from m4m_jax.data.packing import Size
from m4m_jax.flops import matmul_flops
from m4m_jax.music.simunote import PLAIN
from m4m_jax.training.optim import Hyper, Schedule
from m4m_jax.training.state import init_state, split
from m4m_jax.training.step import make_step
from tests.models.conftest import random_rows
from tests.models.small import LINKS, small_cross

X, Y = jnp.ones((3, 5)), jnp.ones((5, 7))
ONE = 2 * 3 * 5 * 7


def total(x, y):
    return (x @ y).sum()


def scanned(x, y):
    return jax.lax.scan(lambda s, _: (s + x @ y, None), jnp.zeros((3, 7)), length=4)[0]


def either(x, y):
    return jax.lax.cond(x[0, 0] > 0, lambda: x @ y, lambda: x @ y + x @ y @ jnp.ones((7, 7)))


def on_devices(x, y):
    mesh, spec = Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec()
    return jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(spec, spec), out_specs=spec)(x, y)


@pytest.mark.parametrize(
    ("program", "flops"),
    [
        (lambda x, y: x + 1, 0),
        (lambda x, y: x @ y, ONE),
        (lambda x, y: jax.vmap(jnp.matmul, (0, None))(jnp.stack([x] * 6), y), 6 * ONE),
        (jax.jit(jax.checkpoint(jnp.matmul)), ONE),
        (scanned, 4 * ONE),
        (either, 2 * ONE + 2 * 3 * 7 * 7),
        (on_devices, ONE),
        (jax.value_and_grad(total), 2 * ONE),
        (jax.value_and_grad(total, argnums=(0, 1)), 3 * ONE),
    ],
)
def test_small_programs(program, flops):
    assert matmul_flops(jax.jit(program).trace(X, Y).jaxpr) == flops


def test_fused_attention(monkeypatch):
    """Traced as for a GPU, on any machine; the backward pass takes the scores once more."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda _: True)
    q, k = (jnp.zeros((2, length, 4, 64), jnp.bfloat16) for length in (128, 256))

    def attend(q, k, v):
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")

    product = 2 * 2 * 4 * 128 * 256 * 64
    traced = jax.jit(attend).trace(q, k, k)
    assert matmul_flops(traced.jaxpr) == 2 * product
    loss = jax.grad(lambda *args: attend(*args).astype(jnp.float32).sum(), argnums=(0, 1, 2))
    assert matmul_flops(jax.jit(loss).trace(q, k, k).jaxpr) == 7 * product


@pytest.mark.parametrize("parts", [1, 3])
def test_a_training_step_does_what_was_counted_for_it(parts):
    """Every part of a batch is counted, and every chunk of the loss."""
    target, reference = random_rows(0, 2, 24, 4), random_rows(1, 2, 24, 4)
    one = pack(target, reference, vocabulary=PLAIN, sizes=[Size(64, 32)])
    batch = jax.tree.map(lambda x: np.stack([x] * parts), one)
    system = small_cross()
    graph, params, base = split(system)
    step = jax.jit(make_step(graph, Schedule()))
    traced = step.trace(base, init_state(params), batch, Hyper(), jax.random.key(0))
    expected = parts * limits.step_operations(limits.packed(one), system.lm.config, LINKS)
    assert matmul_flops(traced.jaxpr) == pytest.approx(expected, rel=0.02)
