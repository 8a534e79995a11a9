from __future__ import annotations

import math
import re
from pathlib import Path
from typing import get_args

import pydantic
import pytest
import yaml

from m4m_jax import config
from m4m_jax.config import Config, load_config, make_config, run_name
from m4m_jax.errors import M4MError
from m4m_jax.models import card as cards
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


@pytest.mark.parametrize(
    ("written", "shifts"),
    [("true", (-5, 6)), ("false", (0, 0)), ("[-2, 2]", (-2, 2)), ("[0, 1]", (0, 1))],
)
def test_pitch_shift_is_a_range_or_a_choice(file, written, shifts):
    config = load_config(file, [f"pitch_shift={written}"])
    assert config.pitch_shift == shifts
    assert make_config(config.model_dump(), "run") == config


@pytest.mark.parametrize(
    "written", ["1", "[2, -2]", "[-13, 0]", "[-1]", "[false, true]", "[-1.5, 1]", "wide"]
)
def test_no_pitch_shift(file, written):
    message = refused(file, f"pitch_shift={written}")
    assert "pitch_shift: " in message
    assert "write true, false or [DOWN, UP]" in message


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
    adapter = ["system=cross", "base=lm", "adapter={lora_targets: [key]}"]
    whole = load_config(file, ["mesh={data: 2, fsdp: 4}", *adapter])
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


def test_each_system_has_its_own_options(file):
    def adapter(system, *changes):
        return load_config(file, [f"system={system}", "base=lm", *changes]).adapter

    assert adapter("cross").model_dump(exclude={"system"}) == {
        "n_skip": 2, "width": 256, "heads": 4, "gate": 0.0, "whiten": False,
        "tune": "adapter",
        "lora_rank": 16, "lora_alpha": 32.0, "lora_targets": ("query", "value"),
    }  # fmt: skip
    assert adapter("self").model_dump(exclude={"system"}) == {
        "tune": "adapter", "lora_rank": 64, "lora_alpha": 128.0, "lora_targets": ("query", "value"),
    }  # fmt: skip
    assert adapter("coco-mulla", "adapter.tune=all").model_dump(exclude={"system"}) == {
        "steps": 384, "tune": "all",
    }  # fmt: skip
    message = refused(file, "system=self", "base=lm", "adapter.n_skip=1")
    assert "system self has no adapter.n_skip; it has adapter.lora_rank, " in message
    message = refused(file, "system=coco-mulla", "base=lm", "adapter.lora_rank=1")
    assert "system coco-mulla has no adapter.lora_rank; it has adapter.steps, adapter" in message
    message = refused(file, "system=cross", "base=lm", "adapter.n_skp=1")
    assert "unknown key adapter.n_skp; the nearest known one is adapter.n_skip" in message
    assert "adapter.tune: " in refused(file, "system=self", "base=lm", "adapter.tune=some")
    message = refused(file, "system=self", "base=lm", "adapter.system=cross")
    assert "adapter is one of system cross, not self" in message
    message = refused(file, "system=self", "base=lm", "adapter.system=crss")
    assert "adapter: 'crss' is none of 'cross', 'self', 'coco-mulla'" in message
    message = refused(file, "system=cross", "base=lm", "adapter={width: 30, heads: 4}")
    assert "adapter: width 30 does not divide into 4 heads" in message


def test_cards_hold_the_adapters_that_configurations_name():
    kinds = get_args(get_args(cards.Adapter)[0])
    assert {kind.system for kind in kinds} == set(config.ADAPTERS) < set(config.SYSTEMS)


def test_bases(file):
    assert load_config(file).bases == ()
    assert load_config(file, ["base=lm"]).bases == ("lm",)
    assert load_config(file, ["system=cross", "base=[a, b]"]).bases == ("a", "b")
    assert "one base; only cross" in refused(file, "system=self", "base=[a, b]")
    assert "leave base out" in refused(file, "system=seq2seq", "base=a")
    assert "coco-mulla reads 384 steps at most; window 512 has 512" in refused(
        file, "system=coco-mulla", "base=a", "window=512"
    )


def test_only_new_models_have_a_size_of_their_own(file):
    file.write_text(SOURCE.replace("size: 1\n", ""))
    for system in ("lm", "seq2seq"):
        config = load_config(file, [f"system={system}"])
        assert (config.size, config.encoder) == ("1", "reference")
    for change in (["base=lm"], ["system=cross", "base=lm"]):
        config = load_config(file, change)
        assert (config.size, config.encoder) == (None, None)


