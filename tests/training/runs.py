"""Short real runs: songs written to MIDI, built into a data set, and a configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from m4m_jax import datasets
from m4m_jax.config import Config, make_config
from m4m_jax.models import lm
from m4m_jax.music import write_midi
from m4m_jax.training import run as module
from tests.datasets.music import song
from tests.models.small import MICRO

SETTINGS: dict[str, Any] = {
    "size": "micro",
    "data": "midi_folder/made",
    "task": "continuation",
    "max_notes": 2,
    "window": 12,
    "batch": 4,
    "steps": 12,
    "optimizer": {"learning_rate": 1e-2, "schedule": "one_cycle", "warmup": 0.3, "clip": 1.0},
    "every": {"log": 3, "validation": 4, "checkpoint": 4},
    "validation_batches": 2,
    "keep": 2,
}


def prepare(monkeypatch) -> None:
    """Make the size `micro` known."""
    monkeypatch.setitem(lm.PRESETS, "micro", MICRO)


def build_data(folder: Path) -> Path:
    """A data set of 20 made-up songs; returns where data sets live."""
    source = folder / "songs"
    source.mkdir(parents=True)
    for seed in range(20):
        write_midi(song(seed), source / f"{seed:02}.mid")
    datasets.build(SETTINGS["data"], source, folder / "data", workers=1)
    return folder / "data"


def config(**changes: Any) -> Config:
    return make_config(SETTINGS | changes, "the test")


def linked(lm: Path, **changes: Any) -> Config:
    """A configuration of an adapter on the run at `lm`."""
    adapter = {"width": 16, "heads": 2, "lora_rank": 2, "lora_alpha": 4.0}
    own = {"system": "cross", "base": str(lm), "task": "chord-to-melody", "adapter": adapter}
    return config(**(own | changes))


def arrays(path: Path, step: int) -> dict[str, np.ndarray]:
    """The model's arrays in a run's step folder, by name, whatever devices they were saved from."""
    folder = path / str(step) / "model"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        names = reader.metadata(folder).item_metadata.tree
        as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
        return reader.restore(folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def lines(path: Path) -> list[dict[str, Any]]:
    """The figures that a run wrote, line by line."""
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def folders(path: Path) -> list[int]:
    """The steps that a run's directory holds."""
    return sorted(int(p.name) for p in path.iterdir() if p.name.isdigit())


def stop_after(monkeypatch, steps: int) -> None:
    """Make training end by an error after so many steps of a run, as if the machine went away."""

    class Stop:
        def after(self, step, state, metrics):
            if step == steps:
                raise KeyboardInterrupt

        def close(self):
            pass

    train = module.train

    def short(*args, hooks, **kwargs):
        return train(*args, hooks=[*hooks, Stop()], **kwargs)

    monkeypatch.setattr(module, "train", short)
