from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from m4m_jax.models.parameters import by_name
from m4m_jax.models.roformer import PositionTable
from m4m_jax.training.optim import Schedule
from m4m_jax.training.state import TrainState, init_state
from m4m_jax.training.step import make_evaluation
from tests.models.small import (
    MICRO,
    in_double,
    loss_and_gradients,
    small_cross,
    small_lm,
    token_nlls,
)
from tests.training.small import CALM, NOISY, Trainer, batches, vector

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return Trainer(small_cross(config=MICRO))


def test_loss_is_the_mean_over_real_tokens_and_the_update_follows_its_gradient(trainer):
    batch = next(batches(1))
    state, (figures,) = trainer.run([batch])
    one = jax.tree.map(lambda x: x[0], batch)
    value, grads = loss_and_gradients(small_cross(config=MICRO), one)
    tokens = int((batch.step >= 0).sum())
    assert figures["tokens"] == tokens
    assert figures["nll"] == pytest.approx(value / tokens, rel=1e-5)
    norm = np.sqrt(sum(np.sum((g / tokens) ** 2) for g in grads.values()))
    assert figures["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    assert figures["learning_rate"] == pytest.approx(3e-3)
    # The first step of Adam goes by the rate, against the gradient's sign.
    before, after = by_name(trainer.params), by_name(state.params)
    for name, g in grads.items():
        big = np.abs(g) / tokens > 1e-5
        want = before[name] * (1 - 3e-3 * 0.01) - 3e-3 * np.sign(g)
        np.testing.assert_allclose(np.asarray(after[name])[big], want[big], atol=1e-5)
    assert int(state.step) == 1


def test_accumulated_microbatches_are_one_batch(trainer):
    whole, one = trainer.run(batches(2))
    split, many = trainer.run(batches(2, 2))
    assert [f["tokens"] for f in one] == [f["tokens"] for f in many]
    np.testing.assert_allclose([f["nll"] for f in one], [f["nll"] for f in many], rtol=1e-5)
    one, many = (vector(state.params, without="key.bias") for state in (whole, split))
    np.testing.assert_allclose(one, many, atol=2e-5)
    assert np.abs(vector(whole.params) - vector(trainer.params)).max() > 4e-3


def test_microbatches_have_noise_of_their_own(trainer):
    """Were it the same for all, their order would not matter."""
    batch = next(batches(1, 2))
    turned = jax.tree.map(lambda x: x[::-1], batch)

    def nll(batch, hyper) -> float:
        return trainer.run([batch], hyper)[1][0]["nll"]

    assert nll(turned, CALM) == pytest.approx(nll(batch, CALM), rel=1e-6)
    assert abs(nll(turned, NOISY) - nll(batch, NOISY)) > 1e-3


def test_vmap_over_adapters_equals_runs_of_their_own():
    """In float64: in float32, rounding of small gradients is what the first steps of Adam go by."""
    data = list(batches(3))
    hypers = [NOISY, NOISY._replace(learning_rate=1e-3, dropout=0.4, weight_decay=0.3, clip=0.2)]
    stack = lambda *xs: jnp.stack([jnp.asarray(x) for x in xs])  # noqa: E731
    with jax.enable_x64(True):
        trainer = Trainer(in_double(small_cross(config=MICRO)), dtype=jnp.float64)
        others = [trainer.params, Trainer(in_double(small_cross(5, MICRO))).params]
        keys = jax.random.split(jax.random.key(9), 2)
        states = [init_state(p) for p in others]
        state, hyper = jax.tree.map(stack, *states), jax.tree.map(stack, *hypers)
        together = jax.jit(jax.vmap(trainer.raw, (None, 0, None, 0, 0)))
        for batch in data:
            state, metrics = together(trainer.base, state, batch, hyper, keys)
        for i in range(2):
            alone = states[i]
            for batch in data:
                alone, figures = trainer.step(trainer.base, alone, batch, hypers[i], keys[i])
            got = vector(jax.tree.map(lambda x, i=i: x[i], state.params), without="key.bias")
            want = vector(alone.params, without="key.bias")
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-9)
            assert float(metrics["nll"][i]) == pytest.approx(float(figures["nll"]), rel=1e-12)
            assert np.abs(want - vector(others[i], without="key.bias")).max() > 1e-3