def test_changes_for_a_system(file):
    file.write_text(
        SOURCE.replace("size: 1\n", "systems: {cross: {adapter: {n_skip: 3}}, self: {steps: 5}}\n")
        + "  linked:\n    seed: 4\n    systems: {cross: {adapter: {gate: 1.0}, steps: 6}}\n"
    )
    linked = ["preset=linked", "base=lm"]
    config = load_config(file, ["system=cross", *linked])
    assert (config.adapter.n_skip, config.adapter.gate, config.steps) == (3, 1.0, 6)
    config = load_config(file, ["system=self", *linked])
    assert (config.steps, config.seed) == (5, 4)
    assert load_config(file, ["system=self", "steps=9", *linked]).steps == 9
    assert load_config(file).steps == 60_000
    file.write_text("systems: {crss: {}}\n" + SOURCE)
    assert "'crss' is no system; they are lm, cross, self" in refused(file)
    file.write_text("systems: 3\n" + SOURCE)
    assert "systems must be groups of changes by system" in refused(file)


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
        ("steps=0", "steps: 0 is too small; give more than 0"),
        ("steps=many", "steps: 'many' is no whole number"),
        ("dropout=1.0", "dropout: 1.0 is too large; give less than 1"),
        ("system=crss", "system: 'crss' is none of 'lm', 'cross'"),
        ("system=cross", "needs base=DIR"),
        ("base=[a, b]", "system lm has one base; only cross links two"),
        ("adapter.tune=all", "system lm has no adapter; leave its options out"),
        ("mask_rate=0.1", "system lm has no span masking"),
        ("common_key=true", "pitch_shift takes them to many; give pitch_shift=false, or a range"),
        (
            "mixture=[{}, {harmony_by_quarter: true, reference: all}]",
            "components of task continuation differ in harmony_by_quarter",
        ),
        ("mixture=[{}, {common_key: true}]", "common_key brings songs to one key"),
        ("compress.reference=3", "compress.reference: a compression of 3 is no power of two"),
        ("compress={target: 0}", "compress.target: 0 is too small"),
        ("compress.target=256", "window 384 is no multiple of the compression 256"),
        ("compress=2", "compress: 2 is no group of keys"),
        ("base=3", "base: 3 is neither a directory nor a pair of them$"),
        ("base=[a, b, c]", "base: .* is neither a directory nor a pair of them$"),
        ("pad_short=3", "pad_short: 3 is neither true nor false"),
        ("steps=1.5", "steps: 1.5 is no whole number"),
        ("optimizer.clip=much", "optimizer.clip: 'much' is no number"),
        ("task=3", "task: 3 is no text"),
        ("mixture=3", "mixture: 3 is no list"),
        ("accumulate=3", "batch 8 does not divide into 3 parts"),
        ("mesh.data=0", "mesh.data: 0 is no number of devices"),
        ("optimizer.warmup=1", "optimizer.warmup"),
        ("optimizer=3", "optimizer: 3 is no group of keys"),
        ("mesh={date: 1}", "mesh.date: 'date' is none of 'data', 'fsdp' or 'tensor'"),
        ("mesh=2", "mesh: 2 is no group of keys"),
        ("precision=float16", "precision: 'float16' is none of 'float32' or 'bfloat16'"),
        ("seed=-1", "seed: -1 is too small; give 0 or more"),
        ("max_notes=33", "max_notes: 33 is too large; give 32 at most"),
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
    assert "data is not given; add data=..." in refused(path)
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
        assert config.size in (None, *PRESETS)
        assert config.task in TASKS
    if base:
        assert "needs base=DIR" in refused(path)


ADAPTERS = [p for p in SHIPPED if yaml.safe_load(p.read_text())["system"] == "cross"]
SMALL = {
    "bach_chorales": ("tiny", 600),
    "nottingham": ("mini", 1200),
    "pop909_cl/analysis": ("mini", 2000),
}
STEPS = {"cross": 60_000, "self": 60_000, "coco-mulla": 40_000, "seq2seq": 200_000}


@pytest.mark.parametrize("system", STEPS)
@pytest.mark.parametrize("path", ADAPTERS, ids=lambda p: p.stem)
def test_systems_are_overrides(path, system):
    chosen = [f"system={system}", *([] if system == "seq2seq" else ["base=x"])]
    config = load_config(path, chosen)
    assert (config.system, config.steps) == (system, STEPS[system])
    small = load_config(path, [*chosen, "preset=small"])
    assert (small.system, small.precision) == (system, "float32")
    size, steps = SMALL.get(config.data, ("mini", 1000))
    assert small.steps == steps
    assert small.size == (size if system == "seq2seq" else None)


@pytest.mark.parametrize(
    ("name", "preset", "steps", "other"),
    [
        ("lm", "keys", 4000, {"pitch_shift": (-2, 2)}),
        ("chord_to_melody", "keys", 4000, {"pitch_shift": (-2, 2)}),
        ("melody_to_chord", "long", 6000, {"pad_short": True}),
    ],
)
def test_longer_folk_presets(name, preset, steps, other):
    path = SHIPPED[0].parent / f"nottingham_{name}.yaml"
    small = load_config(path, ["base=x", "preset=small"])
    longer = load_config(path, ["base=x", f"preset={preset}"])
    changed = {key for key, value in small if value != getattr(longer, key)}
    assert changed == {"steps", *other, "optimizer" if name == "lm" else "every"}
    assert longer.steps == steps
    assert {key: getattr(longer, key) for key in other} == other


