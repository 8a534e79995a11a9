"""Programs run in a process of their own, with several virtual devices."""

from __future__ import annotations

import os
import socket
import subprocess
import sys


def run_with_devices(program: str, devices: int = 8) -> str:
    """Run Python source with so many CPU devices; returns what it printed."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
