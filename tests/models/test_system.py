"""The packed loss against a direct computation: every row read, every step written, by itself."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m4m_jax.models.parameters import by_name
from m4m_jax.models.roformer import causal
from m4m_jax.models.system import System
from m4m_jax.music.simunote import PLAIN
from m4m_jax.training.state import split
from tests.models.conftest import random_rows
from tests.models.small import CONFIG, in_double, packed, small_cross, small_lm, small_system

pytestmark = pytest.mark.usefixtures("quick_compile")

ONE_LAYER = dataclasses.replace(CONFIG, width=16, layers=1, ffn=24, local_ffn=24)


def direct_loss(system: System, target: jax.Array, reference: jax.Array | None) -> jax.Array:
    """The loss of token rows [B, T, 2N] without packing, table of rows, or chunks."""
    lm, read = system.lm, None
    if reference is not None:
        read = system.prepare(lm.encode(reference), reference.shape[-1])
    states = system.target_states(lm.encode(target), read)  # [B, T, D]
    before = lm.embedding(target[..., :-1])
    h = jnp.concatenate([states[..., None, :], before], axis=-2)  # [B, T, 2N, D]
    width = target.shape[-1]
    h = lm.local_decoder(h, lm.local_decoder.rope(slice(width)), causal(width))
    share = jax.nn.log_softmax(lm.head(h))
    nll = -jnp.take_along_axis(share, target[..., None], axis=-1)[..., 0]
    return jnp.where(target != PLAIN.pad, nll, 0).sum()


@pytest.mark.parametrize("encoder", ["reference", "masked"])
@pytest.mark.parametrize("kind", ["lm", "cross", "self", "coco-mulla", "seq2seq"])
def test_packing_changes_neither_loss_nor_gradients(encoder, kind):
    config = dataclasses.replace(ONE_LAYER, encoder=encoder)
    target = random_rows(3, 4, 10, 3)
    reference = None if kind == "lm" else random_rows(4, 4, 10, 3)
    with jax.enable_x64(True):
        system = small_lm(0, config) if kind == "lm" else small_system(kind, 0, config)
        graph, trained, rest = split(in_double(system))

        def check(loss):
            return jax.jit(jax.value_and_grad(lambda p: loss(nnx.merge(graph, p, rest))))(trained)

        want, slow = check(lambda s: direct_loss(s, target, reference))
        slow = by_name(slow)
        whole = np.sqrt(sum(np.sum(np.square(g)) for g in slow.values()))
        masked = encoder == "masked"
        for shards, read in [(2, masked), *([(1, False)] if masked and kind == "cross" else [])]:
            batch = packed(target, reference, shards, masked=read)
            got, fast = check(lambda s, b=batch: s.loss(b)[0])
            assert got.dtype == jnp.float64
            assert float(got) == pytest.approx(float(want), rel=1e-12)
            for name, g in by_name(fast).items():
                assert np.linalg.norm(g - slow[name]) < 1e-9 * whole, name


def test_number_of_tokens_is_that_of_real_target_tokens():
    target, reference = random_rows(5, 4, 10, 3), random_rows(6, 4, 10, 3)
    system = small_cross(config=ONE_LAYER)
    tokens = nnx.jit(lambda s, b: s.loss(b)[1])(system, packed(target, reference, 2))
    assert int(tokens) == (target != PLAIN.pad).sum()
