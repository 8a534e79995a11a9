from __future__ import annotations

import math
import re
from pathlib import Path

import pydantic
import pytest
import yaml

from m4m_jax.config import Config, load_config, make_config, run_name
from m4m_jax.errors import M4MError
from m4m_jax.models.lm import PRESETS
from m4m_jax.music.tasks import TASKS

SHIPPED = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
SOURCE = """
size: 1
data: nottingham
task: continuation
optimizer: {learning_rate: 1.0e-4, weight_decay: 0.2}
presets:
  small:
    size: tiny
    steps: 7
    optimizer: {learning_rate: 0.5}
  other:
    seed: 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(SOURCE)
    return path


def refused(path, *changes) -> str:
    with pytest.raises(M4MError) as error:
        load_config(path, changes)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_fields_and_defaults(file):
    config = load_config(file)
    assert (config.size, config.data, config.system) == ("1", "nottingham", "lm")
    assert config.optimizer.weight_decay == 0.2
    assert (config.window, config.keep, config.optimizer.clip) == (384, 10, math.inf)


def test_frozen_when_loaded(file):
    with pytest.raises(pydantic.ValidationError):
        load_config(file).steps = 1


def test_dotted_changes_are_yaml(file):
    config = load_config(
        file, ["optimizer.learning_rate=1e-3", "every.log=2", "pad_short=true", "size=tiny"]
    )
    assert config.optimizer.learning_rate == 1e-3
    assert config.optimizer.weight_decay == 0.2
    assert (config.every.log, config.every.validation) == (2, 500)
    assert config.pad_short is True
    assert config.size == "tiny"
    whole = load_config(file, ["mesh={data: 2, fsdp: 4}", "adapter={lora_targets: [key]}"])
    assert whole.mesh == {"data": 2, "fsdp": 4}
    assert whole.adapter.lora_targets == ("key",)
    assert load_config(file, ["reference=track-1=x"]).reference == "track-1=x"


def test_compression_by_stream(file):
    config = load_config(file, ["compress.reference=4"])
    assert (config.compress.reference, config.compress.target) == (4, 1)
    assert "compress.referenc; the nearest known one is compress.reference" in refused(
        file, "compress.referenc=4"
    )


def test_presets_come_before_other_changes(file):
    config = load_config(file, ["steps=9", "preset=small"])
    assert (config.size, config.steps) == ("tiny", 9)
    assert (config.optimizer.learning_rate, config.optimizer.weight_decay) == (0.5, 0.2)
    both = load_config(file, ["preset=small", "preset=other"])
    assert (both.steps, both.seed) == (7, 3)


def test_unknown_keys_are_refused_with_the_nearest(file):
    assert "unknown key windw; the nearest known one is window" in refused(file, "windw=3")
    message = refused(file, "optimizer.learning_rat=1")
    assert "optimizer.learning_rat; the nearest known one is optimizer.learning_rate" in message
    assert str(file) in message
    file.write_text(SOURCE + "warmup: 0.1\n")
    assert "unknown key warmup" in refused(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("steps=0", "steps: .* greater than 0"),
        ("steps=many", "steps: .* integer"),
        ("dropout=1.0", "dropout: .* less than 1"),
        ("system=crss", "system: .*'lm'.*'cross'"),
        ("system=cross", "needs base=DIR"),
        ("base=runs/x", "base is for adapters"),
        ("compress.reference=3", "compress.reference: a compression of 3 is no power of two"),
        ("compress={target: 0}", "compress.target: .* greater than 0"),
        ("compress.target=256", "window 384 is no multiple of the compression 256"),
        ("compress=2", "compress: "),
        ("accumulate=3", "batch 8 does not divide into 3 parts"),
        ("optimizer.warmup=1", "optimizer.warmup"),
        ("optimizer=3", "optimizer: "),
        ("mesh={date: 1}", "mesh"),
        ("precision=float16", "precision: "),
        ("seed=-1", "seed: "),
        ("max_notes=33", "max_notes: .* less than or equal to 32"),
        ("steps", "'steps' is no change of a configuration"),
        ("=3", "is no change of a configuration"),
        ("steps=[1", "'steps=\\[1' is not YAML"),
        ("preset=large", "no preset 'large'; it has small, other"),
        ("preset=[a]", "no preset"),
    ],
)
def test_bad_values(file, change, message):
    assert re.search(message, refused(file, change))


def test_bad_files(tmp_path):
    path = tmp_path / "bad.yaml"
    assert f"{path}: there is no such configuration file" in refused(path)
    path.write_text("a: [1,\nb: }")
    assert f"{path} is not YAML" in refused(path)
    path.write_text("just text")
    assert "it holds no keys" in refused(path)
    path.write_text("")
    assert "it holds no keys" in refused(path)
    path.write_text("task: continuation")
    assert "data: Field required" in refused(path)
    path.write_bytes(b"\xff\xfe\x00\x01")
    assert f"{path} is not YAML" in refused(path)
    assert f"{tmp_path}: there is no such configuration file" in refused(tmp_path)


@pytest.mark.parametrize("presets", ["presets:", "presets: [small]", "presets: {small: 3}"])
def test_presets_that_are_none(file, presets):
    file.write_text(f"data: x\ntask: continuation\n{presets}\n")
    assert "preset" in refused(file, "preset=small")


def test_the_written_configuration_loads_again(file, tmp_path):
    config = load_config(file, ["preset=small", "max_notes=4"])
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    assert load_config(again) == config


def test_run_names_follow_the_command():
    changes = ["system=cross", "preset=small", "base=runs/lm", "optimizer.clip=1"]
    assert run_name("configs/folk.yaml", changes) == "folk-cross-small"
    assert run_name("folk.yaml", ["data=midi_folder/mine"]) == "folk-midi_folder_mine"
    assert run_name("folk.yaml") == "folk"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_configurations_load(path):
    plain = yaml.safe_load(path.read_text())
    base = ["base=x"] if plain.get("system") == "cross" else []
    for preset in [None, *plain.get("presets", {})]:
        config = load_config(path, [*base, *([f"preset={preset}"] if preset else [])])
        assert isinstance(config, Config)
        assert config.size in PRESETS
        assert config.task in TASKS
    if base:
        assert "needs base=DIR" in refused(path)


def test_there_are_shipped_configurations():
    assert len(SHIPPED) >= 2


def test_made_of_plain_values():
    assert make_config({"data": "d", "task": "t"}, "here").data == "d"
    with pytest.raises(M4MError, match="here: unknown key dat; the nearest known one is data"):
        make_config({"data": "d", "task": "t", "dat": 1}, "here")
