"""Several real processes train as one does, stop together, and go on as another number of them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.training import runs
from tests.training.command import write_config
from tests.training.equality import TOLERANCE, differences, train


@pytest.mark.slow
def test_two_processes_stop_together_and_four_go_on_as_one_would(tmp_path):
    write_config(
        tmp_path / "c.yaml",
        steps=20,
        every={"log": 1, "validation": 10, "checkpoint": 100},
        mesh={"data": 2, "fsdp": 2},
    )
    runs.build_data(tmp_path)
    alone = train(tmp_path, "one", 1)
    assert alone.end()[0] == 0, alone.told

    several = train(tmp_path, "several", 2)
    several.read_to("[0] lm continuation 5/")
    # The signal reaches one of them only, and not the one that the others talk through.
    os.kill(child(several.process.pid, "--process 1"), signal.SIGTERM)
    status, seconds = several.end()
    assert status == 75, several.told
    assert seconds < 25
    assert several.told.count("stopped by SIGTERM; the last good checkpoint is") == 1
    (stopped_at,) = runs.folders(tmp_path / "several")
    assert 5 < stopped_at < 20

    more = train(tmp_path, "several", 4)
    assert more.end()[0] == 0, more.told
    assert "[1] lm" not in more.told  # one tells
    found = differences(tmp_path / "one", tmp_path / "several", 20)
    assert max(found.values()) < TOLERANCE, max(found, key=lambda name: found[name])


@pytest.mark.slow
def test_four_processes_train_an_adapter_as_one_does_and_tell_what_is_asked(tmp_path):
    """On a mesh of which every axis goes across processes: `tensor` has pairs read the same."""
    every = {"log": 1, "validation": 100, "checkpoint": 100}
    write_config(tmp_path / "lm.yaml", steps=1, every=every)
    runs.build_data(tmp_path)
    base = train(tmp_path, "base", 1, config="lm.yaml")
    assert base.end()[0] == 0, base.told
    adapter = {"width": 16, "heads": 2, "lora_rank": 2, "lora_alpha": 4.0}
    linked = {"system": "cross", "task": "chord-to-melody", "adapter": adapter}
    linked["base"] = os.fspath(tmp_path / "base")
    mesh = {"data": 2, "tensor": 2}
    write_config(tmp_path / "c.yaml", steps=2, every=every, mesh=mesh, **linked)
    for processes in (1, 4):
        process = train(tmp_path, f"by-{processes}", processes, "--all-hosts")
        assert process.end()[0] == 0, process.told
    assert all(f"[{k}] cross chord-to-melody 2/2" in process.told for k in range(4))
    told = {
        path.name: [json.loads(line).get("nll") for line in path.read_text().splitlines()]
        for path in (tmp_path / "by-4").glob("metrics*.jsonl")
    }
    assert set(told) == {"metrics.jsonl", *(f"metrics-host_{k}.jsonl" for k in (1, 2, 3))}
    for losses in told.values():  # of the whole batch, whoever tells it
        assert losses == told["metrics.jsonl"]
    found = differences(tmp_path / "by-1", tmp_path / "by-4", 2)
    assert max(found.values()) < TOLERANCE, max(found, key=lambda name: found[name])


def test_a_batch_that_does_not_divide_among_processes_is_refused(tmp_path):
    write_config(tmp_path / "c.yaml", batch=5)
    process = train(tmp_path, "run", 2)
    status, _ = process.end()
    assert status == 2
    told = "m4m: a batch of 5 does not divide into 4 parts (1 to accumulate on 4 devices)"
    assert process.told.count(told) == 2


def child(parent: int, words: str) -> int:
    """The process that another has started with these words in its command."""
    for folder in Path("/proc").iterdir():
        try:
            parents = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            command = (folder / "cmdline").read_text().replace("\0", " ")
        except (OSError, IndexError):
            continue
        if parents == str(parent) and words in command:
            return int(folder.name)
    raise AssertionError(f"no child of {parent} has {words}")
