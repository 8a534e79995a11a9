"""Every shipped configuration trains, on songs in a folder, in its small preset made smaller."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from m4m_jax import generation, pretrained
from m4m_jax.config import load_config
from m4m_jax.models import seq2seq
from m4m_jax.music import (
    PLAIN,
    TASKS,
    VELOCITY,
    Compression,
    compress_rows,
    read_midi,
    to_rows,
    to_tokens,
)
from m4m_jax.training.run import run
from tests.models.small import MICRO
from tests.training import band, runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_compile", "shared_compilations", "micro"),
]

CONFIGS = {p.stem: p for p in sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))}
FIELDS = {name: yaml.safe_load(path.read_text()) for name, path in CONFIGS.items()}

BRIEF = (
    f"data={band.NAME}",
    "window=16",
    "batch=2",
    "steps=1",
    "validation_batches=1",
    "every={log: 1, validation: 1, checkpoint: 1}",
)
LINKS = "adapter={width: 16, heads: 2, lora_rank: 2}"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return band.build_band(tmp_path_factory.mktemp("band"))


def trained(name, data, path, *changes):
    """A configuration's run at `path`, and its model as loaded."""
    config = load_config(CONFIGS[name], ["preset=small", *BRIEF, *changes])
    result = run(config, path, data)
    assert np.isfinite([result.before, result.best]).all()
    return config, pretrained.load(path)


@pytest.fixture(scope="module")
def base(data, tmp_path_factory, quick_compile, shared_compilations):
    path = tmp_path_factory.mktemp("base") / "lm"
    with pytest.MonkeyPatch.context() as patch:
        runs.prepare(patch)
        trained("los_angeles_lm", data, path, "size=micro")
    return path


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_configurations_train(name, data, base, tmp_path):
    own = ["size=micro"] if FIELDS[name]["system"] == "lm" else [f"base={base}", LINKS]
    config, model = trained(name, data, tmp_path / "run", *own)
    task, card = TASKS[config.task], model.card
    assert (card.task, card.reference, card.target) == (task.name, task.reference, task.target)
    assert (card.max_notes, card.dedup) == (config.max_notes or task.max_notes, task.dedup)


@pytest.mark.parametrize("system", ["self", "coco-mulla", "seq2seq"])
def test_systems_train_on_a_shipped_configuration(system, data, base, tmp_path, monkeypatch):
    monkeypatch.setitem(seq2seq.SIZES, "mini", MICRO)
    own = {
        "self": [f"base={base}", "adapter={lora_rank: 2}"],
        "coco-mulla": [f"base={base}", "adapter={steps: 16}"],
        "seq2seq": [],
    }[system]
    name = "los_angeles_others_to_drums"
    _, model = trained(name, data, tmp_path / "run", f"system={system}", *own)
    assert (model.card.system, model.card.task) == (system, "others-to-drums")


def test_a_compressed_reference_from_training_to_midi(data, base, tmp_path):
    """A song is written to every fourth of its own steps."""
    ratios = "compress={reference: 4, target: 1}"
    _, model = trained("los_angeles_copy", data, tmp_path / "run", f"base={base}", LINKS, ratios)
    assert model.card.compress == Compression(reference=4)
    song = band.band(100, bars=2)
    ((given, target),) = generation.generate(model, song)
    assert (target.length, len(given.notes)) == (song.length, len(song.notes))
    rows = to_tokens(to_rows(song.notes, song.length, 16))[None]
    coarse = to_tokens(compress_rows(to_rows(song.notes, song.length, 16), 4))[None]
    nll = model.token_nll(rows[:, :16], coarse[:, :4])
    assert (nll > 0).sum() == (rows[:, :16] != PLAIN.pad).sum()


def test_velocities_from_training_to_midi(data, tmp_path):
    """A language model and an adapter on it, both with velocities, write loud and soft notes."""
    loud = "vocabulary=velocity"
    _, lm = trained("los_angeles_lm", data, tmp_path / "lm", "size=micro", loud)
    assert lm.system.lm.vocabulary is VELOCITY
    own = (f"base={tmp_path / 'lm'}", LINKS, loud)
    _, model = trained("los_angeles_others_to_drums", data, tmp_path / "run", *own)
    song = band.band(100, bars=2)
    written = generation.generate(model, song, seed=1, programs=[127])
    (path,) = generation.write_samples(written, tmp_path / "out.mid")
    song, ((given, target),) = read_midi(path), written
    drums = song.notes[np.array([t.name == "drums" for t in song.tracks])[song.notes[:, 5]]]
    # The middles of 16 levels, and not all one.
    assert len(drums) == len(target.notes) > 10
    assert set(drums[:, 4].tolist()) <= set(range(4, 128, 8))
    assert len(set(drums[:, 4].tolist())) > 4
    # The reference keeps the velocities that it came with.
    heard = song.notes[np.array([t.name != "drums" for t in song.tracks])[song.notes[:, 5]]]
    assert sorted(heard[:, 4]) == sorted(given.notes[:, 4])
