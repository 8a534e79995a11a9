"""References and targets of different lengths, as compression makes them, in packed batches."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx

from m4m_jax.models.system import System
from tests.models.conftest import random_rows
from tests.models.small import MICRO, packed, small_system
from tests.models.test_system import direct_loss

pytestmark = pytest.mark.usefixtures("quick_compile")


@nnx.jit
def losses(system: System, batch, target: jax.Array, reference: jax.Array):
    """The loss of a packed batch, and of its rows one by one."""
    return system.loss(batch)[0], direct_loss(system, target, reference)


@pytest.mark.parametrize(("heard", "written"), [(4, 8), (8, 4)])
@pytest.mark.parametrize("name", ["cross", "self", "coco-mulla", "seq2seq"])
def test_the_packed_loss_is_that_of_the_rows(name, heard, written):
    target, reference = random_rows(3, 2, written, 3), random_rows(4, 2, heard, 3)
    system = small_system(name, 1, MICRO)
    got, want = losses(system, packed(target, reference), target, reference)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    other = packed(target, random_rows(5, 2, heard, 3))
    assert losses(system, other, target, reference)[0] != got
