from __future__ import annotations

import jax
import numpy as np
import pytest

from m4m_jax.models.noise import Noise
from m4m_jax.training.state import save_memory
from tests.models.small import MICRO, batch_of, loss_and_gradients, small_system

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.mark.parametrize("name", ["cross", "seq2seq"])
def test_layers_computed_anew_change_neither_loss_nor_gradients(name):
    batch, noise = batch_of(), Noise(jax.random.key(1), 0.2, 0.2, 0.2)
    kept, anew = small_system(name, 0, MICRO), small_system(name, 0, MICRO)
    save_memory(anew)
    value, grads = loss_and_gradients(kept, batch, noise)
    found, others = loss_and_gradients(anew, batch, noise)
    assert found == pytest.approx(value, rel=1e-6)
    for place, g in grads.items():
        if place.endswith("key.bias"):  # softmax does not see it: its gradient is rounding
            continue
        scale = max(np.abs(g).max(), 1e-3)
        np.testing.assert_allclose(others[place] / scale, g / scale, atol=1e-5, err_msg=place)


def test_layers_computed_anew_are_so_in_the_program():
    system = small_system("lm", 0, MICRO)

    def computed(system) -> int:
        def loss(rows):
            return system.states(system.encode(rows)).sum()

        rows = np.zeros((1, 4, 6), np.int32)
        return str(jax.make_jaxpr(loss)(rows)).count("remat")

    assert computed(system) == 0
    save_memory(system)
    assert computed(system) > 0
