"""What a real run tells of itself: figures, TensorBoard's files, a profile."""

from __future__ import annotations

import math
import os
import socket
import struct
import subprocess
import sys

import jax
import pytest
from tensorboardX.proto.event_pb2 import Event

from m4m_jax.training.run import run
from tests.training import runs, telling_hosts
from tests.training.runs import lines

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_compile", "shared_compilations", "micro"),
]
STEPS = 7
EVERY = {"log": 1, "validation": 5, "checkpoint": 100}
CONSTANT = {"learning_rate": 1e-3}
"""A rate that does not depend on the number of steps, which may then change."""


@pytest.fixture(scope="module")
def path(data, tmp_path_factory, quick_compile, shared_compilations):
    """A finished run with a profile of two steps."""
    path = tmp_path_factory.mktemp("runs") / "lm"
    with pytest.MonkeyPatch.context() as patch:
        runs.prepare(patch)
        settings = {"steps": STEPS, "every": EVERY, "optimizer": CONSTANT}
        run(runs.config(profile="3..4", **settings), path, data)
    return path


def scalars(path) -> dict[tuple[int, str], float]:
    """What TensorBoard's file holds: length, checksum, an event, checksum; and so on."""
    (file,) = path.glob("events.*")
    data, found = file.read_bytes(), {}
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        found |= {(event.step, value.tag): value.simple_value for value in event.summary.value}
        data = data[16 + length :]
    return found


def traced(folder) -> list[int]:
    """The numbers of the training steps in a profile."""
    (file,) = folder.glob("plugins/profile/*/*.xplane.pb")
    profile = jax.profiler.ProfileData.from_file(str(file))
    events = (event for plane in profile.planes for line in plane.lines for event in line.events)
    return sorted(dict(event.stats)["step_num"] for event in events if event.name == "train")


def test_figures_are_there_and_mean_what_they_say(path):
    first, *log = lines(path)[1:]
    assert [line["step"] for line in log] == [*range(2, STEPS + 1)]
    assert "step_seconds" not in first
    for line in log:
        assert all(math.isfinite(value) for value in line.values())
        assert line["tokens_per_second"] * line["step_seconds"] == pytest.approx(line["tokens"])
        assert 0 <= line["input_wait_seconds"] <= line["step_seconds"]
        assert 0 < line["flops_per_second"] < 1e13
        assert ("validation_seconds" in line) == ("validation_nll" in line)
        assert "utilization" not in line
        assert 2**26 < line["host_bytes"] <= line["host_peak_bytes"]
    # All steps of this run are of one size, and so of one amount of arithmetic.
    flops = [line["flops_per_second"] * line["step_seconds"] for line in log]
    assert flops == pytest.approx([log[0]["flops"]] * len(log))


def test_tensorboard_has_the_same(path):
    written = {
        (line["step"], name): value
        for line in lines(path)[1:]
        for name, value in line.items()
        if name != "step"
    }
    assert scalars(path / "tensorboard") == pytest.approx(written)


def test_the_profile_has_the_steps_that_were_asked_for(path):
    assert traced(path / "tensorboard") == [3, 4]


def test_a_profile_may_be_asked_for_when_a_run_goes_on(path, data, capsys):
    settings = {"steps": STEPS + 2, "every": EVERY, "optimizer": CONSTANT}
    longer = runs.config(profile=f"2..{STEPS + 2}", **settings)
    before = set((path / "tensorboard").glob("plugins/profile/*"))
    run(longer, path, data)
    (new,) = set((path / "tensorboard").glob("plugins/profile/*")) - before
    assert f"profile of steps {STEPS + 1}..{STEPS + 2}: {path / 'tensorboard'}" in (
        capsys.readouterr().out
    )
    assert list(new.glob("*.xplane.pb"))
    run(longer, path, data)
    assert f"no profile: step {STEPS + 2} is done before" in capsys.readouterr().out


def test_one_of_several_hosts_tells():
    """Two real processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", telling_hosts.__name__, address]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    hosts = [
        subprocess.Popen([*command, str(number)], env=environment, stdout=subprocess.PIPE)
        for number in range(2)
    ]
    said = [host.communicate(timeout=120)[0].decode().split() for host in hosts]
    assert said == [
        ["alone", "metrics.jsonl", "tensorboard", "both"],
        ["metrics-host_1.jsonl", "tensorboard-host_1", "both"],
    ]
