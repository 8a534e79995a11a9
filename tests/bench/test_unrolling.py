"""Layers written out and layers in a loop: the same numbers."""

from __future__ import annotations

import jax
import numpy as np

from m4m_jax.bench import unrolling
from m4m_jax.models.lm import preset


def test_both_compute_the_same():
    stack = unrolling.new_stack(preset("tiny"))
    h = jax.random.normal(jax.random.key(1), (1, 8, preset("tiny").width))
    one, other = (
        unrolling.measure(*make(stack), h, times=1)
        for make in (unrolling.unrolled, unrolling.scanned)
    )
    np.testing.assert_allclose(one.gradient, other.gradient, rtol=1e-4, atol=1e-5)
    assert min(*one[:2], *other[:2]) > 0
