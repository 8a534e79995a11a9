"""The PyTorch build against the public implementation's names, sizes and figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from m4m_jax.bench.torch_lm import SIZES, FoundationLM, parameter_count
from m4m_jax.bench.torch_systems import CrossAttentive
from tests.golden import values

MAX_NLL_DIFFERENCE = 1e-4
MEAN_NLL_DIFFERENCE = 1e-5

ADAPTERS = {"cross": CrossAttentive}
COUNTS = {"cross": 6_794_502}


@pytest.fixture(scope="module", autouse=True)
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def weights(name):
    return {key: torch.from_numpy(value) for key, value in values.state(name).items()}


def shapes(system):
    return {name: tuple(value.shape) for name, value in system.state_dict().items()}


@pytest.fixture(scope="module")
def foundation():
    lm = FoundationLM(SIZES[0])
    lm.load_state_dict(weights("foundation"))
    return lm.eval()


def assert_same_nll(nll, expected):
    difference = np.abs(nll.numpy() - expected)
    assert np.array_equal(nll.numpy() == 0, expected == 0)
    assert difference.max() < MAX_NLL_DIFFERENCE
    assert difference[expected != 0].mean() < MEAN_NLL_DIFFERENCE


@torch.no_grad()
def test_foundation_nll(foundation):
    figures = values.figures()
    nll = foundation.token_nll(torch.from_numpy(figures["foundation_tokens"]))
    assert_same_nll(nll, figures["foundation_nll"])


@pytest.mark.parametrize("name", ADAPTERS)
@torch.no_grad()
def test_adapter_nll(foundation, name):
    figures = values.figures()
    system = ADAPTERS[name](foundation).eval()
    system.load_state_dict(weights(name))
    target, reference = (
        torch.from_numpy(figures[f"chord_mel_{part}"]) for part in ("target", "reference")
    )
    assert_same_nll(system.token_nll(target, reference), figures[f"{name}_chord_mel_nll"])


def test_foundation_layout(foundation):
    assert shapes(foundation) == values.shapes("foundation")


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_layout(foundation, name):
    assert shapes(ADAPTERS[name](foundation)) == values.shapes(name)


def test_counts_at_released_size():
    with torch.device("meta"):
        lm = FoundationLM(SIZES[1])
        assert parameter_count(lm) == 111_847_939
        for name, count in COUNTS.items():
            assert parameter_count(ADAPTERS[name](lm)) == count
