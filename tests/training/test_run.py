"""Real short runs on a data set of made-up songs."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import yaml
from flax import nnx

from m4m_jax import pretrained
from m4m_jax.config import Config, load_config
from m4m_jax.data import pipeline
from m4m_jax.data.supply import supply
from m4m_jax.errors import M4MError
from m4m_jax.models import parameters
from m4m_jax.models.cross import CrossAdapter
from m4m_jax.training import run as module
from m4m_jax.training.directory import finished
from m4m_jax.training.run import run
from tests.training import runs
from tests.training.runs import lines

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_compile", "shared_compilations", "micro"),
]


@pytest.fixture(scope="module")
def place(data, tmp_path_factory, quick_compile, shared_compilations):
    """A finished run of a language model, `lm`, and one of an adapter on it, `cross`."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        runs.prepare(patch)
        run(runs.config(), folder / "lm", data)
        run(runs.linked(folder / "lm"), folder / "cross", data)
    return folder


NOWHERE = "no-such-folder-of-data-sets"
"""Whoever looks for data there finds that nothing has been built."""


def refused(call, *args) -> str:
    with pytest.raises(M4MError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_a_run_leaves_behind(place, data):
    path = place / "lm"
    log = lines(path)
    assert [line["step"] for line in log] == [0, 3, 4, 6, 8, 9, 12]
    validated = {line["step"]: line["validation_nll"] for line in log if "validation_nll" in line}
    assert sorted(validated) == [0, 4, 8, 12]
    assert validated[12] < validated[0] - 0.3
    for line in log[1:]:
        assert line["tokens"] > 0
        assert line["step_seconds"] > 0
        assert line["tokens_per_second"] > 0
        assert 0 < line["learning_rate"] <= 1e-2
    config = load_config(path / "config.yaml")
    assert config == runs.config()
    card = json.loads((path / "model.json").read_text())
    assert (card["system"], card["task"], card["max_notes"]) == ("lm", "continuation", 2)
    assert card["data"] == "midi_folder/made"
    assert set(card["versions"]) == {"m4m_jax", "jax", "flax", "optax"}
    assert list((path / "tensorboard").glob("events.*"))


def test_the_result_names_both_figures(place, capsys):
    """A run that is finished already only tells its result, and needs no data for that."""
    before = runs.folders(place / "lm")
    result = run(runs.config(), place / "lm", NOWHERE)
    said = capsys.readouterr().out
    assert "finished before, at step 12" in said
    assert "compiling" not in said
    nll = [line["validation_nll"] for line in lines(place / "lm") if "validation_nll" in line]
    assert (result.before, result.best) == (nll[0], min(nll))
    assert runs.folders(place / "lm") == before
    assert [line["step"] for line in lines(place / "lm")] == [0, 3, 4, 6, 8, 9, 12]


@pytest.mark.parametrize("lost", ["the last checkpoint", "its figures"])
def test_a_run_is_not_finished_where_something_of_its_end_is_missing(place, tmp_path, lost):
    path = tmp_path / "run"
    shutil.copytree(place / "lm", path)
    assert finished(path, 12) == finished(path, 10) == 12
    assert finished(path, 13) is None
    if lost == "its figures":
        log = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
        (path / "metrics.jsonl").write_text("".join(log[:-1]))
    else:
        (path / "12" / "metrics" / "metrics").write_text("{}")
    assert finished(path, 12) is None
    assert "has not been built" in refused(run, runs.config(), path, NOWHERE)


def test_the_latest_and_the_best_are_kept(place, data, tmp_path):
    nll = {x["step"]: x["validation_nll"] for x in lines(place / "lm") if "validation_nll" in x}
    best = sorted([4, 8, 12], key=nll.get)[:2]
    assert runs.folders(place / "lm") == sorted({*best, 8, 12})
    # The rate of 0.5 makes things worse, so the best is not the latest.
    worse = runs.config(
        steps=5, keep=1, optimizer={"learning_rate": 0.5},
        every={"log": 1, "validation": 1, "checkpoint": 1},
    )  # fmt: skip
    path = tmp_path / "worse"
    run(worse, path, data)
    nll = {x["step"]: x["validation_nll"] for x in lines(path) if x["step"]}
    best = min(nll, key=nll.get)
    assert best < 4
    assert runs.folders(path) == [best, 4, 5]
    loaded = parameters.by_name(nnx.state(pretrained.load(path).system))
    for name, value in runs.arrays(path, best).items():
        np.testing.assert_array_equal(loaded[name], value)


@pytest.mark.parametrize("at", [6, 3])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(place, data, tmp_path, monkeypatch, at):
    """Stopped two steps past a checkpoint, and before the first one."""
    path = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        runs.stop_after(patch, at)
        with pytest.raises(KeyboardInterrupt):
            run(runs.config(), path, data)
    assert runs.folders(path) == ([4] if at == 6 else [])
    # The machine went away in the middle of a line, too.
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "nll"')
    run(runs.config(), path, data)
    whole = runs.arrays(place / "lm", 12)
    for name, value in runs.arrays(path, 12).items():
        np.testing.assert_array_equal(value, whole[name], err_msg=name)
    figures = ("step", "nll", "validation_nll", "gradient_norm", "tokens")
    same = [[{k: x.get(k) for k in figures} for x in lines(p)] for p in (path, place / "lm")]
    assert same[0] == same[1]


@pytest.mark.parametrize("every", [1, 100])
def test_a_run_that_diverges_stops_and_names_the_last_good_checkpoint(data, tmp_path, every):
    intervals = {"log": 1, "validation": 100, "checkpoint": every}
    wild = runs.config(steps=8, optimizer={"learning_rate": 1e30}, every=intervals)
    path = tmp_path / "wild"
    message = refused(run, wild, path, data)
    assert "is nan at step" in message or "is inf at step" in message
    assert str(path) in message
    if every == 1:
        good = runs.folders(path)[-1]
        assert f"the last good checkpoint is {path / str(good)}" in message
        assert all(np.isfinite(x).all() for x in runs.arrays(path, good).values())
    else:
        assert "no checkpoint was saved" in message
        assert runs.folders(path) == []


def test_a_validation_that_is_not_finite_stops_a_run_too(data, tmp_path):
    """One step of such a rate: its own loss was still good, what it left behind is not."""
    intervals = {"log": 100, "validation": 1, "checkpoint": 1}
    wild = runs.config(steps=1, optimizer={"learning_rate": 1e30}, every=intervals)
    assert "validation_nll is" in refused(run, wild, tmp_path / "wild", data)
    assert runs.folders(tmp_path / "wild") == []


def test_another_configuration_is_refused(place):
    """Before data are looked for."""
    before = (place / "lm" / "config.yaml").read_bytes()
    other = runs.config(dropout=0.3, seed=4)
    message = refused(run, other, place / "lm", NOWHERE)
    assert "another dropout (0.1 there, 0.3 here), seed (0 there, 4 here); name a new" in message
    assert (place / "lm" / "config.yaml").read_bytes() == before


def test_more_steps_go_on_where_the_rates_do_not_depend_on_their_number(place, data, tmp_path):
    path = tmp_path / "longer"
    shutil.copytree(place / "lm", path)
    longer = {"steps": 14, "every": {"log": 1, "validation": 100, "checkpoint": 100}}
    message = refused(run, runs.config(**longer), path, data)
    assert "holds a run with another steps (12 there, 14 here)" in message
    fields = yaml.safe_load((path / "config.yaml").read_text())
    fields["optimizer"]["schedule"] = "constant"
    (path / "config.yaml").write_text(yaml.safe_dump(fields))
    run(runs.config(optimizer=fields["optimizer"], **longer), path, data)
    assert [line["step"] for line in lines(path)][-3:] == [12, 13, 14]
    assert runs.folders(path)[-1] == 14


def test_a_step_is_compiled_once(data, tmp_path, monkeypatch):
    """The state comes back placed as it went in, and all batches are of one size here."""
    compiled = []

    def watched(step, *args, **kwargs):
        train(step, *args, **kwargs)
        compiled.append(step.step._cache_size())

    train = module.train
    monkeypatch.setattr(module, "train", watched)
    run(runs.config(steps=3), tmp_path / "run", data)
    assert compiled == [1]


def test_an_adapter_learns_on_a_base(place):
    log = lines(place / "cross")
    nll = [line["validation_nll"] for line in log if "validation_nll" in line]
    assert nll[-1] < nll[0]
    model = pretrained.load(place / "cross")
    assert isinstance(model.system, CrossAdapter)
    assert model.card.base.path == "../lm"
    lm = pretrained.load(place / "lm")
    assert model.card.base.fingerprint == pretrained.fingerprint(lm.system)
    figures = {x["step"]: x["validation_nll"] for x in log if "validation_nll" in x}
    best = min(runs.folders(place / "cross"), key=figures.get)
    saved = runs.arrays(place / "cross", best)
    assert all(name.startswith(("base.", "links.", "masked")) for name in saved)
    assert all(".lora." in name for name in saved if name.startswith("base."))
    # The language model under the adapter is the one that was trained first.
    np.testing.assert_array_equal(model.system.lm.head.kernel[...], lm.system.head.kernel[...])


def test_validation_figures_are_those_of_the_loaded_model(place, data):
    config = load_config(place / "cross" / "config.yaml")
    (windows,) = supply(config, data).validation.values()
    stream = pipeline.batched(windows, config.batch)
    model = pretrained.load(place / "cross")
    total, tokens = 0.0, 0
    for k in range(len(stream)):
        nll = model.token_nll(stream[k]["target"], stream[k]["reference"])
        total, tokens = total + nll.sum(), tokens + (nll != 0).sum()
    log = [x["validation_nll"] for x in lines(place / "cross") if "validation_nll" in x]
    assert total / tokens == pytest.approx(min(log[1:]), rel=1e-4)


def test_a_base_is_needed_and_must_be_a_language_model(place, tmp_path):
    """Which is told before data are looked for."""
    message = refused(run, runs.linked(place / "cross"), tmp_path / "x", NOWHERE)
    assert "is a linked system; a base is a language model" in message
    message = refused(run, runs.linked(place / "none"), tmp_path / "x", NOWHERE)
    assert "there is no such model directory" in message
    assert not (tmp_path / "x").exists()


def test_a_run_does_not_go_on_with_another_base(place, data, tmp_path):
    """The base's directory may hold another model by the time that a run is started again."""
    for name in ("lm", "cross"):
        shutil.copytree(place / name, tmp_path / name)
    shutil.rmtree(tmp_path / "lm")
    run(runs.config(seed=5, steps=1), tmp_path / "lm", data)
    yaml_file = tmp_path / "cross" / "config.yaml"
    fields = yaml.safe_load(yaml_file.read_text()) | {"base": str(tmp_path / "lm")}
    yaml_file.write_text(yaml.safe_dump(fields))
    before = (tmp_path / "cross" / "model.json").read_bytes()
    message = refused(run, Config.model_validate(fields), tmp_path / "cross", NOWHERE)
    assert "another base" in message
    assert (tmp_path / "cross" / "model.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 6, "accumulate": 4}, "batch 6 does not divide"),
        ({"vocabulary": "velocity", "system": "cross"}, "reads the plain vocabulary"),
        ({"window": 1537, "pad_short": True}, "window of 1537 steps .* 1536"),
        ({"window": 1000}, "no song of .* can be used"),
        ({"mesh": {"data": 3}}, "takes a multiple of 3 devices, not 1"),
        ({"data": "midi_folder/none"}, "midi_folder/none"),
        ({"task": "continuatoin"}, "did you mean 'continuation'"),
        ({"size": "mikro"}, "no model size 'mikro'"),
        ({"adapter": {"heads": 3}, "system": "cross"}, "width 256 .* 3 heads"),
    ],
)
def test_mistakes_leave_nothing_behind(place, data, tmp_path, changes, message):
    path = tmp_path / "x"

    def start():
        base = {"base": str(place / "lm")} if changes.get("system") == "cross" else {}
        run(runs.config(**(changes | base)), path, data)

    assert re.search(message, refused(start))
    assert not path.exists()
