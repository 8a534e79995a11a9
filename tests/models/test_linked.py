"""What all systems that read a reference have in common, and what each has of its own."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m4m_jax.errors import M4MError
from m4m_jax.models.adapter import AdapterParam
from m4m_jax.models.card import build, skeleton
from m4m_jax.models.coco_mulla import CocoMulla
from m4m_jax.models.cross import CrossAdapter, CrossConfig
from m4m_jax.models.lm import LM, preset
from m4m_jax.models.noise import Noise
from m4m_jax.models.parameters import by_name, count
from m4m_jax.models.roformer import PositionTable
from m4m_jax.models.seq2seq import SIZES
from m4m_jax.models.system import System
from m4m_jax.music.simunote import PLAIN, VELOCITY
from m4m_jax.sampling.songs import fill
from tests.models.conftest import random_rows
from tests.models.small import (
    CONFIG,
    batch_of,
    loss_and_gradients,
    packed,
    small_card,
    small_lm,
    small_system,
    token_nlls,
)

pytestmark = pytest.mark.usefixtures("quick_compile")

OTHER = dataclasses.replace(CONFIG, width=48, layers=3, heads=3, ffn=40, local_heads=4)
STILL = Noise(jax.random.key(0), 0.0, 0.0, 0.0)
KINDS = {
    "cross": lambda: small_system("cross"),
    "pair": lambda: small_system("cross", 0, CONFIG, OTHER),
    "self": lambda: small_system("self"),
    "coco-mulla": lambda: small_system("coco-mulla"),
    "seq2seq": lambda: small_system("seq2seq"),
}


@pytest.fixture(params=KINDS)
def system(request) -> System:
    return KINDS[request.param]()


def hidden(system: System, heard: int, written: int, batch: int = 2) -> tuple[jax.Array, jax.Array]:
    """Step embeddings of references and targets."""
    one, two = jax.random.split(jax.random.key(3))
    width = system.reference_lm.config.width
    return (
        jax.random.normal(one, (batch, heard, width)),
        jax.random.normal(two, (batch, written, system.lm.config.width)),
    )


@nnx.jit
def states(system: System, reference: jax.Array, target: jax.Array) -> jax.Array:
    return system.target_states(target, system.prepare(reference, 8))


@nnx.jit(static_argnums=3)
def step_by_step(system: System, reference: jax.Array, target: jax.Array, steps: int) -> jax.Array:
    """Two steps at once, then one after the other."""
    state, carry = system.start(system.prepare(reference, 8), len(target), steps)
    found = [state[:, None]]
    for part in (slice(2), *(slice(k, k + 1) for k in range(2, target.shape[1] - 1))):
        read, carry = system.advance(carry, target[:, part])
        found.append(read)
    return jnp.concatenate(found, axis=1)


@pytest.mark.parametrize("heard", [6, 9])
def test_sampling_gives_the_states_of_the_whole_pass(system, heard):
    reference, target = hidden(system, heard, 7)
    got = step_by_step(system, reference, target, 10)
    np.testing.assert_allclose(got, states(system, reference, target), atol=2e-5)


def test_one_reference_serves_all_targets(system):
    reference, target = hidden(system, 6, 7)
    one = np.repeat(reference[:1], 2, axis=0)
    got = step_by_step(system, reference[:1], target, 10)
    np.testing.assert_allclose(got, step_by_step(system, one, target, 10), atol=2e-5)


def test_every_target_state_has_read_all_references_and_the_targets_before(system):
    reference, target = hidden(system, 6, 7, 1)
    want = states(system, reference, target)

    def gap(reference, target):
        return np.abs(states(system, reference, target) - want).max(axis=(0, 2))

    def bump(x, step):
        return x.at[:, step].add(jnp.sin(jnp.arange(float(x.shape[-1]))))

    shifted = isinstance(system, CrossAdapter)  # its last reference step is never read
    for step in range(6):
        moved = gap(bump(reference, step), target)
        assert (moved > 1e-6).all() != (shifted and step == 5)
    for step in range(7):
        moved = gap(reference, bump(target, step))
        assert not moved[: step + 1].any()
        assert (moved[step + 1 :] > 1e-6).all()


def test_what_is_trained_moves_and_the_rest_stays(system):
    names = set(by_name(nnx.state(system, system.trained)))
    adapter = set(by_name(nnx.state(system, AdapterParam)))
    everything = set(by_name(nnx.state(system, nnx.Param)))
    whole = system.trained is nnx.Param
    assert names == (everything if whole else adapter)
    # So many steps that spans of ten leave some to be read.
    batch = batch_of(steps=14 if isinstance(system, CocoMulla) else 30)
    noise = Noise(jax.random.key(0), 0.1, 0.1, 0.3)
    value, grads = loss_and_gradients(system, batch, noise)
    assert np.isfinite(value)
    assert set(grads) == names
    zero = {name for name, g in grads.items() if not np.abs(g).max() > 0}
    assert zero <= {name for name in names if name.endswith("key.bias")}


@pytest.mark.parametrize("name", ["cross", "self", "coco-mulla"])
def test_tuning_all_trains_the_language_model_too(name):
    system = small_system(name, tune="all")
    names = set(by_name(nnx.state(system, system.trained)))
    tables = set(by_name(nnx.state(system, PositionTable)))
    assert names == set(by_name(nnx.state(system))) - tables
    noise = Noise(jax.random.key(0))
    assert system.lm_noise(noise) is noise


def test_a_frozen_language_model_has_no_dropout():
    noise, batch = Noise(jax.random.key(0), 0.5, 0.5), batch_of()
    system = small_system("coco-mulla")
    assert system.lm_noise(noise) is None
    assert loss_and_gradients(system, batch, noise)[0] == pytest.approx(
        float(token_nlls(system, batch).sum()), rel=1e-5
    )
    for name in ("cross", "self"):
        assert small_system(name, lora=None).lm_noise(noise) is None
        assert small_system(name).lm_noise(noise) is noise
    assert small_system("seq2seq").lm_noise(noise) is noise


def test_dropout_disturbs_seq2seq():
    system, batch = small_system("seq2seq"), batch_of()
    noise = Noise(jax.random.key(0), 0.5)
    assert loss_and_gradients(system, batch, noise)[0] != pytest.approx(
        float(token_nlls(system, batch).sum()), rel=1e-4
    )


def test_a_new_coco_mulla_changes_nothing():
    system = small_system("coco-mulla")
    system.gates[...] = jnp.zeros(2)
    lm, batch = system.lm, batch_of(2)
    want = token_nlls(lm, batch._replace(reference=None))
    np.testing.assert_allclose(token_nlls(system, batch), want, atol=2e-5)
    new = build(small_card("coco-mulla"), small_lm(), rngs=nnx.Rngs(0))
    assert not new.gates[...].any()
    assert new.prefix_positions[...].std() > 0


def test_the_streams_of_a_new_self_attentive_adapter_differ_only_in_place():
    new = build(small_card("self"), small_lm(), rngs=nnx.Rngs(0))
    assert not new.stream_vectors[...].any()
    # The target follows the reference in one sequence of a language model without changes, except
    # that its positions start anew: at one step of reference and of target they would be 0, 0.
    reference, target = hidden(new, 1, 1)
    lm = small_lm()
    h = jnp.concatenate([lm.shift(reference), reference], axis=1)
    rope = lm.decoder.rope(jnp.array([0, 0]))
    mask = jnp.tril(jnp.ones((2, 2), bool))
    np.testing.assert_allclose(
        new.target_states(target, reference), lm.decoder(h, rope, mask)[:, 1:], atol=2e-5
    )


# Spans of the reference.


@pytest.mark.parametrize("kind", ["cross", "pair", "self", "coco-mulla"])
def test_spans_of_the_reference_are_hidden_always(kind):
    name, reference_config = ("cross", OTHER) if kind == "pair" else (kind, None)
    system = small_system(name, 0, CONFIG, reference_config, reference_mask_rate=0.5)
    reference, _ = hidden(system, 40 if name != "coco-mulla" else 14, 7, 3)
    found = system.prepare(reference, 8)
    vector = system.masked_reference if kind == "pair" else system.masked_embedding
    covered = (found == vector[...]).all(axis=-1)
    assert covered.sum(axis=1).min() > 0
    assert (~covered).any(axis=1).all()
    np.testing.assert_array_equal(found[~covered], reference[~covered])
    np.testing.assert_array_equal(system.prepare(reference, 8), found)
    # A sequence's spans depend on its place alone, not on how many there are.
    np.testing.assert_array_equal(system.prepare(reference[:2], 8), found[:2])
    assert (covered[0] != covered[1]).any()
    # In training they are drawn anew.
    drawn = system.prepare(reference, 8, STILL.fold(1))
    assert not np.array_equal(drawn, found)
    _, grads = loss_and_gradients(system, batch_of(), STILL)
    assert np.abs(grads["masked_reference" if kind == "pair" else "masked_embedding"]).max() > 0


def test_nothing_is_hidden_unless_it_is_asked_for():
    system = small_system("cross")
    reference, _ = hidden(system, 40, 7)
    assert system.prepare(reference, 8, STILL) is reference


# Coco-Mulla's prefix.


def test_short_references_are_filled_with_empty_rows():
    system = small_system("coco-mulla")
    target, reference = random_rows(0, 2, 12, 4), random_rows(1, 2, 9, 4)
    whole = np.stack([fill(rows, 14, PLAIN) for rows in reference])
    np.testing.assert_allclose(
        unpacked(system, target, reference), unpacked(system, target, whole), atol=1e-5
    )


def unpacked(system: System, target: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """NLL of the target's real tokens, however large the packed batch."""
    batch = packed(target, reference)
    return np.asarray(token_nlls(system, batch))[batch.step >= 0]


