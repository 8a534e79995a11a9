"""What is told of a run's speed means what it says."""

from __future__ import annotations

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from m4m_jax import training
from m4m_jax.chips import CHIPS, Chip
from m4m_jax.training.loop import train
from m4m_jax.training.optim import Hyper
from m4m_jax.training.rates import Rates, memory
from m4m_jax.training.state import TrainState

TOKENS, FLOPS = 7, 10**6


class Kept:
    """Keeps what a run tells, as the file of figures does."""

    def __init__(self):
        self.lines: list[dict] = []

    def after(self, step, state, metrics):
        if "logged" in metrics:
            self.lines.append({"step": step} | metrics)

    def close(self):
        pass


class Validating:
    """A validation of so many seconds after one step."""

    def __init__(self, at: int, seconds: float):
        self.at, self.seconds = at, seconds

    def after(self, step, state, metrics):
        if step == self.at:
            time.sleep(self.seconds)
            metrics |= {"validation_nll": 1.0, "validation_seconds": self.seconds}

    def close(self):
        pass


def told(steps: int, every: int, *, slow: float = 0.0, computing: float = 0.0, before=()):
    """The lines of a loop whose batches, and whose steps, take so many seconds."""

    def batches():
        while True:
            time.sleep(slow)
            yield None

    def step(base, state, batch, hyper, key):
        time.sleep(computing)
        return state, {"nll": jnp.ones(()), "tokens": jnp.asarray(TOKENS), "flops": FLOPS}

    kept, state = Kept(), TrainState(None, None, jnp.zeros((), jnp.int32))
    hooks = [*before, Rates(every), kept]
    key = jax.random.key(0)
    train(step, None, state, batches(), Hyper(), key, steps=steps, hooks=hooks)
    return kept.lines


def test_the_first_step_is_not_timed():
    lines = told(6, 2, computing=0.01)
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert all(line["step_seconds"] >= 0.01 for line in lines)
    first, *rest = told(3, 1)
    assert "step_seconds" not in first
    assert "tokens_per_second" not in first
    assert first["nll"] == 1.0
    assert all("step_seconds" in line for line in rest)


def test_rates_and_times_are_those_of_the_same_steps():
    for line in told(7, 3, computing=0.003):
        assert line["tokens_per_second"] * line["step_seconds"] == pytest.approx(TOKENS)
        assert line["flops_per_second"] * line["step_seconds"] == pytest.approx(FLOPS)
        assert line["tokens"] == TOKENS
        assert 0.003 <= line["step_seconds"] < 0.1


def test_waiting_for_batches_is_told_apart_from_computing():
    (waiting,) = told(4, 4, slow=0.03)
    assert 0.03 <= waiting["input_wait_seconds"] <= waiting["step_seconds"]
    (computing,) = told(4, 4, computing=0.03)
    assert computing["input_wait_seconds"] < 0.01
    assert computing["step_seconds"] >= 0.03


def test_validation_is_no_time_of_steps():
    lines = told(6, 3, before=[Validating(5, 0.3)])
    assert [line["step"] for line in lines] == [3, 5, 6]
    assert lines[1]["validation_seconds"] == 0.3
    assert all(line["step_seconds"] < 0.1 for line in lines)
    assert "validation_seconds" not in lines[2]


def test_utilization_is_of_the_chips_rate(monkeypatch):
    (line,) = told(4, 4)
    assert "utilization" not in line  # nobody publishes a processor's
    kind, devices = jax.devices()[0].device_kind, len(jax.devices())
    monkeypatch.setitem(CHIPS, kind, Chip(1e9, "the test"))
    (line,) = told(4, 4)
    assert line["utilization"] == pytest.approx(line["flops_per_second"] / 1e9 / devices)


def test_nothing_of_a_run_is_taken_from_the_measurements():
    for path in Path(training.__file__).parent.glob("*.py"):
        assert "m4m_jax.bench" not in path.read_text(), path.name


def test_memory_is_what_the_process_holds():
    before = memory()
    held = b"x" * 2**27
    during = memory()
    assert 2**27 <= during["host_bytes"] - before["host_bytes"] + 2**22 < 2**29
    assert len(held) == 2**27
    del held
    after = memory()
    assert after["host_bytes"] < during["host_bytes"] - 2**26
    assert after["host_bytes"] < after["host_peak_bytes"] - 2**26


def test_rates_of_chips_have_a_source_and_are_of_one_device():
    assert all(chip.source for chip in CHIPS.values())
    assert all(1e14 < chip.flops < 2e15 for chip in CHIPS.values())
    assert CHIPS["TPU v5 lite"].flops * 256 == pytest.approx(50.63e15, rel=0.01)  # a pod's
    assert CHIPS["TPU v6 lite"].flops * 256 == pytest.approx(234.9e15, rel=0.01)
