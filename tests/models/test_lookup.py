"""Rows by index: what comes back to them is what a gather gives back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m4m_jax.models import lookup

S, R, D = 2, 7, 5


@pytest.mark.parametrize("cells", [1, R, 4 * R, 2**25])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_gradients_are_those_of_a_gather(cells, dtype, monkeypatch):
    monkeypatch.setattr(lookup, "CELLS", cells)
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        rows = jnp.asarray(rng.normal(size=(S, R, D)), dtype)
        index = jnp.asarray(rng.integers(0, R, (S, 3, 11)) * (rng.random((S, 3, 11)) > 0.5))
        weight = jnp.asarray(rng.integers(-3, 4, (S, 3, 11, D)), dtype)

        def check(look):
            return jax.value_and_grad(lambda x: (look(x, index) * weight).sum())(rows)

        (got, back), (want, plain) = check(lookup.look_up), check(lookup.gather)
        assert got == want
        assert back.dtype == rows.dtype
        # Sums of small whole numbers: exact in any order and precision.
        np.testing.assert_array_equal(np.asarray(back, float), np.asarray(plain, float))


def test_most_gradients_come_back_to_few_rows_in_parts(monkeypatch):
    monkeypatch.setattr(lookup, "CELLS", 4 * R)
    index = jnp.zeros((1, 30), jnp.int32)
    back = jax.grad(lambda x: lookup.look_up(x, index).sum())(jnp.zeros((1, R, D)))
    assert back[0].tolist() == [[30.0] * D] + [[0.0] * D] * (R - 1)
