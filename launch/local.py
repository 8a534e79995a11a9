#!/usr/bin/env python3
"""Start the processes of a training run on this machine, as the hosts of a pod would be.

    python launch/local.py -n 4 -- m4m train CONFIG [KEY=VALUE]...

Each gets the command with `--coordinator`, `--processes` and `--process`; its lines come out with
its number before them. SIGTERM and Ctrl-C are passed on to all. When one fails the others, which
wait for it, are ended. The exit status is the worst: 2 (a mistake, not to be tried again) before
any other failure, that before 75 (stopped, can go on), and 0 only if all finished.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

MISTAKE, RESUME = 2, 75
GRACE = 10.0
"""Seconds that the others have to end by themselves once one has failed."""


def free_port() -> int:
    """A port of this machine that nobody listens to."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def commands(command: Sequence[str], number: int) -> list[list[str]]:
    """What each of so many processes is started with."""
    together = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", str(number)]
    return [[*command, *together, "--process", str(k)] for k in range(number)]


def start(command: Sequence[str], devices: int | None) -> subprocess.Popen:
    """Start a process, with so many virtual CPU devices if given."""
    environment = dict(os.environ)
    if devices is not None:
        flags = f"--xla_force_host_platform_device_count={devices}"
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flags}".strip()
        environment["JAX_PLATFORMS"] = "cpu"
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C comes to this process alone, which passes it on
    )


def copy_lines(process: subprocess.Popen, number: int) -> None:
    """Print a process's lines with its number before them."""
    assert process.stdout is not None
    for line in process.stdout:
        print(f"[{number}] {line.rstrip()}", flush=True)


def wait(processes: Sequence[subprocess.Popen]) -> list[int]:
    """Wait for all; where one fails, end the others after a while. Returns their statuses."""
    failed_at = None
    while any(process.poll() is None for process in processes):
        statuses = [process.poll() for process in processes]
        if failed_at is None and any(s not in (None, 0, RESUME) for s in statuses):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > GRACE:
            for process in processes:
                if process.poll() is None:
                    process.kill()
        time.sleep(0.1)
    return [process.wait() for process in processes]


def worst(statuses: Sequence[int]) -> int:
    """The exit status that stands for all."""
    failures = [s for s in statuses if s not in (0, RESUME)]
    if MISTAKE in failures:
        return MISTAKE
    if failures:
        # Those that were ended because another failed do not hide its status.
        first = next((s for s in failures if s != -signal.SIGKILL), failures[0])
        return first if first > 0 else 128 - first
    return max(statuses)


def main() -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, required=True, metavar="N", help="how many processes")
    parser.add_argument(
        "--devices",
        type=int,
        metavar="D",
        help="virtual CPU devices of each (default: its own)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be started")
    parser.add_argument("command", nargs="+", help="the command of each, after --")
    given = parser.parse_args()
    each = commands(given.command, given.n)
    if given.dry_run:
        print("\n".join(map(shlex.join, each)))
        return 0
    processes = [start(command, given.devices) for command in each]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: [p.send_signal(number) for p in processes])
    readers = [
        threading.Thread(target=copy_lines, args=(process, k))
        for k, process in enumerate(processes)
    ]
    for reader in readers:
        reader.start()
    statuses = wait(processes)
    for reader in readers:
        reader.join()
    return worst(statuses)


if __name__ == "__main__":
    sys.exit(main())
