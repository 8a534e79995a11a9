"""The launcher of several processes on one machine: what it starts, passes on and answers."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LOCAL = Path(__file__).parents[2] / "launch" / "local.py"
NUMBER = "import sys; number = int(sys.argv[sys.argv.index('--process') + 1]); "


def start(number: int, program: str, *options: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, LOCAL, "-n", str(number), *options, "--", sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_each_process_knows_the_others_and_its_lines_are_told_apart():
    program = (
        "import os, sys; print(sys.argv[1:]); print(os.environ['XLA_FLAGS'].split()[-1]); "
        "print(os.environ['JAX_PLATFORMS'])"
    )
    launcher = start(3, program, "--devices", "2")
    told = launcher.communicate(timeout=60)[0].splitlines()
    assert launcher.returncode == 0
    address = told[0].split("'")[3]
    for k in range(3):
        lines = [line.removeprefix(f"[{k}] ") for line in told if line.startswith(f"[{k}] ")]
        given = ["--coordinator", address, "--processes", "3", "--process", str(k)]
        assert lines == [str(given), "--xla_force_host_platform_device_count=2", "cpu"]


def test_a_dry_run_prints_the_commands():
    launcher = start(2, "a program", "--dry-run")
    first, second = launcher.communicate(timeout=60)[0].splitlines()
    assert launcher.returncode == 0
    assert f"{sys.executable} -c 'a program' --coordinator 127.0.0.1:" in first
    assert second == first.replace("--process 0", "--process 1")


@pytest.mark.parametrize(
    ("statuses", "worst"),
    [
        ([0, 0, 0], 0),
        ([0, 75, 75], 75),
        ([75, 1, 0], 1),
        ([1, 2, 75], 2),
        ([0, -signal.SIGABRT, 0], 128 + signal.SIGABRT),
    ],
)
def test_the_worst_status_is_the_answer(statuses, worst):
    program = NUMBER + (
        f"import os; status = {statuses}[number]; "
        "os.kill(os.getpid(), -status) if status < 0 else sys.exit(status)"
    )
    launcher = start(len(statuses), program)
    launcher.communicate(timeout=60)
    assert launcher.returncode == worst


def test_sigterm_reaches_all():
    program = NUMBER + (
        "import signal, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); "
        "print('there', flush=True); time.sleep(60)"
    )
    launcher = start(2, program)
    assert launcher.stdout is not None
    assert {launcher.stdout.readline() for _ in range(2)} == {"[0] there\n", "[1] there\n"}
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(timeout=20) == 75


def test_one_that_fails_takes_the_others_with_it():
    program = NUMBER + "import time; sys.exit(3) if number else time.sleep(100)"
    begun = time.monotonic()
    launcher = start(2, program)
    launcher.communicate(timeout=60)
    assert launcher.returncode == 3
    assert time.monotonic() - begun < 30