def test_random_numbers_depend_on_key_and_step_alone(trainer):
    batch = next(batches(1))
    start, key = init_state(trainer.params), jax.random.key(0)
    later = start._replace(step=start.step + 1)

    def nll(state: TrainState, key) -> float:
        return float(trainer.step(trainer.base, state, batch, NOISY, key)[1]["nll"])

    assert nll(start, key) == nll(start, key)
    assert nll(start, key) != nll(later, key)
    assert nll(start, key) != nll(start, jax.random.key(1))


def test_clip_bounds_the_gradient_and_reports_it_whole(trainer):
    batch = next(batches(1))
    _, (free,) = trainer.run([batch])
    tight = CALM._replace(clip=free["gradient_norm"] / 10)
    state, (clipped,) = trainer.run([batch], tight)
    assert clipped["gradient_norm"] == pytest.approx(free["gradient_norm"], rel=1e-5)
    first = optax.tree.get(state.moments, "mu")
    loose = optax.tree.get(trainer.run([batch])[0].moments, "mu")
    np.testing.assert_allclose(vector(first), vector(loose) / 10, atol=1e-6)


def test_the_base_stays_and_the_whole_adapter_moves(trainer):
    before = jax.tree.map(np.array, trainer.base)
    state, _ = trainer.run(batches(3), NOISY)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(trainer.base), strict=True):
        np.testing.assert_array_equal(old, new)
    moved = by_name(jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, trainer.params))
    assert all(v > 0 for v in moved.values())


def test_a_language_model_trains_whole_but_for_its_tables():
    lm, schedule = small_lm(0, MICRO), Schedule("one_cycle", 30, 0.1)
    trainer = Trainer(lm, schedule)
    data = list(batches(1, linked=False)) * 12
    state, figures = trainer.run(data)
    assert figures[-1]["nll"] < figures[0]["nll"] - 0.2
    rates = [3e-3 * float(schedule(jnp.asarray(k))[0]) for k in range(12)]
    np.testing.assert_allclose([f["learning_rate"] for f in figures], rates, rtol=1e-5)
    assert rates[0] == pytest.approx(3e-3 / 25)
    after_one, _ = trainer.run(data[:1])
    moved = np.abs(vector(after_one.params) - vector(trainer.params)).max()
    assert 0.9 * rates[0] < moved < 1.1 * rates[0]
    assert set(by_name(trainer.base)) == {
        f"{stack}.positions" for stack in ("decoder", "encoder", "local_decoder")
    }
    names = set(by_name(nnx.state(lm))) - set(by_name(nnx.state(lm, PositionTable)))
    assert set(by_name(state.params)) == names
    evaluate = jax.jit(make_evaluation(trainer.graph))
    value, tokens = evaluate(trainer.base, trainer.params, data[0])
    assert float(value / tokens) == pytest.approx(figures[0]["nll"], rel=1e-5)
    want = token_nlls(lm, jax.tree.map(lambda x: x[0], data[0]))
    assert float(value) == pytest.approx(float(want.sum()), rel=1e-5)


def test_bfloat16_stays_near_and_keeps_float32_parameters(trainer):
    data = list(batches(1)) * 4
    want, wide = trainer.run(data)
    state, narrow = Trainer(small_cross(config=MICRO), dtype=jnp.bfloat16).run(data)
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    assert {x.dtype for x in jax.tree.leaves(state.moments) if x.ndim} == {jnp.dtype("float32")}
    for a, b in zip(narrow, wide, strict=True):
        assert a["nll"] == pytest.approx(b["nll"], rel=0.02)
    start = vector(trainer.params)
    ours, theirs = vector(state.params) - start, vector(want.params) - start
    assert ours @ theirs > 0.8 * np.linalg.norm(ours) * np.linalg.norm(theirs)
