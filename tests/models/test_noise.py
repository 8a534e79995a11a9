from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m4m_jax.models.noise import Noise, at, dropout, random_bits, span_mask
from tests.devices import run_with_devices

pytestmark = pytest.mark.usefixtures("quick_compile")

hide = jax.jit(span_mask, static_argnums=(1, 3))


def dropped(key: int, shape=(400, 500), rate: float = 0.3, dtype=jnp.float32) -> np.ndarray:
    noise = Noise(jax.random.key(key), rate)
    return np.asarray(jax.jit(dropout)(jnp.ones(shape, dtype), noise))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_share_and_scale(rate):
    kept = dropped(0, rate=rate)
    share = (kept == 0).mean()
    # Four standard deviations of a binomial share.
    assert abs(share - rate) <= 4 * np.sqrt(rate * (1 - rate) / kept.size)
    np.testing.assert_allclose(kept[kept != 0], 1 / (1 - rate), rtol=1e-6)
    # Every row and column has its share: nothing is dropped by a pattern.
    for axis in (0, 1):
        n = kept.shape[axis]
        worst = np.abs((kept == 0).mean(axis=axis) - rate).max()
        assert worst <= 6 * np.sqrt(rate * (1 - rate) / n)


def test_none_means_no_noise():
    x = jnp.arange(5.0)
    assert dropout(x, None) is x
    assert at(None, 3) is None


def test_a_rate_of_its_own_and_the_type_of_x():
    noise = Noise(jax.random.key(0), rate=0.5, lora_rate=0.0)
    x = jnp.ones((50, 50), jnp.bfloat16)
    assert dropout(x, noise).dtype == jnp.bfloat16
    assert (dropout(x, noise, noise.lora_rate) == 1).all()
    assert (dropout(x, noise) == 0).any()


def test_reproducible_and_independent():
    shape = (300, 300)

    def centred(key) -> np.ndarray:
        return np.asarray(random_bits(key, shape)).astype(np.float64) / 2**32 - 0.5

    key = jax.random.key(7)
    noise = Noise(key)
    assert np.array_equal(centred(key), centred(jax.random.key(7)))
    sources = [key, jax.random.key(8), at(noise, 0).key, at(noise, 1).key, at(at(noise, 0), 1).key]
    samples = np.stack([centred(k).ravel() for k in sources])
    limit = 5 / np.sqrt(samples.shape[1])
    correlation = np.corrcoef(samples) - np.eye(len(sources))
    assert np.abs(correlation).max() < limit
    # Neighbours in either direction, and the two halves of a tensor, are not alike either.
    x = centred(key)
    for a, b in ((x[1:], x[:-1]), (x[:, 1:], x[:, :-1]), (x[:150], x[150:])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < limit
    # All bits are used.
    bits = np.asarray(random_bits(key, shape))
    shares = [((bits >> k) & 1).mean() for k in range(32)]
    assert np.abs(np.array(shares) - 0.5).max() < limit


def test_vmap_gives_the_numbers_of_single_calls():
    keys = jax.random.split(jax.random.key(3), 3)
    rates = jnp.array([0.1, 0.4, 0.7])
    x = jnp.ones((3, 8, 9))
    together = jax.vmap(lambda k, r, y: dropout(y, Noise(k, r)))(keys, rates, x)
    for i in range(3):
        assert np.array_equal(together[i], dropout(x[i], Noise(keys[i], rates[i])))


def test_gradient_passes_what_was_kept():
    noise = Noise(jax.random.key(0), 0.4)
    x = jax.random.normal(jax.random.key(1), (40, 40))
    grad = jax.grad(lambda y: dropout(y, noise).sum())(x)
    np.testing.assert_array_equal(grad, dropout(jnp.ones_like(x), noise))


PROGRAM = """
import json, jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from m4m_jax.models.noise import Noise, dropout, span_mask
mesh = jax.make_mesh((len(jax.devices()),), ("data",))
x = jax.device_put(jnp.ones((16, 6, 10)), NamedSharding(mesh, P("data")))
noise = Noise(jax.random.key(5), 0.3)
y = jax.jit(dropout)(x, noise)
assert not y.sharding.is_fully_replicated
hidden = jax.jit(lambda k: span_mask(k, (4, 100), 0.3))(noise.key)
print(json.dumps([y.tolist(), hidden.tolist()]))
"""


def test_a_mesh_gives_the_numbers_of_one_device():
    noise = Noise(jax.random.key(5), 0.3)
    kept, hidden = (np.array(x) for x in json.loads(run_with_devices(PROGRAM)))
    np.testing.assert_array_equal(kept, dropout(jnp.ones((16, 6, 10)), noise))
    np.testing.assert_array_equal(hidden, span_mask(noise.key, (4, 100), 0.3))


def runs(hidden: np.ndarray) -> list[int]:
    """Lengths of the runs of True."""
    edges = np.diff(np.concatenate([[0], hidden.astype(int), [0]]))
    return list(np.flatnonzero(edges < 0) - np.flatnonzero(edges > 0))


def test_spans_have_their_length_and_there_are_two_at_least():
    hidden = np.asarray(hide(jax.random.key(0), (300, 200), 0.001))
    lengths = [runs(row) for row in hidden]
    assert all(10 <= n <= 20 for row in lengths for n in row)
    # Two distinct starts: 11 hidden steps at the least, 20 at the most.
    assert hidden.sum(axis=1).min() >= 11
    assert hidden.sum(axis=1).max() == 20
    assert len(np.unique(hidden, axis=0)) > 250
    assert hidden.any(axis=0).all()


def test_nothing_is_hidden_at_rate_zero():
    assert not hide(jax.random.key(0), (5, 200), 0.0).any()


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_share_hidden_follows_the_rate(rate):
    length, span = 384, 10
    hidden = np.asarray(hide(jax.random.key(1), (400, length), rate))
    # Starts are distinct but spans may overlap: a step is clear if none of the ten starts before
    # it was drawn.
    starts, number = length - span + 1, rate * length / span
    clear = np.prod([(starts - number - i) / (starts - i) for i in range(span)])
    middle = hidden[:, span:-span]
    assert abs(middle.mean() - (1 - clear)) < 0.01


def test_number_of_spans_is_rounded_at_random():
    # 0.25 * 100 / 1: spans of one step do not overlap, so hidden steps count the starts.
    hidden = np.asarray(hide(jax.random.key(2), (2000, 103), 0.25, span=1))
    counts = hidden.sum(axis=1)
    assert set(counts.tolist()) == {25, 26}
    assert abs(counts.mean() - 25.75) < 0.05


@pytest.mark.parametrize("length", [1, 4, 9, 10, 11])
def test_sequences_as_short_as_a_span(length):
    hidden = np.asarray(hide(jax.random.key(0), (3, length), 0.2))
    assert hidden.all()


def test_a_traced_rate_under_vmap():
    rates = jnp.array([0.0, 0.4])
    hidden = jax.jit(jax.vmap(lambda r: span_mask(jax.random.key(0), (2, 100), r)))(rates)
    assert not hidden[0].any()
    assert hidden[1].any()