def test_every_task_has_a_configuration():
    assert {yaml.safe_load(p.read_text())["task"] for p in SHIPPED} == set(TASKS)


def test_made_of_plain_values():
    assert make_config({"data": "d", "task": "t"}, "here").data == "d"
    with pytest.raises(M4MError, match="here: unknown key dat; the nearest known one is data"):
        make_config({"data": "d", "task": "t", "dat": 1}, "here")


def test_the_settings_of_the_paper():
    """Those of its implementation: adapters and, apart, the pretraining of the language model."""
    for path in SHIPPED:
        fields = yaml.safe_load(path.read_text())
        config = load_config(path, ["base=x"] if fields["system"] == "cross" else [])
        assert (config.window, config.precision) == (384, "bfloat16")
        assert (config.optimizer.learning_rate, config.optimizer.weight_decay) == (1e-4, 0.01)
        assert (config.every.validation, config.validation_batches, config.keep) == (500, 25, 10)
        pretraining = path.stem == "los_angeles_lm"
        assert config.optimizer.schedule == ("one_cycle" if pretraining else "constant")
        assert config.batch == (48 if pretraining else 8)
        assert config.steps == (2_000_000 if pretraining else 60_000)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_configurations_begin_with_their_commands(path):
    head = path.read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"m4m train configs/{path.name} preset=small" in head.replace("system=cross ", "")
    for named in re.findall(r"\w+\.yaml", head):
        assert (path.parent / named).is_file()


def mixture(*parts, **fields):
    return make_config({"mixture": list(parts)} | fields, "the test")


def test_components_take_what_they_leave_out_from_the_run():
    run = mixture(
        {"weight": 2},
        {"data": "b", "dedup": True},
        {"task": "copy", "target": "drum"},
        data="a",
        task="continuation",
        target="nondrum",
    )
    found = [(p.data, p.task, p.target, p.dedup, p.weight) for p in run.components]
    assert found == [
        ("a", "continuation", "nondrum", None, 2.0),
        ("b", "continuation", "nondrum", True, 1.0),
        ("a", "copy", "drum", None, 1.0),
    ]
    alone = make_config({"data": "a", "task": "copy", "target": "drum"}, "the test")
    assert [(p.data, p.task, p.target) for p in alone.components] == [("a", "copy", "drum")]


def test_a_run_without_data_and_task_has_those_of_its_first_component():
    run = mixture({"data": "a", "task": "copy"}, {"data": "b", "task": "analysis"})
    assert (run.data, run.task) == ("a", "copy")
    run = mixture({"data": "a"}, {"data": "b", "task": "analysis"}, task="copy")
    assert [p.task for p in run.components] == ["copy", "analysis"]


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        ({"weight": 0}, "mixture.0.weight: 0 is too small; give more than 0"),
        ({"weight": float("inf")}, "mixture.0.weight: inf is no finite number"),
        ({"dta": "a"}, "unknown key mixture.0.dta; the nearest known one is data"),
        ("a", "mixture.0: 'a' is no group of keys"),
    ],
)
def test_components_that_are_wrong(part, wanted):
    with pytest.raises(M4MError, match=wanted) as error:
        mixture(part, data="a", task="copy")
    assert "\n" not in str(error.value)


def test_a_mixture_on_the_command_line(file):
    config = load_config(file, ["mixture=[{weight: 2}, {data: midi_folder/b}]"])
    assert [part.data for part in config.components] == ["nottingham", "midi_folder/b"]
    assert config.components[0].weight == 2


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("profile=5", "profile: 5 is no range of steps; write FIRST..LAST, such as 100..105"),
        ("profile=5-7", "profile: '5-7' is no range of steps"),
        ("profile=5..", "profile: '5..' is no range of steps"),
        ("profile=7..5", "profile: 7..5 has no steps"),
        ("profile=0..5", "profile: 0..5 has no steps; they count from 1"),
        ("profile=1..101", "profile: 1..101 are 101 steps; 100 at most"),
        ("profile=60000..60001", "profile 60000..60001 goes past the last step, 60000"),
    ],
)
def test_profiles_that_make_no_sense(file, given, wanted):
    assert wanted in refused(file, given)


def test_a_profile_is_of_its_first_and_last_step_too(file, tmp_path):
    config = load_config(file, ["profile=100..105"])
    assert list(config.profiled) == [100, 101, 102, 103, 104, 105]
    assert not load_config(file).profiled
    saved = tmp_path / "config.yaml"
    saved.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(saved) == config
