"""Batches on devices: two real processes take the same sizes, and find the loss that one does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.training import two_hosts


def run_on(processes: int) -> list[dict]:
    """What each of so many processes prints; two devices in all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    devices = f"--xla_force_host_platform_device_count={2 // processes}"
    environment = os.environ | {"XLA_FLAGS": devices, "JAX_PLATFORMS": "cpu"}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # half the time to compile
    started = [
        subprocess.Popen(
            [sys.executable, "-m", two_hosts.__name__, str(number), str(processes), address],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    try:
        told = [process.communicate(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, error) in zip(started, told, strict=True):
        assert process.returncode == 0, error[-3000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in told]


@pytest.mark.slow
def test_two_hosts_take_the_same_sizes_and_find_the_loss_of_one():
    first, second = run_on(2)
    (alone,) = run_on(1)
    # What each would have needed by itself is never the same.
    assert all(a != b for a, b in zip(first["own"], second["own"], strict=True))
    assert max(second["own"]) > max(first["own"])
    for told in (first, second):
        assert told["sizes"] == alone["sizes"]
        assert told["offered"] == alone["offered"]
        assert told["states"] == [two_hosts.SIZING_BATCHES + k + 1 for k in range(two_hosts.STEPS)]
        np.testing.assert_allclose(told["losses"], alone["losses"], rtol=1e-5)
    assert len(set(map(tuple, alone["sizes"]))) > 1
    assert len(set(alone["losses"])) == two_hosts.STEPS