def test_streams_longer_than_the_prefix_are_refused():
    system = small_system("coco-mulla")
    short, long = random_rows(0, 1, 12, 2), random_rows(1, 1, 15, 2)
    with pytest.raises(M4MError, match="the reference has 15 steps and coco-mulla reads 14"):
        token_nlls(system, packed(short, long))
    with pytest.raises(M4MError, match="the target has 15 steps and coco-mulla writes 14"):
        token_nlls(system, packed(long, short))


# Links between two language models.


@pytest.mark.parametrize(
    ("every", "layers", "reference_layers", "want"),
    [
        (2, 12, 12, [0, 2, 4, 6, 8, 10]),
        (2, 12, 6, [0, 1, 2, 3, 4, 5]),
        (2, 6, 12, [0, 4, 8]),
        (1, 4, 3, [0, 0, 1, 2]),
        (1, 3, 5, [0, 1, 3]),
        (3, 4, 1, [0, 0]),
    ],
)
def test_layers_are_paired_by_relative_depth(every, layers, reference_layers, want):
    config = dataclasses.replace(CONFIG, layers=layers)
    reader = dataclasses.replace(OTHER, layers=reference_layers)
    system = skeleton(small_card("cross", config, reader, every=every))
    assert [system.source_of(link) for link in range(len(system.links))] == want
    nll = nnx.eval_shape(lambda s, b: s.packed_nll(b), system, batch_of())
    assert nll.shape == batch_of().step.shape


