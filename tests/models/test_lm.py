from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m4m_jax.errors import M4MError
from m4m_jax.models.lm import LM, PRESETS, LMConfig, preset
from m4m_jax.models.noise import Noise
from m4m_jax.models.parameters import cast, count
from m4m_jax.music.simunote import PLAIN, VELOCITY
from tests.models.conftest import random_rows
from tests.models.small import CONFIG, batch_of, small_cross, small_lm, small_system

pytestmark = pytest.mark.usefixtures("quick_compile")

MASKED = dataclasses.replace(CONFIG, encoder="masked")


def widened(rows: np.ndarray, max_notes: int) -> np.ndarray:
    """The same notes in rows of a larger N."""
    out = np.full((*rows.shape[:-1], 2 * max_notes), PLAIN.pad, np.int32)
    out[..., : rows.shape[-1]] = rows
    full = (rows != PLAIN.pad).all(axis=-1)
    out[full, rows.shape[-1]] = PLAIN.eos
    return out


def embeddings(config: LMConfig, rows: np.ndarray) -> np.ndarray:
    return np.asarray(nnx.jit(lambda m, r: m.encode(r))(small_lm(0, config), jnp.asarray(rows)))


def test_masked_encoder_reads_rows_of_any_size_alike():
    rows = random_rows(0, 2, 8, 4)
    rows = rows[(rows == PLAIN.eos).any(axis=-1)]  # a full row has no EOS, so a wider one differs
    near, wide = (embeddings(MASKED, r) for r in (rows, widened(rows, 9)))
    np.testing.assert_allclose(near, wide, atol=1e-5)


def test_reference_encoder_depends_on_how_many_pads_there_are():
    rows = random_rows(0, 2, 8, 4)
    rows = rows[(rows == PLAIN.eos).any(axis=-1)]
    near, wide = (embeddings(CONFIG, r) for r in (rows, widened(rows, 9)))
    assert (np.abs(near - wide).max(axis=-1) > 1e-3).all()


@pytest.mark.parametrize("config", [CONFIG, MASKED])
def test_embeddings_tell_rows_apart(config):
    found = embeddings(config, np.unique(random_rows(1, 2, 10, 4).reshape(-1, 8), axis=0))
    gap = np.abs(found[:, None] - found[None]).max(axis=-1) + np.eye(len(found))
    assert gap.min() > 1e-3


def test_state_has_read_the_steps_before():
    lm, steps = small_lm(), jax.random.normal(jax.random.key(0), (2, 7, 32))
    run = jax.jit(lm.states)
    states = run(steps)
    for t in range(7):
        changed = run(steps.at[:, t].add(jnp.sin(jnp.arange(32.0))))
        gap = jnp.abs(changed - states).max(axis=(0, 2))
        assert not gap[: t + 1].any()
        assert (gap[t + 1 :] > 1e-5).all()


@pytest.mark.parametrize(
    ("size", "parameters"), [("1", 111_847_939), ("tiny", None), ("0", None), ("2", None)]
)
def test_number_of_parameters(size, parameters):
    lm = nnx.eval_shape(lambda: LM(preset(size), rngs=nnx.Rngs(0)))
    found = count(nnx.state(lm))
    c = lm.config

    def stack(layers, ffn, heads):
        layer = 4 * c.width * (c.width + 1) + 2 * c.width * ffn + ffn + c.width + 4 * c.width
        return layers * layer + c.positions * (c.width // heads)

    local = 2 * stack(c.local_layers, c.local_ffn, c.local_heads)
    ends = c.width + 2 * PLAIN.size * c.width + PLAIN.size
    assert found == local + stack(c.layers, c.ffn, c.heads) + ends
    assert parameters in (None, found)


def test_every_array_of_a_large_model_has_logical_axes():
    lm = nnx.eval_shape(lambda: LM(preset("3"), rngs=nnx.Rngs(0)))
    for path, variable in nnx.to_flat_state(nnx.state(lm, nnx.Param)):
        axes = variable.get_metadata()["axes"]
        assert len(axes) == len(variable.shape), path


def test_velocity_vocabulary():
    lm = LM(dataclasses.replace(CONFIG, vocabulary="velocity"), rngs=nnx.Rngs(0))
    assert lm.vocabulary is VELOCITY
    assert lm.head.out_features == lm.embedding.num_embeddings == VELOCITY.size


def test_presets_and_their_mistakes():
    assert preset("tiny", encoder="masked").encoder == "masked"
    assert set(PRESETS) == {"tiny", "mini", "0", "1", "2", "3"}
    with pytest.raises(M4MError, match="no model size 'huge'; sizes are tiny, mini, 0, 1, 2, 3"):
        preset("huge")
    with pytest.raises(M4MError, match="'other' is not one of reference, masked"):
        preset("tiny", encoder="other")
    with pytest.raises(M4MError, match="width 30 does not divide into 4 heads of even size"):
        LMConfig(30, 1, 4, 10, local_heads=3)


def test_nll_sums_to_the_loss():
    lm, batch = small_lm(), batch_of(linked=False)
    loss, tokens = nnx.jit(lambda m, b: m.loss(b))(lm, batch)
    nll = nnx.jit(lambda m, b: m.packed_nll(b))(lm, batch)
    assert float(nll.sum()) == pytest.approx(float(loss), rel=1e-5)
    assert int(tokens) == (batch.step >= 0).sum()
    assert not nll[batch.step < 0].any()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_arithmetic_is_in_the_precision_of_the_parameters(dtype):
    linked = (small_system(name) for name in ("self", "coco-mulla", "seq2seq"))
    for system in (small_lm(), small_cross(), *linked):
        graph, state = nnx.split(system)
        system = nnx.merge(graph, cast(state, dtype))
        noise = Noise(jax.random.key(0), 0.1, 0.1, 0.1)

        def shapes(system, batch, noise):
            return system.lm.encode(batch.rows), system.packed_states(batch, noise)

        found = nnx.eval_shape(shapes, system, batch_of(), noise)
        assert {x.dtype for x in found} == {jnp.dtype(dtype)}

        def first_state(system, batch):
            reference = system.lm.encode(batch.rows[0][batch.reference[0]])
            return system.start(system.prepare(reference, 8), 2, 4)[0]

        assert nnx.eval_shape(first_state, system, batch_of()).dtype == dtype
