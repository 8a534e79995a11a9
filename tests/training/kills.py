"""A run that is killed again and again comes to the same parameters, to the bit; run as a program.

    python -m tests.training.kills 20 [--seed S]

SIGKILL comes so many times, each at a moment drawn from the time that the whole run takes, and each
is followed by a start of the same command. A run that finishes is compared, and another one begun.
Prints a line for each kill, and what came of it all.
"""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.training import runs
from tests.training.command import Process, write_config

STEPS = 150
EVERY = {"log": 1, "validation": 25, "checkpoint": 2}


def train(folder: Path, name: str) -> Process:
    return Process(
        *("train", folder / "c.yaml", "-o", folder / name, "--data-dir", folder / "data"),
        JAX_COMPILATION_CACHE_DIR=str(folder / "cache"),
    )


def last_line(process: Process) -> str:
    lines = process.told.splitlines()
    return lines[-1][:60] if lines else "nothing told yet"


def kill(folder: Path, name: str, kills: int, rng: random.Random, seconds: float) -> int:
    """Kill a run so many times, if it does not finish before; returns how many times."""
    for number in range(kills):
        process = train(folder, name)
        moment = rng.uniform(0, seconds)
        time.sleep(moment)
        if process.end(signal.SIGKILL)[0] == 0:
            return number
        there = runs.folders(folder / name) if (folder / name).exists() else []
        told = f"killed after {moment:.1f} s, at '{last_line(process)}'; checkpoints {there}"
        print(told, flush=True)
    return kills


def compare(kills: int, seed: int, folder: Path) -> int:
    """Returns how many tensors differ from those of a run that was left alone."""
    write_config(folder / "c.yaml", steps=STEPS, every=EVERY, keep=1)
    runs.build_data(folder)
    for name in ("whole", "again"):  # only the first has to compile, and the killed ones do not
        begun = time.monotonic()
        process = train(folder, name)
        assert process.end()[0] == 0, process.told
        seconds = time.monotonic() - begun
    one = runs.arrays(folder / "whole", STEPS)
    rng, used, odd, total = random.Random(seed), 0, 0, 0
    for name in map("killed-{}".format, itertools.count()):
        used += kill(folder, name, kills - used, rng, seconds)
        final = train(folder, name)
        assert final.end()[0] == 0, final.told
        two = runs.arrays(folder / name, STEPS)
        assert one.keys() == two.keys()
        odd += sum(not np.array_equal(one[name], two[name]) for name in one)
        total += len(one)
        if used == kills:
            break
    print(f"{kills} kills: {odd} of {total} tensors differ")
    return odd


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return min(1, compare(given.kills, given.seed, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