def test_a_pair_of_equals_is_one():
    """The reference read by a copy of the language model gives what one model alone gives."""
    alone, pair = small_system("cross"), small_system("cross", 0, CONFIG, CONFIG)
    own = nnx.state(alone)
    nnx.update(pair, own)
    have = set(by_name(nnx.state(pair.reference_base)))
    flat = nnx.to_flat_state(nnx.state(alone.base))
    kept = [(p, v) for p, v in flat if ".".join(map(str, p)) in have]
    nnx.update(pair.reference_base, nnx.from_flat_state(kept))
    assert pair.reference_lm is not pair.lm
    batch = batch_of()
    np.testing.assert_allclose(token_nlls(pair, batch), token_nlls(alone, batch), atol=2e-5)


def test_each_language_model_reads_its_own_stream():
    system, batch = small_system("cross", 0, CONFIG, OTHER), batch_of()
    want = token_nlls(system, batch)
    # Both are updated, the reader as far as it is read: it writes nothing.
    assert [len(updated(stack)) for stack in system.base.stacks] == [2, 1, 1]
    assert [len(updated(stack)) for stack in system.reference_base.stacks] == [1, 1, 0]
    for part in (system.reference_base.head.bias, system.reference_base.embedding.embedding):
        part[...] = part[...] + jnp.sin(jnp.arange(float(part.shape[-1])))
        moved = np.abs(token_nlls(system, batch) - want).max()
        assert (moved > 1e-4) == (part is system.reference_base.embedding.embedding)


