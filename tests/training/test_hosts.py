"""Processes that find each other by their environment, and stop at the same point."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.devices import free_port
from tests.training import runs, saving_hosts

PROGRAM = """
import time
from m4m_jax.training import hosts
from m4m_jax.training.preemption import Preempted, Preemption

hosts.join(seconds=60)
stop = Preemption()
stop.watch()
stop.hold({holding})
print("joined", hosts.number(), flush=True)
try:
    for point in range(2000):
        hosts.store().wait_at_barrier(str(point), 60_000)  # as the steps of a run wait
        time.sleep(0.05 * hosts.number())
        if stop.passed():
            print("stops at", point, flush=True)
            stop.hold(False)
            raise Preempted
except Preempted:
    stop.leave()
"""


def start(process: int, port: int, program: str) -> subprocess.Popen:
    """One of two, with the environment that SLURM gives."""
    slurm = {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": "0",
        "JAX_COORDINATOR_PORT": str(port),
        "JAX_PLATFORMS": "cpu",
    }
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | slurm,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("signalled", [0, 1])
@pytest.mark.parametrize("holding", [True, False])
def test_a_signal_to_one_stops_both_at_one_point(signalled, holding):
    port = free_port()
    processes = [start(k, port, PROGRAM.format(holding=holding)) for k in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("joined")
    time.sleep(1)
    begun = time.monotonic()
    processes[signalled].send_signal(signal.SIGTERM)
    told = [process.communicate(timeout=60) for process in processes]
    assert time.monotonic() - begun < 25
    assert [process.returncode for process in processes] == [75, 75], told
    points = {out.strip() for out, _ in told}
    assert len(points) == 1
    assert next(iter(points)).startswith("stops at ") == holding
    # One tells it.
    assert "stopped by SIGTERM; nothing was saved yet; the same command" in told[0][1]
    assert "stopped" not in told[1][1]


def test_a_signal_is_heard_while_python_is_not():
    """As while a program compiles: the main thread is in one long call, and no handler runs."""
    program = (
        "import hashlib; from m4m_jax.training.preemption import Preemption; "
        "Preemption().watch(); print('computing', flush=True); "
        "hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)"
    )
    process = start(0, free_port(), program)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, time.monotonic() - begun < 25) == (75, True), told
    assert "stopped by SIGTERM" in told


@pytest.mark.slow
def test_a_checkpoint_is_read_by_other_numbers_of_processes(tmp_path):
    for step, number in enumerate((2, 4, 1)):
        address = f"127.0.0.1:{free_port()}"
        flags = f"--xla_force_host_platform_device_count={4 // number}"
        command = [sys.executable, "-m", saving_hosts.__name__, str(tmp_path), address, str(number)]
        processes = [
            subprocess.Popen(
                [*command, str(k)],
                env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for k in range(number)
        ]
        told = [process.communicate(timeout=120) for process in processes]
        for process, (out, error) in zip(processes, told, strict=True):
            assert process.returncode == 0, error[-3000:]
            assert f"went on from {step}\n" in out
    assert runs.folders(tmp_path) == [2, 3]
