"""Converted weights against the PyTorch build and the public implementation's own figures.

All weights go through checkpoint files, as users' do. The tolerances are the project's promise.
"""

from __future__ import annotations

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import m4m_jax
from m4m_jax.bench.torch_lm import SIZES
from m4m_jax.convert.checkpoint import write_checkpoint
from m4m_jax.music.simunote import PLAIN, VELOCITY
from tests.compiling import quick_compile as quick_compile
from tests.convert import systems
from tests.convert.systems import LINKED, rows, written
from tests.golden import values

WORST, MEAN = 5e-4, 5e-5  # nats a token
DRIFT = 0.02  # of the mean NLL, in bfloat16

pytestmark = pytest.mark.usefixtures("quick_compile")

NAMES = ["lm", *LINKED]
GOLDEN = {
    "foundation": ("foundation_tokens", None),
    "cross": ("chord_mel_target", "chord_mel_reference"),
    "cocomulla": ("chord_mel_target", "chord_mel_reference"),
}


@pytest.fixture(autouse=True)
def _exact_matmuls():
    with jax.default_matmul_precision("highest"):
        yield


def pair(folder, size, name: str):
    """A PyTorch system, and a function that loads its checkpoint."""
    lm = systems.foundation(size)
    base = written(folder / "base.ckpt", lm)
    theirs = lm if name == "lm" else systems.linked(name, lm)
    path = written(folder / "system.ckpt", theirs)
    options = {} if name in ("lm", "seq2seq") else {"base": base}
    return theirs, functools.partial(m4m_jax.load, path, **options)


@pytest.fixture(scope="module", params=NAMES)
def small(request, tmp_path_factory):
    return pair(tmp_path_factory.mktemp("small"), systems.SMALL, request.param)


def songs(model, steps: int, max_notes: int, vocabulary=PLAIN):
    reference = None if model.card.reference is None else rows(1, 2, steps, max_notes, vocabulary)
    return rows(0, 2, steps, max_notes, vocabulary), reference


def torch_nll(system, target, reference) -> np.ndarray:
    inputs = [None if x is None else torch.from_numpy(x) for x in (target, reference)]
    with torch.no_grad():
        return system.token_nll(*inputs).numpy()


def assert_exact(got: np.ndarray, want: np.ndarray, real: np.ndarray) -> None:
    assert np.array_equal(got != 0, real)
    apart = np.abs(got - want)
    assert apart.max() <= WORST
    assert apart[real].mean() <= MEAN


# Weights that were made for N = 8 or 16 read rows of either.
@pytest.mark.parametrize(("steps", "max_notes"), [(14, 8), (8, 16)])
def test_nll(small, steps, max_notes):
    theirs, load = small
    ours = load()
    target, reference = songs(ours, steps, max_notes)
    want = torch_nll(theirs, target, reference)
    assert_exact(ours.token_nll(target, reference), want, target != PLAIN.pad)


@pytest.mark.slow
def test_greedy_generation(small):
    theirs, load = small
    theirs, ours = copy.deepcopy(theirs), load()
    ours = m4m_jax.Model(ours.system, ours.card.model_copy(update={"window": 24}))
    reference = None if ours.card.reference is None else rows(1, 1, 24, 4)
    bias, want = with_endings(theirs, reference)
    ours.system.lm.head.bias[...] = ours.system.lm.head.bias[...].at[PLAIN.eos].add(bias)
    given = None if reference is None else reference[0]
    got = ours.generate(given, steps=24, max_notes=4, temperature=0.0)
    np.testing.assert_array_equal(got, want)


def with_endings(theirs, reference) -> tuple[float, np.ndarray]:
    """What PyTorch writes once EOS is likely enough to end some rows, and the bias for it."""
    given = None if reference is None else torch.from_numpy(reference)
    for bias in range(1, 9):
        with torch.no_grad():
            theirs.lm.final_decoder.bias[PLAIN.eos] += 1
        written = theirs.generate(given, 24, max_notes=4).numpy()
        if (written[..., 2:] == PLAIN.pad).any():
            return float(bias), written
    raise AssertionError("no row ended")


@pytest.mark.slow
def test_bfloat16_drifts_little(small):
    theirs, load = small
    ours = load(dtype=jnp.bfloat16)
    target, reference = songs(ours, 8, 8)
    want = torch_nll(theirs, target, reference)
    got = ours.token_nll(target, reference)
    assert abs(got.sum() / want.sum() - 1) < DRIFT


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nll_at_size_0(tmp_path, name):
    theirs, load = pair(tmp_path, SIZES[0], name)
    ours = load()
    target, reference = songs(ours, 6, 8)
    want = torch_nll(theirs, target, reference)
    assert_exact(ours.token_nll(target, reference), want, target != PLAIN.pad)


@pytest.mark.slow
def test_nll_at_released_size(tmp_path):
    theirs, load = pair(tmp_path, SIZES[1], "cross")
    ours = load()
    target, reference = songs(ours, 6, 8)
    want = torch_nll(theirs, target, reference)
    assert_exact(ours.token_nll(target, reference), want, target != PLAIN.pad)


def test_nll_with_velocities(tmp_path):
    theirs = systems.foundation(vocabulary=VELOCITY.size)
    ours = m4m_jax.load(written(tmp_path / "lm.ckpt", theirs))
    assert ours.card.lm.vocabulary == "velocity"
    target = rows(0, 2, 8, 8, VELOCITY)
    want = torch_nll(theirs, target, None)
    assert_exact(ours.token_nll(target), want, target != VELOCITY.pad)


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_figures_of_the_public_implementation(tmp_path, name):
    base = None
    if name != "foundation":
        base = tmp_path / "base.ckpt"
        write_checkpoint(base, values.state("foundation").items(), None)
    path = tmp_path / "system.ckpt"
    hyper = None if base is None else {"train_task": "chord_mel", "n_skip": 2}
    write_checkpoint(path, values.state(name).items(), hyper)
    figures, (target, reference) = values.figures(), GOLDEN[name]
    ours = m4m_jax.load(path, base)
    given = None if reference is None else figures[reference]
    got = ours.token_nll(figures[target], given)
    nll = figures["foundation_nll" if base is None else f"{name}_chord_mel_nll"]
    assert_exact(got, nll, figures[target] != PLAIN.pad)
