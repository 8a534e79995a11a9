"""What is said of data sets, and how they are packed, on the command line."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from flax import nnx

import m4m_jax
from m4m_jax import datasets, pretrained
from m4m_jax.cli import _run
from m4m_jax.config import make_config
from m4m_jax.data import inspect, packing, pipeline, stored, supply
from m4m_jax.data.packing import BLOCK
from m4m_jax.models.card import Card
from m4m_jax.models.lm import LM
from m4m_jax.music import PLAIN, VELOCITY, write_midi
from tests.datasets.music import song
from tests.models.small import CONFIG

FIELDS = {"data": "midi_folder", "task": "chord-to-melody", "window": 48, "batch": 4}
VIEW = {"reference": None, "target": "all", "max_notes": 4, "window": 12}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "songs").mkdir()
    for seed in range(24):
        write_midi(song(seed), folder / "songs" / f"{seed:02}.mid")
    datasets.build("midi_folder", folder / "songs", folder / "data", workers=1)
    return folder / "data"


def test_packing_figures_are_those_of_the_batches(built):
    config = make_config(FIELDS, "the test")
    windows = supply.supply(config, built).train
    found = inspect.packing_of(windows, config, batches=5)
    batches = [[windows[4 * k + b] for b in range(4)] for k in range(5)]
    for stream in ("reference", "target"):
        rows = [np.concatenate([w[stream] for w in batch]) for batch in batches]
        assert found.fill[stream] == pytest.approx(np.mean(np.array(rows) != PLAIN.pad))
        different = [len(np.unique(r, axis=0)) / len(r) for r in rows]
        assert found.distinct[stream] == pytest.approx(np.mean(different))
    both = [np.concatenate([w[s] for w in batch for s in stored.STREAMS]) for batch in batches]
    needs = [len(np.unique(rows, axis=0)) for rows in both]
    assert found.distinct["both"] == pytest.approx(np.mean(needs) / (2 * 4 * 48))
    assert found.padded == (2 * 4 * 48, 4 * 48 * 16)
    assert sum(found.taken) == pytest.approx(1)
    assert np.mean(needs) <= found.packed[0] <= found.padded[0]
    rows, blocks, _ = np.dot(found.taken, found.sizes)
    assert found.packed == pytest.approx((rows, blocks * BLOCK))


def test_inspect_prints_what_there_is(built, capsys):
    options = ["--window", "48", "--batch", "4", "--data-dir", str(built)]
    assert _run(["data", "inspect", "midi_folder", "--task", "chord-to-melody", *options]) == 0
    text = capsys.readouterr().out
    splits = datasets.info("midi_folder", built).splits
    assert text.startswith(f"midi_folder/default: 24 songs ({splits['train']} train, ")
    assert f"{128 * splits['train']} steps in training songs, 128 in the median one" in text
    assert "windows of 48 steps, N = 8, batches of 4" in text
    for line in (
        r"stream +tokens not PAD +distinct rows",
        r"reference +\d+\.\d% +\d+\.\d%",
        r" both +\d+\.\d%",
        r"rows a batch +blocks of 64 tokens a batch +share of batches",
        r"rows of the local encoder: \d+ a batch instead of 384, \d+\.\d times fewer",
        r"tokens of the local decoder: \d+ a batch instead of 3072, \d+\.\d times fewer",
    ):
        assert re.search(line, text), line
    assert _run(["data", "inspect", "midi_folder", *options]) == 0
    text = capsys.readouterr().out
    assert "reference" not in text
    assert "both" not in text


def test_inspect_looks_at_the_batches_of_a_run(built, tmp_path, capsys):
    file = tmp_path / "run.yaml"
    mixture = [{"task": "chord-to-melody"}, {"task": "copy", "weight": 2}]
    fields = {"data": "midi_folder", "mixture": mixture, "window": 48, "batch": 4, "seed": 3}
    fields |= {"starts": "bars", "vocabulary": "velocity", "pitch_shift": False}
    file.write_text(yaml.safe_dump(fields))
    how = {"encoder": "masked", "encoder_dropout": "per_row"}
    changes = [f"{key}={value}" for key, value in how.items()]
    assert _run(["data", "inspect", str(file), *changes, "--data-dir", str(built)]) == 0
    text = capsys.readouterr().out
    config = make_config(fields | how, "the test")
    found = supply.supply(config, built)
    assert "task chord-to-melody, copy: windows of 48 steps, N = 16, batches of 4\n" in text
    assert all(f"{line}\n" in text for line in found.summary if line.startswith("training"))
    stream, as_run = pipeline.batched(found.train, 4), {"masked": True, "per_row": True}
    needs = [
        packing.size_of(
            packing.pack(b["target"], b["reference"], vocabulary=VELOCITY, shards=1, **as_run)
        )
        for b in (stream[k] for k in range(supply.SIZING_BATCHES))
    ]
    sizes = packing.choose_sizes(needs, packing.largest(4, 48, 32, 48, masked=True))
    table = re.findall(r"^ +(\d+) +(\d+) +\d+%$", text, re.MULTILINE)
    assert table == [(str(size.rows), str(size.blocks)) for size in sizes]
    assert inspect.packing_of(found.train, config, masked=True).sizes == sizes


def test_what_a_base_reads_is_its_own(tmp_path):
    for encoder in ("reference", "masked"):
        lm = LM(dataclasses.replace(CONFIG, encoder=encoder), rngs=nnx.Rngs(0))
        card = Card(system="lm", lm=lm.config, task="copy", **VIEW)
        pretrained.save(m4m_jax.Model(lm, card), tmp_path / encoder)
        run = make_config(FIELDS | {"base": str(tmp_path / encoder)}, "the test")
        assert inspect._masked(run) == (encoder == "masked")


def test_a_packed_data_set_is_what_a_run_with_these_options_reads(built, tmp_path, capsys):
    words = ["data", "pack", "midi_folder", "window=48", "batch=4", "steps=50", "seed=3"]
    words += ["--task", "chord-to-melody", "--data-dir", str(built), "--name", "mine"]
    assert _run(words) == 0
    path = capsys.readouterr().out.splitlines()[-1]
    assert path == str(built / "packed" / "mine" / "2.0.0")
    config = make_config(FIELDS | {"seed": 3, "steps": 50, "packed": path}, "the test")
    read, live = (
        supply.supply(c, built).train for c in (config, config.model_copy(update={"packed": None}))
    )
    assert len(read) == 200
    assert all(np.array_equal(read[k]["target"], live[k]["target"]) for k in (0, 77, 199))
    assert _run(words) == 2
    assert "is there already" in capsys.readouterr().err


def test_packing_by_a_configuration_file(built, tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(FIELDS | {"steps": 60}))
    assert _run(["data", "pack", str(file), "seed=4", "--data-dir", str(built)]) == 0
    about = stored.read_about(Path(capsys.readouterr().out.splitlines()[-1]))
    assert about.windows["train"] == 240
    assert re.fullmatch("midi_folder-chord-to-melody-[0-9a-f]{8}", about.directory.parent.name)
    config = make_config(FIELDS | {"seed": 4}, "the test")
    assert about.view == supply.view(config)


def test_what_was_packed_is_said_plainly(built, tmp_path, capsys):
    parts = "mixture=[{task: copy}, {task: continuation, target: track-0, reference: all}]"
    words = ["window=48", "batch=2", "validation_batches=2", "steps=3", "--data-dir", str(built)]
    assert _run(["data", "pack", "midi_folder", *words, "task=copy"]) == 0
    said = capsys.readouterr().out.splitlines()[-2:]
    assert said[0] == ("96 windows for training, 4 for validation; a run reads 48 batches at least")
    assert _run(["data", "pack", "midi_folder", *words, "--task", "copy"]) == 2
    assert f"train with packed={said[1]}" in capsys.readouterr().err
    assert _run(["data", "pack", "midi_folder", *words, "task=copy", "--task", "harmonize"]) == 2
    assert "give one of them" in capsys.readouterr().err
    assert _run(["data", "pack", "midi_folder", *words, "steps=50", parts]) == 0
    said = capsys.readouterr().out.splitlines()[-2]
    assert said == (
        "100 windows for training, 2 for validation of copy/midi_folder,"
        " 2 for validation of continuation/midi_folder"
    )


def test_an_epoch_is_packed_unless_steps_are_given(built, capsys):
    words = ["data", "pack", "midi_folder", "window=48", "batch=1", "--data-dir", str(built)]
    assert _run([*words, "--task", "copy", "--epochs", "4"]) == 0
    about = stored.read_about(Path(capsys.readouterr().out.splitlines()[-1]))
    assert about.windows["train"] == 4 * about.epoch > 48
    assert _run([*words, "--task", "continuation"]) == 0
    about = stored.read_about(Path(capsys.readouterr().out.splitlines()[-1]))
    assert about.windows["train"] == 48


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["inspect", "midi_folder", "--task", "copie"], "did you mean 'copy'"),
        (["pack", "midi_folder", "--task", "copie"], "did you mean 'copy'"),
        (["inspect", "midi_folder", "--batch", "1000000000", "--window", "48"], "smaller batch"),
        (["pack", "midi_folder", "batch=0", "--task", "copy"], "batch: 0 is too small"),
        (["inspect", "midi_folder/none"], "has not been built"),
        (["inspect", "midi_folder", "window=48", "--window", "48"], "give one of them"),
        (["pack", "midi_folder"], "task is not given; add task=..."),
        (["pack", "midi_folder", "sed=3"], "the nearest known one is seed"),
        (["pack", "none.yaml"], "there is no such configuration file"),
    ],
)
def test_mistakes(built, capsys, words, wanted):
    assert _run(["data", *words, "--data-dir", str(built)]) == 2
    answer = capsys.readouterr()
    assert wanted in answer.err
    assert answer.err.count("\n") == 1


def test_reading_data_imports_no_jax():
    code = "import sys, m4m_jax.data.inspect, m4m_jax.bench.data; print('jax' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "False\n", run.stderr