def updated(stack) -> list:
    """The layers of a stack with low-rank updates."""
    return [layer for layer in stack.layers if layer.attention.query.lora is not None]


def test_linked_models_use_true_sines_for_both():
    lms = [small_lm(0), small_lm(1, OTHER)]
    for lm in lms:
        lm.decoder.positions[...] = jnp.ones_like(lm.decoder.positions[...])
    CrossAdapter(lms[0], CrossConfig(), reference_lm=lms[1], rngs=nnx.Rngs(0))
    assert all(not (lm.decoder.positions[...] == 1).all() for lm in lms)


# Sizes.


def trained(name: str, **changes) -> int:
    """Parameters that a system of size 1 trains."""
    config = SIZES["1"] if name == "seq2seq" else preset("1")
    adapter = None
    if name != "seq2seq":
        adapter = {"cross": CrossConfig}.get(name) or type(small_card(name).adapter)
        adapter = adapter(**changes)
    card = small_card(name).model_copy(update={"lm": config, "adapter": adapter})
    system = skeleton(card)
    return count(nnx.state(system, system.trained))


def test_numbers_of_trained_parameters():
    assert trained("cross") == 6_794_502
    assert trained("self") == 3_539_840
    assert trained("self", lora=None) == 3_539_840 - 18 * 2 * 2 * 64 * 768
    assert trained("coco-mulla") == 10_921_740
    # Four stacks' position tables [1536, 64] count in a checkpoint and are not trained.
    assert trained("seq2seq") == 8_164_355 - 4 * 1536 * 64
    whole = nnx.eval_shape(lambda: LM(preset("1"), rngs=nnx.Rngs(0)))
    tables = 1536 * (64 + 96 + 96)
    assert count(nnx.state(whole)) == 111_847_939
    assert trained("coco-mulla", tune="all") == 10_921_740 + 111_847_939 - tables


@pytest.mark.parametrize("name", ["cross", "self", "coco-mulla", "seq2seq"])
def test_velocities_are_read_and_written(name):
    config = dataclasses.replace(CONFIG, vocabulary="velocity")
    system = small_system(name, 0, config)
    rng = np.random.default_rng(0)
    rows = np.full((2, 2, 12, 8), VELOCITY.pad, np.int32)
    rows[..., 0] = rng.choice(np.array(VELOCITY.program_range), rows.shape[:-1])
    rows[..., 1] = rng.choice(np.array(VELOCITY.pitch_range), rows.shape[:-1])
    rows[..., 2] = VELOCITY.eos
    batch = packed(rows[0], rows[1], vocabulary=VELOCITY)
    nll = np.asarray(token_nlls(system, batch))[batch.step >= 0]
    assert nll.shape == (2 * 12 * 3,)
    assert (nll > 0).all()
    assert nll.mean() == pytest.approx(np.log(VELOCITY.size), rel=0.3)
