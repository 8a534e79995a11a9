"""The cross-attentive adapter and its low-rank updates."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m4m_jax.models.adapter import AdapterParam
from m4m_jax.models.cross import CrossAdapter, CrossConfig, near_sighted, step_table
from m4m_jax.models.lm import LM, preset
from m4m_jax.models.lora import LoRAConfig, attach_lora
from m4m_jax.models.noise import Noise
from m4m_jax.models.parameters import by_name, count
from m4m_jax.models.roformer import sinusoids
from m4m_jax.music.simunote import PLAIN
from tests.models.conftest import random_rows
from tests.models.small import (
    CONFIG,
    LINKS,
    batch_of,
    loss_and_gradients,
    packed,
    small_cross,
    small_lm,
    token_nlls,
)

pytestmark = pytest.mark.usefixtures("quick_compile")

# Noise with all rates at 0: the program is that of training, the numbers those of evaluation.
STILL = Noise(jax.random.key(0), 0.0, 0.0, 0.0)


def test_a_new_adapter_changes_nothing():
    batch = batch_of(2)
    want = token_nlls(small_lm(), batch._replace(reference=None))
    np.testing.assert_allclose(token_nlls(small_cross(new=True), batch), want, atol=2e-5)
    assert np.abs(token_nlls(small_cross(), batch) - want).max() > 0.05


def test_whitened_links_hear_all_directions_alike():
    batch, system = batch_of(2), small_cross(new=True)
    want = token_nlls(system, batch)
    reference = system.lm.encode(random_rows(0, 8, 64, 8))

    def spread() -> list[np.ndarray]:
        heard = [
            link.value(h) for link, h in zip(system.links, system.heard(reference), strict=False)
        ]
        return [np.linalg.eigvalsh(np.cov(x.reshape(-1, x.shape[-1]).T)) for x in heard]

    before = spread()
    system.whiten(reference)
    for was, now in zip(before, spread(), strict=True):
        assert was[-1] > 10 * was[0]
        assert 0.9 < now[-1] < 1.1
        assert now[0] > 0.3
    # A new adapter still changes nothing.
    np.testing.assert_allclose(token_nlls(system, batch), want, atol=2e-5)


@pytest.mark.parametrize(
    ("heads", "reach"), [(1, [2]), (2, [2, 8]), (4, [2, 2, 8, 32]), (6, [2, 2, 2, 8, 32, 32])]
)
def test_heads_of_a_new_link_look_around_their_own_step_each_at_its_distance(heads, reach):
    steps, width, inner = 384, 512, 128 * heads
    kernel = near_sighted(jax.random.key(0), (width, inner), heads=heads)
    place = (step_table(steps, width) @ np.asarray(kernel)).reshape(steps, heads, -1)
    scores = np.einsum("qhd,khd->hqk", place[[192]], place) / np.sqrt(128)
    weights = np.asarray(jax.nn.softmax(scores, axis=-1))[:, 0]  # [H, steps]
    for head, most in zip(weights, reach, strict=True):
        assert head[192 - most : 193 + most].sum() > 0.8
        assert head[192 - most // 3 : 193 + most // 3].sum() < 0.6


def test_the_position_table_becomes_sines():
    lm = small_lm()
    for stack in lm.stacks:
        stack.positions[...] = jnp.ones_like(stack.positions[...])
    system = CrossAdapter(lm, LINKS, rngs=nnx.Rngs(0))
    assert jnp.array_equal(system.lm.decoder.positions[...], sinusoids(1536, 16))
    assert (system.lm.encoder.positions[...] == 1).all()
    assert (system.lm.local_decoder.positions[...] == 1).all()


def test_low_rank_update_is_alpha_over_rank_of_b_a_x():
    lm, x = small_lm(), jax.random.normal(jax.random.key(0), (3, 32))
    before = lm.decoder.layers[0].attention.query(x)
    attach_lora(lm.stacks, LoRAConfig(rank=4, alpha=10.0), rngs=nnx.Rngs(1))
    query = lm.decoder.layers[0].attention.query
    np.testing.assert_array_equal(query(x), before)
    assert np.abs(query.lora.a[...]).max() <= 1 / np.sqrt(32)
    assert np.abs(query.lora.a[...]).max() > 0.9 / np.sqrt(32)
    query.lora.b[...] = jax.random.normal(jax.random.key(2), (4, 32))
    want = before + (10.0 / 4) * (x @ query.lora.a[...] @ query.lora.b[...])
    np.testing.assert_allclose(query(x), want, atol=2e-5)


@pytest.mark.parametrize("targets", [("query", "value"), ("key",), ("query", "key", "output")])
def test_low_rank_updates_stand_where_they_are_asked_for(targets):
    lm = small_lm()
    attach_lora(lm.stacks, LoRAConfig(2, 4.0, targets), rngs=nnx.Rngs(0))
    found = set()
    for stack in lm.stacks:
        for layer in stack.layers:
            for name in ("query", "key", "value", "output"):
                if getattr(layer.attention, name).lora is not None:
                    found.add(name)
                else:
                    assert name not in targets
            assert layer.up.lora is None
            assert layer.down.lora is None
    assert found == set(targets)
    names = {name.split(".")[-1] for name in by_name(nnx.state(lm, AdapterParam))}
    assert names == {"a", "b"}


def test_low_rank_dropout_has_its_own_rate():
    lm = small_lm()
    attach_lora(lm.stacks, LoRAConfig(2, 4.0), rngs=nnx.Rngs(0))
    query, x = lm.decoder.layers[0].attention.query, jnp.ones((50, 32))
    query.lora.b[...] = jnp.ones((2, 32))
    noise = Noise(jax.random.key(0), rate=0.9, lora_rate=0.0)
    np.testing.assert_array_equal(query(x, noise), query(x))
    assert np.abs(query(x, noise._replace(lora_rate=0.5)) - query(x)).max() > 0.1


def test_only_the_adapter_is_trained():
    system = small_cross()
    names = set(by_name(nnx.state(system, AdapterParam)))
    groups = {name.split(".")[0] for name in names}
    assert groups == {"base", "links", "masked_embedding"}
    assert all(".lora." in name for name in names if name.startswith("base."))
    per_link = {name.split(".", 2)[2] for name in names if name.startswith("links.")}
    assert per_link == {"gate"} | {
        f"{part}.{kind}"
        for part in ("query", "key", "value", "position", "output")
        for kind in ("kernel", "bias")
    }
    noise = Noise(jax.random.key(0), 0.1, 0.1, 0.3)
    _, grads = loss_and_gradients(system, batch_of(), noise)
    assert set(grads) == names
    zero = {name for name, g in grads.items() if not np.abs(g).max() > 0}
    # Softmax does not see what all keys have in common, but rounding leaves a trace of it.
    assert zero <= {name for name in names if name.endswith("key.bias")}


def test_a_closed_gate_lets_only_itself_learn():
    _, grads = loss_and_gradients(small_cross(new=True), batch_of(), STILL)
    for name, g in grads.items():
        moves = name.endswith((".gate", ".lora.b"))
        assert (np.abs(g).max() > 0) == moves, name


def test_frozen_language_model():
    links = dataclasses.replace(LINKS, lora=None)
    system = small_cross(links=links)
    assert not any("lora" in name for name in by_name(nnx.state(system)))
    # A frozen language model runs without dropout; with the links' own rate at 0 nothing is random.
    noise = Noise(jax.random.key(0), 0.5)
    assert system.lm_noise(noise) is None
    assert small_cross().lm_noise(noise) is noise
    for link in system.links:
        link.gate[...] = jnp.zeros(1)
    batch = batch_of()
    loss = nnx.jit(lambda s, n: s.loss(batch, n)[0])
    want = float(loss(system, STILL))
    assert float(loss(system, noise._replace(mask_rate=0.0))) == want


def test_span_masking_hides_target_steps_in_training_only():
    system, batch = small_cross(), batch_of(5)
    hidden = STILL._replace(mask_rate=0.5)

    def loss(noise: Noise) -> float:
        return loss_and_gradients(system, batch, noise)[0]

    assert loss(STILL) == pytest.approx(float(token_nlls(system, batch).sum()), rel=1e-5)
    before = loss(hidden)
    assert abs(before - loss(STILL)) > 1e-2
    assert not loss_and_gradients(system, batch, STILL)[1]["masked_embedding"].any()
    system.masked_embedding[...] = system.masked_embedding[...] + jnp.arange(32.0)
    assert loss(hidden) != before


@pytest.mark.parametrize(("every", "layers"), [(1, 2), (2, 2), (2, 3), (3, 2)])
def test_links_stand_at_every_so_many_layers(every, layers):
    config = dataclasses.replace(CONFIG, layers=layers)
    links = dataclasses.replace(LINKS, every=every)
    system = small_cross(config=config, links=links)
    feeding = [i for i in range(layers) if system.link_at(i) is not None]
    assert feeding == list(range(0, layers, every))
    assert len(system.links) == len(feeding)
    shape = nnx.eval_shape(lambda s, b: s.packed_nll(b), system, batch_of()).shape
    assert shape == batch_of().step.shape


def test_the_last_reference_step_is_never_read():
    system = small_cross()
    target, reference = random_rows(1, 2, 12, 4), random_rows(2, 2, 12, 4)

    def nll(reference):
        return np.asarray(token_nlls(system, packed(target, reference)))

    want = nll(reference)
    other = np.array([7, 200, 9, 300, PLAIN.eos, *[PLAIN.pad] * 3], np.int32)
    for step in (0, 5, 10, 11):
        changed = reference.copy()
        changed[:, step] = other
        gap = np.abs(nll(changed) - want).max()
        assert (gap < 2e-5) == (step == 11), step


def test_every_target_step_reads_every_reference_step():
    system = small_cross()
    target, reference = jax.random.normal(jax.random.key(0), (2, 1, 8, 32))
    states = jax.jit(system.target_states)
    want = states(target, reference)
    for step in range(7):
        gap = jnp.abs(
            states(target, reference.at[:, step].add(jnp.sin(jnp.arange(32.0)))) - want
        ).max(axis=(0, 2))
        assert (gap > 1e-6).all()


def test_target_states_have_read_the_steps_before():
    system = small_cross()
    target, reference = jax.random.normal(jax.random.key(1), (2, 1, 8, 32))
    states = jax.jit(system.target_states)
    want = states(target, reference)
    for step in range(8):
        gap = jnp.abs(
            states(target.at[:, step].add(jnp.sin(jnp.arange(32.0))), reference) - want
        ).max(axis=(0, 2))
        assert not gap[: step + 1].any()
        assert (gap[step + 1 :] > 1e-6).all()


def test_step_table_alternates_sines_and_cosines():
    table = step_table(9, 6)
    for step in range(9):
        for i in range(3):
            angle = step / 10000 ** (2 * i / 6)
            want = [np.sin(angle), np.cos(angle)]
            np.testing.assert_allclose(table[step, 2 * i : 2 * i + 2], want, atol=1e-6)


def trainable(config: CrossConfig | None) -> int:
    system = nnx.eval_shape(
        lambda: CrossAdapter(LM(preset("1"), rngs=nnx.Rngs(0)), config, rngs=nnx.Rngs(0))
    )
    return count(nnx.state(system, AdapterParam))


def test_number_of_trained_parameters():
    assert trainable(None) == 6_794_502
    # Low-rank updates: 12 + 3 + 3 layers, two maps of two factors each.
    assert trainable(CrossConfig(lora=None)) == 6_794_502 - 18 * 2 * 2 * 16 * 768
