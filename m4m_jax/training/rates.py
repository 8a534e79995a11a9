"""How fast a run is: its figures as numbers, now and then, with rates, waits and memory."""

from __future__ import annotations

import time
from typing import Any

import jax

from m4m_jax.chips import CHIPS
from m4m_jax.memory import resident
from m4m_jax.pretrained import METRIC
from m4m_jax.training.state import TrainState

Metrics = dict[str, Any]


class Rates:
    """Turns metrics into numbers every so many steps, and adds what the steps since took.

    Every step's metrics must have `tokens`, `flops` and `input_wait_seconds`, and
    `validation_seconds` where there was a validation, which is not counted as time of steps. The
    first step after the start compiles and is not timed.
    """

    def __init__(self, every: int):
        self.every = every
        self.devices = jax.devices()
        self.started = False
        self._restart()

    def _restart(self) -> None:
        self.since, self.passed = time.monotonic(), list[Metrics]()

    def after(self, step: int, state: TrainState, metrics: Metrics) -> None:
        """Fetch the step's figures, which waits for the device."""
        logged = step % self.every == 0 or METRIC in metrics
        if self.started:
            names = ("tokens", "flops", "input_wait_seconds", "validation_seconds")
            self.passed.append({name: metrics.get(name, 0) for name in names})
        elif not logged:
            jax.block_until_ready(metrics)  # what is timed begins with the second step
        if logged:
            metrics.update(jax.device_get(metrics))
            for name, value in metrics.items():
                metrics[name] = int(value) if name in ("tokens", "flops") else float(value)
            metrics.update(self._rates() if self.passed else {}, **memory(), logged=True)
        if logged or not self.started:
            self._restart()
        self.started = True

    def _rates(self) -> Metrics:
        """What the steps since the last time took, on average."""
        seconds = time.monotonic() - self.since - self._sum("validation_seconds")
        steps, flops = len(self.passed), self._sum("flops")
        rates = {
            "step_seconds": seconds / steps,
            "input_wait_seconds": self._sum("input_wait_seconds") / steps,
            "tokens_per_second": self._sum("tokens") / seconds,
            "flops_per_second": flops / seconds,
        }
        chip = CHIPS.get(self.devices[0].device_kind)
        if chip is not None:
            rates["utilization"] = flops / seconds / (chip.flops * len(self.devices))
        return rates

    def _sum(self, name: str) -> float:
        return float(sum(jax.device_get([passed[name] for passed in self.passed])))

    def close(self) -> None:
        """Nothing to do."""


def memory() -> Metrics:
    """Bytes in use: of this host's fullest device and the most so far, or else of this process."""
    told = [device.memory_stats() for device in jax.local_devices()]
    if all(told):
        return {
            "device_bytes": max(stats["bytes_in_use"] for stats in told),
            "device_peak_bytes": max(stats["peak_bytes_in_use"] for stats in told),
        }
    held = resident()
    return {} if held is None else {"host_bytes": held.now, "host_peak_bytes": held.most}
