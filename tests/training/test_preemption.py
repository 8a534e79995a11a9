"""SIGTERM and SIGKILL: real runs in processes of their own lose nothing."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.training import kills, runs
from tests.training.command import Process, write_config

pytestmark = pytest.mark.slow

STEPS = 24
FIGURES = ("step", "nll", "tokens", "gradient_norm", "validation_nll")


def train(folder: Path, name: str, cache: str = "cache") -> Process:
    return Process(
        *("train", folder / "c.yaml", "-o", folder / name, "--data-dir", folder / "data"),
        JAX_COMPILATION_CACHE_DIR=os.fspath(folder / cache),
    )


def figures(path: Path) -> list[dict]:
    lines = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    return [{name: line.get(name) for name in FIGURES} for line in lines]


def test_sigterm_at_any_moment_saves_and_loses_nothing(tmp_path):
    """In turn: compiling, in a step, in validation, saving; each time the same command goes on."""
    every = {"log": 1, "validation": 8, "checkpoint": 6}
    write_config(tmp_path / "c.yaml", steps=STEPS, every=every, validation_batches=40)
    runs.build_data(tmp_path)
    whole = train(tmp_path, "whole", "none")
    assert whole.end()[0] == 0, whole.told

    path, at = tmp_path / "stopped", []
    for words in ("compiling", "continuation 7/", "[validating]", "[saving]", "continuation 20/"):
        process = train(tmp_path, "stopped")
        process.read_to(words)
        status, seconds = process.end(signal.SIGTERM)
        assert status == 75, process.told
        assert seconds < 25
        told = process.told.splitlines()[-1]
        assert told.startswith("m4m: stopped by SIGTERM; ")
        assert told.endswith("; the same command takes it up again")
        at.append(int(found.group(1)) if (found := re.search(r"/(\d+); the same", told)) else 0)
        print(f"at {words!r}: {seconds:.1f} s to the end, saved {at[-1]}")
    assert at[0] == 0
    assert 7 <= at[1] <= at[2] <= at[3] < at[4] < STEPS
    last = train(tmp_path, "stopped")
    assert last.end()[0] == 0, last.told
    one, two = (runs.arrays(p, STEPS) for p in (tmp_path / "whole", path))
    for name, value in one.items():
        np.testing.assert_array_equal(two[name], value, err_msg=name)
    assert figures(path) == figures(tmp_path / "whole")


def test_kills_at_random_moments_change_nothing(tmp_path):
    assert kills.compare(2, seed=1, folder=tmp_path) == 0


def test_a_full_disk_stops_a_run_and_names_the_last_good_checkpoint(tmp_path):
    """No file may grow past a few kilobytes any more, which an array's does."""
    every = {"log": 1, "validation": 100, "checkpoint": 3}
    write_config(tmp_path / "c.yaml", steps=STEPS, every=every)
    runs.build_data(tmp_path)
    process = train(tmp_path, "full")
    for _ in range(2):  # steps 3 and 6
        process.read_to("[saving]")
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    status, _ = process.end()
    assert status == 2, process.told
    good = runs.folders(tmp_path / "full")[-1]
    assert good % 3 == 0
    assert good >= 6
    told = [line for line in process.told.splitlines() if line.startswith("m4m: ")]
    assert len(told) == 1
    assert re.search(r"step \d+ could not be saved \(File too large\)", told[0]), told
    assert told[0].endswith(f"the last good checkpoint is {tmp_path / 'full' / str(good)}")
    assert "Traceback" not in process.told
