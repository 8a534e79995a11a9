from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from m4m_jax.config import load_config, make_config
from m4m_jax.errors import M4MError
from m4m_jax.music.tasks import TASKS, get_task
from m4m_jax.tpu import chips, fills
from m4m_jax.tpu import compile as compiling
from m4m_jax.tpu.compile import Report, Target, lines
from m4m_jax.tpu.costs import Collective, Costs
from m4m_jax.tpu.scaling import CHIPS, predictions
from m4m_jax.tpu.table import cases

PROGRAM = "from m4m_jax.cli import main; main()"


def m4m(*arguments: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--topology", "v5x:2x2"], "topology 'v5x:2x2' is none"),
        (["--topology", "v5e:3x7"], "v5e:3x7 is none that libtpu knows"),
        (["--topology", "v5e:4x4"], "a batch of 8 does not divide into 16 parts"),
        (["--topology", "v5e:4x4", "mesh={data: 3}"], "takes a multiple of 3 devices, not 16"),
    ],
)
def test_what_cannot_be_compiled_is_refused_in_one_line(arguments, fault):
    done = m4m("compile", "configs/nottingham_lm.yaml", *arguments)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("m4m: ")]
    assert fault in line


@pytest.mark.slow
def test_a_training_step_is_compiled_for_a_pod_of_tpus(tmp_path):
    out = tmp_path / "report.json"
    done = m4m(
        *("compile", "configs/nottingham_lm.yaml", "preset=small", "--topology", "v5e:2x4"),
        *("--per-device-batch", "1", "--json", str(out)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "fits: " in done.stdout
    report = Report(**json.loads(out.read_text()))
    assert report.chips == report.windows == 8
    trained, whole = report.parameters
    assert report.memory["parameters"] == 4 * whole
    assert report.memory["optimiser"] == pytest.approx(8 * trained, abs=8)
    assert report.memory["peak"] > sum(report.memory[k] for k in ("parameters", "optimiser"))
    assert 0.9 * report.useful < report.flops < 1.1 * report.useful
    # Gradients go round the ring twice, and once: in the loop over chunks of logits, too.
    sent = report.collectives["all-reduce"]
    assert sent == pytest.approx(2 * 7 / 8 * 4 * trained, rel=0.05)


def test_an_adapter_needs_no_base_to_be_compiled():
    file, changes = "configs/nottingham_chord_to_melody.yaml", ["system=cross", "size=3"]
    with pytest.raises(M4MError, match="needs base=DIR"):
        load_config(file, changes)
    config = load_config(file, changes, baseless=True)
    assert (config.size, config.base) == ("3", None)


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"density-split"}))
def test_every_task_has_songs_that_stand_for_its_own(name):
    how = {"windows": 2, "window": 96, "vocabulary": "plain"}
    task = get_task(name)
    size = fills.usual_size(task, shards=2, masked=False, **how)
    assert 0 < size.rows <= 2 * 2 * 96
    assert 0 < size.blocks <= 2 * 96
    assert size.read == 0
    assert fills.usual_size(task, shards=2, masked=True, **how).read > 0


def test_parts_that_no_song_has_are_named():
    config = make_config({"data": "x", "task": "copy", "target": "track-9"}, "the test")
    from m4m_jax.data.supply import tasks_of

    with pytest.raises(M4MError, match="have no part 'track-9'"):
        fills.usual_size(
            tasks_of(config)[0],
            windows=1, shards=1, window=32, vocabulary="plain", masked=False,
        )  # fmt: skip


def test_the_longest_of_the_times_is_the_bound():
    inside = Collective("all-reduce", 2e9, 16, share=0.5)
    outside = Collective("all-reduce", 1e9, 32, slices=True)
    found = chips.roofline(Costs(197e12, 819e8, (inside, outside)), chips.TPUS["v5e"])
    assert found.compute == pytest.approx(1.0)
    assert found.memory == pytest.approx(0.1)
    assert found.links == pytest.approx(2e9 / 100e9)
    assert found.network == pytest.approx(1e9 / 3.125e9)
    assert (found.seconds, found.bound) == (found.compute, "compute")


def report(windows: int, compute: float) -> Report:
    return Report(
        told="as of bands",
        turn="step",
        chips=256,
        mesh={"data": 256, "fsdp": 1, "tensor": 1},
        windows=256 * windows,
        parameters=(10, 20),
        memory={"parameters": 2**30, "peak": 2**31},
        capacity=16 * 2**30,
        useful=compute * 100e12,
        flops=compute * 197e12,
        roofline={"compute": compute, "memory": 0.02, "links": 0.01, "network": 0.0},
    )


def test_a_report_says_what_bounds_a_step():
    told = "\n".join(lines(report(8, 0.1), Target("v5e:16x16")))
    assert "fits: 14.00 GiB to spare of 16 GiB" in told
    assert "100.00 ms a step at the least, bound by compute; utilisation 51%" in told


def test_what_nothing_depends_on_is_not_useful():
    found = dataclasses.replace(report(8, 0.1), useful=0.1 * 300e12)
    assert found.utilisation(Target("v5e:16x16")) == pytest.approx(1.0)


def test_a_report_says_by_how_much_it_does_not_fit():
    small = Report(**{**vars(report(8, 0.1)), "roofline": {}, "capacity": 2**30})
    assert "does not fit: 1.00 GiB more than the device has of 1 GiB" in list(
        lines(small, Target("v5e:16x16"))
    )


@pytest.mark.parametrize(
    ("message", "room"),
    [
        ("in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.", 20.5),
        ("the total memory required for HLO temporaries (24G) exceeds available HBM (15.75G).", 24),
        ("INTERNAL: something else", None),
    ],
)
def test_what_is_needed_is_read_from_both_messages_of_xla(message, room):
    found = compiling._room(message)
    assert found == (None if room is None else (room * 2**30, 15.75 * 2**30))


def test_weak_scaling_keeps_a_chips_work_and_strong_shares_it_out():
    weak, strong = predictions({1: report(1, 0.02), 8: report(8, 0.16)})
    assert {step.compute for step in weak} == {0.16}
    assert [step.links for step in weak] == sorted(step.links for step in weak)
    assert weak[-1].links == pytest.approx(0.01)
    # 256 windows on 8 chips are 32 a chip, in four parts of 8.
    assert strong[0].compute == pytest.approx(4 * 0.16)
    assert strong[-1].compute == pytest.approx(0.02)
    assert len(weak) == len(strong) == len(CHIPS)
    assert strong[-1].in_turn == pytest.approx(0.03)


def test_the_table_has_all_sizes_and_systems_on_three_pods():
    found = list(cases())
    assert len({case.name for case in found}) == len(found) == 3 * (4 * 4 + 1)
    for case in found:
        changes = [text for text in case.changes if not text.startswith("--")]
        load_config(f"configs/{case.config}.yaml", changes, baseless=True)
