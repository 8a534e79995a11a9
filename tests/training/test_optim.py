from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from m4m_jax.training.optim import BETA1, Hyper, Schedule, adamw

RATE = 3e-3


def our_cycle(steps: int, warmup: float) -> np.ndarray:
    """Learning rate and beta1 of every step, [steps, 2]."""
    schedule = jax.jit(jax.vmap(Schedule("one_cycle", steps, warmup)))
    factor, beta1 = schedule(jnp.arange(steps))
    return np.stack([RATE * factor, beta1], axis=1)


def torch_cycle(steps: int, warmup: float) -> np.ndarray:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=RATE)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps, pct_start=warmup, div_factor=25, final_div_factor=1e4
    )
    found = []
    for _ in range(steps):
        group = optimizer.param_groups[0]
        found.append((group["lr"], group["betas"][0]))
        optimizer.step()
        if len(found) < steps:
            scheduler.step()
    return np.array(found)


@pytest.mark.parametrize(
    ("steps", "warmup"), [(200, 0.1), (1000, 0.005), (60, 0.3), (100, 0.005), (7, 0.5), (3, 0.9)]
)
def test_one_cycle_is_that_of_torch(steps, warmup):
    got, want = our_cycle(steps, warmup), torch_cycle(steps, warmup)
    np.testing.assert_allclose(got[:, 0], want[:, 0], rtol=2e-3, atol=2e-6 * RATE)
    np.testing.assert_allclose(got[:, 1], want[:, 1], atol=1e-6)
    if steps >= 60:
        assert got[:, 0].max() == pytest.approx(RATE, rel=1e-3)


@pytest.mark.parametrize("steps", [1, 2])
def test_cycles_too_short_to_have_a_shape_are_finite(steps):
    assert np.isfinite(our_cycle(steps, 0.5)).all()


def test_constant_schedule():
    assert Schedule()(jnp.asarray(5)) == (1.0, BETA1)


def gradients(steps: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(steps, 4, 3)).astype(np.float32)


def ours(start: np.ndarray, grads: np.ndarray, hyper: Hyper, schedule: Schedule) -> np.ndarray:
    params = jnp.asarray(start)
    moments = adamw(hyper, schedule, jnp.asarray(0)).init(params)

    @jax.jit
    def step(params, moments, grad, number):
        updates, moments = adamw(hyper, schedule, number).update(grad, moments, params)
        return optax.apply_updates(params, updates), moments

    for number, grad in enumerate(grads):
        params, moments = step(params, moments, jnp.asarray(grad), jnp.asarray(number))
    return np.asarray(params)


def theirs(start: np.ndarray, grads: np.ndarray, hyper: Hyper, schedule: Schedule) -> np.ndarray:
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    rate, decay = float(hyper.learning_rate), float(hyper.weight_decay)
    optimizer = torch.optim.AdamW([parameter], lr=rate, weight_decay=decay)
    scheduler = None
    if schedule.kind == "one_cycle":
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rate, total_steps=len(grads) + 1, pct_start=schedule.warmup
        )
    for grad in grads:
        parameter.grad = torch.from_numpy(grad.copy())
        torch.nn.utils.clip_grad_norm_([parameter], float(hyper.clip))
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return parameter.detach().numpy()


@pytest.mark.parametrize("clip", [float("inf"), 1.0])
def test_adamw_is_that_of_torch(clip):
    start, grads = np.ones((4, 3), np.float32), gradients(30)
    hyper = Hyper(1e-2, 0.1, clip)
    got = ours(start, grads, hyper, Schedule())
    np.testing.assert_allclose(got, theirs(start, grads, hyper, Schedule()), atol=3e-6)
    assert np.abs(got - start).max() > 0.05


def test_adamw_with_one_cycle_is_nearly_that_of_torch():
    """Torch corrects the first moment by the step's own beta1 ** steps, and so does optax."""
    start, grads = np.ones((4, 3), np.float32), gradients(30)
    hyper, schedule = Hyper(1e-2, 0.1), Schedule("one_cycle", 31, 0.3)
    got, want = (f(start, grads, hyper, schedule) for f in (ours, theirs))
    np.testing.assert_allclose(got, want, atol=1e-5)
