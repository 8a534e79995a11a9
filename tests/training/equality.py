"""How far runs of several processes are from those of one, in float64; run as a program.

    python -m tests.training.equality [--steps 20] [--systems lm] [--meshes '{data: 4}']

Prints, for each system, mesh and number of processes, the tensor that differs most.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np

from m4m_jax.config import SYSTEMS
from tests.training import runs
from tests.training.command import Process, write_config

TOLERANCE = 1e-9
"""Of a tensor's norm."""
DEVICES = 4
MESHES = ("{data: 4}", "{data: 2, fsdp: 2}", "{data: 2, tensor: 2}")


def train(
    folder: Path, name: str, processes: int, *changes: str, config: str = "c.yaml"
) -> Process:
    """Start a run of so many processes, with four devices in all."""
    return Process(
        *("train", folder / config, *changes, "-o", folder / name, "--data-dir", folder / "data"),
        processes=processes,
        devices=DEVICES // processes,
        JAX_ENABLE_X64="1",
        JAX_COMPILATION_CACHE_DIR=os.fspath(folder / "cache"),
    )


def differences(path: Path, other: Path, step: int) -> dict[str, float]:
    """By tensor, how far two runs are from each other at a step, over the tensor's norm.

    Softmax does not see the biases of keys: their gradients are rounding errors, which AdamW blows
    up to the size of all others.
    """
    one, two = runs.arrays(path, step), runs.arrays(other, step)
    assert one.keys() == two.keys()
    return {
        name: float(np.linalg.norm(two[name] - value) / max(np.linalg.norm(value), 1e-300))
        for name, value in one.items()
        if not name.endswith("key.bias")
    }


def configs(folder: Path, steps: int) -> None:
    """Write the configuration of each system; adapters stand on a run of the language model."""
    every = {"log": 10, "validation": 100, "checkpoint": 100}
    write_config(folder / "lm.yaml", steps=steps, every=every)
    task = {"steps": steps, "every": every, "task": "chord-to-melody"}
    write_config(folder / "seq2seq.yaml", **task, system="seq2seq", size="tiny")
    updates = {"lora_rank": 2, "lora_alpha": 4.0}
    adapters = {"cross": {"width": 16, "heads": 2, **updates}, "self": updates, "coco-mulla": {}}
    for system, adapter in adapters.items():
        own = {"system": system, "adapter": adapter, "base": os.fspath(folder / "base")}
        write_config(folder / f"{system}.yaml", **task, **own)


def finish(process: Process) -> None:
    """Wait for a run, which must end well."""
    assert process.end(seconds=3600)[0] == 0, process.told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--systems", nargs="+", default=SYSTEMS)
    parser.add_argument("--meshes", nargs="+", default=MESHES)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs.build_data(folder)
        configs(folder, given.steps)
        finish(train(folder, "base", 1, "steps=1", config="lm.yaml"))
        for system in given.systems:
            for number, mesh in enumerate(given.meshes):
                for processes in (1, 2, 4):
                    run = f"{system}-{number}-{processes}"
                    finish(train(folder, run, processes, f"mesh={mesh}", config=f"{system}.yaml"))
                    found = differences(folder / f"{system}-{number}-1", folder / run, given.steps)
                    worst = max(found, key=lambda tensor: found[tensor])
                    print(f"{system} {mesh} {processes}: {found[worst]:.1e} ({worst})", flush=True)


if __name__ == "__main__":
    main()
