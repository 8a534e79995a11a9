"""Every system trains through the same loop, is saved, loaded, and writes music."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from etils import epath
from flax import nnx

from m4m_jax import generation, pretrained
from m4m_jax.errors import M4MError
from m4m_jax.models import lm, seq2seq
from m4m_jax.models.parameters import by_name
from m4m_jax.training.building import card_of, load_bases, new_system
from m4m_jax.training.run import run
from tests.datasets.music import song
from tests.models.small import MICRO
from tests.training import runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_compile", "shared_compilations", "micro"),
]

WIDE = dataclasses.replace(MICRO, width=48, layers=3, heads=4, ffn=40)
UPDATES = {"lora_rank": 2, "lora_alpha": 4.0}
LINKS = {"width": 16, "heads": 2, "gate": 1.0, **UPDATES}
SHORT = {"steps": 8, "every": {"log": 4, "validation": 8, "checkpoint": 8}, "size": None}


def prepare(patch) -> None:
    runs.prepare(patch)
    patch.setitem(lm.PRESETS, "wide", WIDE)
    patch.setitem(seq2seq.SIZES, "micro", MICRO)


@pytest.fixture
def micro(monkeypatch):
    prepare(monkeypatch)


@pytest.fixture(scope="module")
def place(data, tmp_path_factory, quick_compile, shared_compilations):
    """Two language models, `lm` and `wide`."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        run(runs.config(steps=4), folder / "lm", data)
        run(runs.config(size="wide", steps=4), folder / "wide", data)
    return folder


def learn(place, data, path, **changes) -> pretrained.Model:
    """A short run of a system on `lm`; its model as loaded."""
    result = run(runs.linked(place / "lm", **(SHORT | changes)), path, data)
    nll = [line["validation_nll"] for line in runs.lines(path) if "validation_nll" in line]
    assert (result.before, result.best) == (nll[0], min(nll))
    assert nll[-1] < nll[0]
    return pretrained.load(path)


def writes(model: pretrained.Model) -> None:
    """Write to a song longer than a window."""
    ((_, target),) = generation.generate(model, song(3), prompt_steps=3)
    assert target.length == song(3).length > model.card.window


@pytest.mark.parametrize(
    "changes",
    [
        {"system": "self", "adapter": UPDATES, "reference_mask_rate": 0.2, "mask_rate": 0.2},
        {"system": "coco-mulla", "adapter": {"steps": 14}},
        {"system": "cross", "adapter": LINKS | {"lora_rank": 0}},
        {"system": "cross", "adapter": LINKS | {"whiten": True}},
    ],
    ids=["self with spans", "coco-mulla", "frozen cross", "whitened cross"],
)
def test_adapters(place, data, tmp_path, changes):
    model = learn(place, data, tmp_path / "run", **changes)
    assert model.card.system == changes["system"]
    assert model.card.adapter.reference_mask_rate == changes.get("reference_mask_rate", 0.0)
    assert [base.fingerprint for base in model.card.bases] == [fingerprint(place / "lm")]
    saved = runs.arrays(tmp_path / "run", 8)
    assert not any("decoder" in name and "lora" not in name for name in saved)
    writes(model)


def fingerprint(path) -> str:
    return pretrained.fingerprint(pretrained.load(path).system.lm)


def test_seq2seq_from_scratch(place, data, tmp_path):
    scratch = {"system": "seq2seq", "base": None, "adapter": None, "size": "micro"}
    model = learn(place, data, tmp_path / "run", **scratch)
    assert (model.card.lm, model.card.adapter, model.card.bases) == (MICRO, None, ())
    assert set(runs.arrays(tmp_path / "run", 8)) == set(by_name(nnx.state(model.system)))
    writes(model)
    with pytest.raises(M4MError, match="needs no base; 1 given"):
        pretrained.load(tmp_path / "run", place / "lm")


def test_a_language_model_goes_on_from_another(place, data, tmp_path):
    path, alone = tmp_path / "run", {"system": "lm", "task": "continuation", "adapter": None}
    model = learn(place, data, path, **alone, base=str(place / "wide"))
    assert model.card.lm == WIDE
    assert model.card.bases == ()
    before = json.loads((place / "wide" / "metrics.jsonl").read_text().splitlines()[-1])
    first = json.loads((path / "metrics.jsonl").read_text().splitlines()[0])
    assert first["validation_nll"] == pytest.approx(before["validation_nll"], rel=1e-5)
    with pytest.raises(M4MError, match="is not of size micro; leave size out"):
        run(runs.config(base=str(place / "wide")), tmp_path / "other", data)


def test_a_base_tuned_with_its_adapter_is_saved_with_it(place, data, tmp_path):
    model = learn(place, data, tmp_path / "run", adapter=LINKS | {"tune": "all"})
    assert model.card.bases == ()
    saved = runs.arrays(tmp_path / "run", 8)
    assert set(saved) == set(by_name(nnx.state(model.system)))
    kernel = "decoder.layers.0.up.kernel"
    base = by_name(nnx.state(pretrained.load(place / "lm").system))
    assert np.abs(saved[f"base.{kernel}"] - base[kernel]).max() > 1e-3
    writes(model)


def test_two_language_models_linked(place, data, tmp_path):
    path, pair = tmp_path / "run", (place / "wide", place / "lm")
    model = learn(place, data, path, adapter=LINKS, base=list(map(str, pair)))
    assert (model.card.lm, model.card.reference_lm) == (MICRO, WIDE)
    assert [b.fingerprint for b in model.card.bases] == [fingerprint(p) for p in pair[::-1]]
    writes(model)
    want = by_name(nnx.state(model.system))
    for given in (pair, [pretrained.load(p) for p in pair]):
        got = by_name(nnx.state(pretrained.load(path, given).system))
        assert got.keys() == want.keys()
        assert all(np.array_equal(got[name], want[name]) for name in want)
    with pytest.raises(M4MError, match="was trained on another base"):
        pretrained.load(path, pair[::-1])
    with pytest.raises(M4MError, match="needs two bases, the reference's first; 1 given"):
        pretrained.load(path, place / "lm")


def test_a_pair_of_equals_is_one(place, tmp_path):
    twice = runs.linked(place / "lm", base=[str(place / "lm")] * 2, adapter=LINKS)
    bases = load_bases(twice)
    card = card_of(twice, epath.Path(tmp_path), bases)
    system = new_system(card, bases, twice.seed)
    assert card.reference_lm is None
    assert len(card.bases) == 1
    assert system.reference_lm is system.lm
