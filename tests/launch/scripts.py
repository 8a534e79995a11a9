"""The scripts of launch/, run as a user runs them, and stand-ins for the engines that they call."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script of launch/ with arguments and more of an environment."""
    return subprocess.run(
        ["bash", str(LAUNCH / script), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def tool(name: str) -> str:
    """A program that this environment has, active or not."""
    found = shutil.which(
        name, path=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
    )
    assert found is not None, f"{name} is not installed; pip install -e '.[test]'"
    return found


def commands(output: str, program: str) -> list[list[str]]:
    """The commands of one program that a dry run printed, word by word as a shell reads them."""
    found = subprocess.run(
        ["bash"],
        input=f'{program}() {{ printf "%s\\0" "$@"; printf "\\n\\0"; }}\n'
        + "\n".join(line for line in output.splitlines() if line.startswith(f"{program} ")),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [part.strip("\0").split("\0") for part in found.split("\n\0") if part]


def stand_in(folder: Path, program: str, body: str) -> None:
    """Write a program that stands in for one of an engine that is not on this machine.

    Its calls, a line each, are added to `folder`/calls before `body`, shell source, runs.
    """
    path = folder / program
    calls = shlex.quote(str(folder / "calls"))
    path.write_text(f'#!/usr/bin/env bash\necho "{program} $*" >> {calls}\n{body}\n')
    path.chmod(0o755)


def on_path(folder: Path) -> dict[str, str]:
    """The environment in which the stand-ins in a folder are found first."""
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
