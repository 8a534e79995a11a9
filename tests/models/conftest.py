"""Models and token rows that the tests of this folder share."""

import jax
import numpy as np
import pytest

from m4m_jax.music.simunote import PLAIN
from tests.compiling import quick_compile as quick_compile


@pytest.fixture(autouse=True)
def _exact_matmuls():
    with jax.default_matmul_precision("highest"):
        yield


def random_rows(seed: int, batch: int, steps: int, max_notes: int) -> np.ndarray:
    """Token rows int32 [B, T, 2N], among them empty ones, full ones and repetitions."""
    rng = np.random.default_rng(seed)
    counts = rng.choice([0, 0, 0, 1, 2, max_notes], (batch, steps))
    first = rng.integers(0, 128, (batch, steps, max_notes))
    second = rng.integers(128, 3200, (batch, steps, max_notes))
    rows = np.stack([first, second], axis=-1).reshape(batch, steps, -1)
    place = np.arange(2 * max_notes)
    end = 2 * counts[..., None]
    rows = np.where(place < end, rows, np.where(place == end, PLAIN.eos, PLAIN.pad))
    rows[:, steps // 2 :] = rows[:, : steps - steps // 2]
    return rows.astype(np.int32)
