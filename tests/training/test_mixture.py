"""Runs on several data sets and tasks at once, and on packed windows."""

from __future__ import annotations

import json

import numpy as np
import pytest

from m4m_jax import generation, pretrained
from m4m_jax.config import load_config
from m4m_jax.data import supply
from m4m_jax.errors import M4MError
from m4m_jax.training.run import run
from tests.training import band, runs
from tests.training.runs import lines

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_compile", "shared_compilations", "micro"),
]

SETTINGS = {
    "data": band.NAME,
    "task": "drums-to-others",
    "max_notes": 2,
    "window": 16,
    "batch": 4,
    "steps": 4,
    "optimizer": {"learning_rate": 1e-2},  # whatever the number of steps
    "every": {"log": 1, "validation": 2, "checkpoint": 2},
    "validation_batches": 3,
    "mixture": [{"weight": 2.0}, {"task": "copy", "target": "track-2", "harmony_by_quarter": True}],
}
LABELS = [f"drums-to-others/{band.NAME}", f"copy/{band.NAME}"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, quick_compile, shared_compilations):
    """A data set in `data`; a language model in `lm`; an adapter on it, of a mixture, in `mix`."""
    folder = tmp_path_factory.mktemp("mixture")
    data = band.build_band(folder)
    with pytest.MonkeyPatch.context() as patch:
        runs.prepare(patch)
        base = {"data": band.NAME, "window": 16, "steps": 1, "validation_batches": 1}
        run(runs.config(**base), folder / "lm", data)
        run(mixed(folder), folder / "mix", data)
    return folder


def mixed(folder, **changes):
    return runs.linked(folder / "lm", **SETTINGS | changes)


def test_validation_is_by_component_and_over_all(place):
    for line in lines(place / "mix"):
        if line["step"] % 2:
            assert "validation_nll" not in line
            continue
        parts = [line[f"validation_nll/{label}"] for label in LABELS]
        assert min(parts) <= line["validation_nll"] <= max(parts)
        assert parts[0] != parts[1]


def test_validation_figures_are_those_of_each_component(place):
    """The figures of the best step, from the model as loaded; overall, every token counts alike."""
    model = pretrained.load(place / "mix")
    held = supply.supply(mixed(place), place / "data").validation
    assert list(held) == LABELS
    assert [len(windows) for windows in held.values()] == [8, 4]
    sums = []
    for windows in held.values():
        rows = [windows[k] for k in range(len(windows))]
        target, reference = (np.stack([w[key] for w in rows]) for key in ("target", "reference"))
        nll = model.token_nll(target, reference)
        sums.append((nll.sum(), (nll != 0).sum()))
    best = min((x for x in lines(place / "mix")[1:] if "validation_nll" in x),
               key=lambda x: x["validation_nll"])  # fmt: skip
    for label, (value, tokens) in zip(LABELS, sums, strict=True):
        assert value / tokens == pytest.approx(best[f"validation_nll/{label}"], rel=1e-4)
    value, tokens = np.sum(sums, axis=0)
    assert value / tokens == pytest.approx(best["validation_nll"], rel=1e-4)


def test_a_model_of_a_mixture_writes_for_each_of_its_tasks(place):
    model = pretrained.load(place / "mix")
    card = model.card
    assert (card.task, card.reference, card.target, card.dedup) == (
        *("drums-to-others", "drum", "nondrum"),
        True,
    )
    assert [(p.task, p.target, p.weight) for p in card.mixture] == [
        ("drums-to-others", "nondrum", 2.0),
        ("copy", "track-2", 1.0),
    ]
    reduced = [card.of_task(task).harmony_by_quarter for task in card.tasks]
    assert reduced == [False, True]
    song = band.band(100, bars=1)
    for task, heard in (("drums-to-others", {127}), ("copy", {0, 33, 73, 127}), (None, {127})):
        ((given, _),) = generation.generate(model, song, task, seed=1)
        assert set(given.notes[:, 3].tolist()) == heard
    with pytest.raises(M4MError, match="trained for drums-to-others, copy, not for analysis"):
        generation.generate(model, song, "analysis")


def test_packed_windows_train_as_songs_do(place, tmp_path):
    """To the last bit, and a run may change over from one to the other."""
    packed = tmp_path / "packed"
    supply.pack(mixed(place), packed, place / "data")
    run(mixed(place, packed=str(packed), steps=2), tmp_path / "run", tmp_path / "no data here")
    run(mixed(place), tmp_path / "run", place / "data")
    for name, value in runs.arrays(place / "mix", 4).items():
        np.testing.assert_array_equal(runs.arrays(tmp_path / "run", 4)[name], value, err_msg=name)
    assert lines(tmp_path / "run")[-1]["nll"] == lines(place / "mix")[-1]["nll"]
    cards = [json.loads((p / "model.json").read_text()) for p in (tmp_path / "run", place / "mix")]
    for card in cards:
        card.pop("base")
    assert cards[0] == cards[1]
    with pytest.raises(M4MError, match="another window"):
        run(mixed(place, packed=str(packed), window=32), tmp_path / "x", place / "data")
    assert not (tmp_path / "x").exists()


def test_the_configuration_written_is_the_one_given(place):
    assert load_config(place / "mix" / "config.yaml") == mixed(place)
