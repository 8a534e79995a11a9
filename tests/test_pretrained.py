from __future__ import annotations

import dataclasses
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from flax import nnx

from m4m_jax import pretrained
from m4m_jax.errors import M4MError
from m4m_jax.models.card import Card
from m4m_jax.models.parameters import by_name
from m4m_jax.music.simunote import PLAIN, from_tokens
from m4m_jax.pretrained import Model
from tests.compiling import quick_compile as quick_compile
from tests.models.conftest import random_rows
from tests.models.small import CONFIG, LINKS, small_cross, small_lm

pytestmark = pytest.mark.usefixtures("quick_compile")

ABOUT = {
    "task": "chord-to-melody",
    "reference": "track-1",
    "target": "track-0",
    "max_notes": 4,
    "window": 12,
}


def lm_model(seed: int = 0) -> Model:
    return Model(small_lm(seed), Card(system="lm", lm=CONFIG, **ABOUT))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`lm`, an adapter on it, `cross`, and another language model, `other`."""
    folder = tmp_path_factory.mktemp("models")
    base = lm_model()
    pretrained.save(base, folder / "lm")
    pretrained.save(lm_model(7), folder / "other")
    named = pretrained.base_of(base.system, folder / "lm", folder / "cross")
    card = Card(system="cross", lm=CONFIG, adapter=LINKS, base=named, **ABOUT)
    pretrained.save(Model(small_cross(), card), folder / "cross")
    return folder


@pytest.fixture
def copy(place, tmp_path):
    shutil.copytree(place, tmp_path / "copy")
    return tmp_path / "copy"


def refused(path, base=None) -> str:
    with pytest.raises(M4MError) as error:
        pretrained.load(path, base)
    message = str(error.value)
    assert "\n" not in message
    return message


def same(one: Model, other: Model) -> None:
    first, second = (by_name(nnx.state(m.system)) for m in (one, other))
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_what_is_saved_is_loaded(place):
    loaded = pretrained.load(place / "lm")
    same(loaded, lm_model())
    assert loaded.card == Card(system="lm", lm=CONFIG, **ABOUT)
    linked = pretrained.load(place / "cross")
    same(linked, Model(small_cross(), linked.card))
    assert linked.card.base.path == "../lm"


def test_a_step_of_a_run_may_be_named(place, copy):
    shutil.copytree(place / "other" / "0", copy / "lm" / "3")
    same(pretrained.load(copy / "lm"), lm_model(7))
    same(pretrained.load(copy / "lm" / "0"), lm_model())
    same(pretrained.load(place / "cross" / "0"), pretrained.load(place / "cross"))
    assert refused(copy / "lm" / "2").endswith("no finished checkpoint of step 2; it has 0, 3")


def test_loading_says_nothing(place, caplog):
    """Orbax would warn that it only reads."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        pretrained.load(place / "lm")
        assert logging.get_verbosity() == logging.WARNING
    finally:
        logging.set_verbosity(before)
    assert caplog.text == ""


def test_an_adapter_directory_holds_the_adapter_alone(place):
    sizes = {
        name: sum(p.stat().st_size for p in (place / name).rglob("*") if p.is_file())
        for name in ("lm", "cross")
    }
    assert sizes["cross"] < sizes["lm"] / 3


def test_a_base_may_be_named_or_handed_over(place, copy):
    shutil.rmtree(copy / "lm")
    want = pretrained.load(place / "cross")
    same(pretrained.load(copy / "cross", place / "lm"), want)
    base = pretrained.load(place / "lm")
    before = {k: np.array(v) for k, v in by_name(nnx.state(base.system)).items()}
    same(pretrained.load(copy / "cross", base), want)
    # A loaded base is copied: it has no updates afterwards and serves again.
    assert by_name(nnx.state(base.system)).keys() == before.keys()
    same(pretrained.load(copy / "cross", base), want)


def test_another_base_is_refused(place, copy):
    assert "was trained on another base" in refused(place / "cross", place / "other")
    assert "was trained on another base" in refused(
        place / "cross", pretrained.load(place / "other")
    )
    shutil.rmtree(copy / "lm")
    shutil.copytree(copy / "other", copy / "lm")
    assert "was trained on another base" in refused(copy / "cross")


def test_a_base_that_differs_in_one_number_is_another(place):
    base = pretrained.load(place / "lm")
    base.system.head.bias[...] = base.system.head.bias[...].at[5].add(1e-6)
    assert "was trained on another base" in refused(place / "cross", base)


def test_a_linked_system_is_no_base(place):
    assert "is a linked system" in refused(place / "cross", place / "cross")
    assert "is a linked system" in refused(place / "cross", pretrained.load(place / "cross"))


def test_a_base_in_bfloat16_is_not_called_another(place):
    half = pretrained.load(place / "lm", dtype=jnp.bfloat16)
    assert "a base is handed over in float32" in refused(place / "cross", half)


def test_what_is_not_there(place, copy, tmp_path):
    assert f"{tmp_path / 'none'}: there is no such model directory" in refused(tmp_path / "none")
    (copy / "lm" / "model.json").unlink()
    assert "is not a model directory: it has no model.json" in refused(copy / "lm")
    assert "no model.json" in refused(copy / "cross")
    shutil.rmtree(copy / "lm")
    assert "needs its base, which is not at" in refused(copy / "cross")
    shutil.rmtree(copy / "other" / "0")
    assert "is incomplete: it holds no finished checkpoint" in refused(copy / "other")


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        "{}",
        '{"system": "lm"}',
        '{"format": 2, "system": "lm"}',
    ],
)
def test_a_card_that_is_none(copy, text):
    file = copy / "lm" / "model.json"
    file.write_text(text)
    message = refused(copy / "lm")
    assert message.startswith(f"{file} does not describe a model: ")
    assert len(message) > len(f"{file} does not describe a model: ") + 5


@pytest.mark.parametrize("key", ["base", "adapter"])
def test_an_adapter_card_must_be_complete(copy, key):
    file = copy / "cross" / "model.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps(fields | {key: None}))
    message = refused(copy / "cross")
    assert "does not describe a model" in message
    assert key in message


def test_a_card_of_other_sizes(copy):
    file = copy / "lm" / "model.json"
    fields = json.loads(file.read_text())
    fields["lm"]["layers"] = 3
    file.write_text(json.dumps(fields))
    assert f"{copy / 'lm' / '0'} cannot be read as its model.json says" in refused(copy / "lm")


@pytest.mark.parametrize("damage", ["no data", "cut", "empty", "no item"])
def test_a_damaged_checkpoint(copy, damage):
    step = copy / "lm" / "0"
    if damage == "no data":
        shutil.rmtree(step / "model" / "d", ignore_errors=True)
        shutil.rmtree(step / "model" / "ocdbt.process_0", ignore_errors=True)
    elif damage == "cut":
        for file in step.rglob("*"):
            if file.is_file() and file.stat().st_size > 2000:
                file.write_bytes(file.read_bytes()[:1000])
    elif damage == "empty":
        shutil.rmtree(step)
        step.mkdir()
    else:
        shutil.rmtree(step / "model")
    message = refused(copy / "lm")
    assert str(copy / "lm") in message


def test_a_directory_in_use_is_not_written_over(place):
    before = (place / "lm" / "model.json").read_bytes()
    with pytest.raises(M4MError, match="is not empty; name a new directory"):
        pretrained.save(lm_model(3), place / "lm")
    assert (place / "lm" / "model.json").read_bytes() == before


def test_dtype_of_the_parameters(place):
    half = pretrained.load(place / "cross", dtype=jnp.bfloat16)
    kinds = {v.dtype for k, v in by_name(nnx.state(half.system)).items() if "positions" not in k}
    assert kinds == {jnp.dtype(jnp.bfloat16)}
    assert half.system.lm.decoder.positions[...].dtype == jnp.float32
    target, reference = random_rows(0, 1, 12, 4), random_rows(1, 1, 12, 4)
    near = half.token_nll(target, reference)
    want = pretrained.load(place / "cross").token_nll(target, reference)
    assert near.dtype == np.float32
    np.testing.assert_allclose(near, want, atol=0.5)
    assert abs((near - want).mean()) < 0.05


def test_token_nll_stands_at_each_token(place):
    model = pretrained.load(place / "lm")
    target = random_rows(0, 2, 12, 4)
    nll = model.token_nll(target)
    assert nll.shape == target.shape
    np.testing.assert_array_equal(nll > 0, target != PLAIN.pad)
    # A later step changes nothing before it.
    changed = target.copy()
    changed[:, 8, 0] = (changed[:, 8, 0] + 1) % 128
    again = model.token_nll(changed)
    np.testing.assert_allclose(again[:, :8], nll[:, :8], atol=1e-5)


def test_references_are_for_linked_systems(place):
    rows = random_rows(0, 1, 12, 4)
    lm, cross = pretrained.load(place / "lm"), pretrained.load(place / "cross")
    with pytest.raises(M4MError, match="a lm model takes no reference"):
        lm.token_nll(rows, rows)
    with pytest.raises(M4MError, match="a cross model needs a reference"):
        cross.generate()


def test_generation_by_rows(place):
    cross = pretrained.load(place / "cross")
    reference = random_rows(0, 1, 15, 4)[0]
    rows = cross.generate(reference, samples=2, temperature=0.0)
    assert rows.shape == (2, 15, 8)
    assert cross.generate(reference, steps=5, max_notes=2).shape == (1, 5, 4)
    lm = pretrained.load(place / "lm")
    assert lm.generate().shape == (1, 12, 8)
    prompt = random_rows(1, 1, 11, 4)[0]
    rows = lm.generate(prompt=prompt, steps=14)
    np.testing.assert_array_equal(rows[0, :11], prompt)
    from_tokens(prompt)


@pytest.mark.parametrize(
    ("prompt", "steps", "message"),
    [
        (12, 20, "a prompt of 12 steps leaves nothing to write of a window of 12"),
        (5, 5, "a prompt of 5 steps leaves nothing to write of 5"),
        (0, 0, "nothing to write of 0"),
    ],
)
def test_prompts_that_are_too_long(place, prompt, steps, message):
    rows = random_rows(0, 1, max(prompt, 1), 4)[0][:prompt]
    with pytest.raises(M4MError, match=message):
        pretrained.load(place / "lm").generate(prompt=rows, steps=steps)


def test_draws_that_there_are_not_are_refused(place):
    lm = pretrained.load(place / "lm")
    for draw, message in (
        ({"samples": 0}, "samples=0: ask for 1 or more"),
        ({"temperature": -1.0}, "temperature=-1.0: give 0"),
        ({"temperature": float("nan")}, "temperature=nan: give 0"),
        ({"top_k": 0}, "top_k=0: give 1 or more"),
        ({"top_p": 1.5}, "top_p=1.5: give a share from 0 to 1"),
        ({"top_p": -0.1}, "top_p=-0.1: give a share from 0 to 1"),
    ):
        with pytest.raises(M4MError, match=message):
            lm.generate(**draw)


def test_a_prompt_of_other_rows_is_refused(place):
    with pytest.raises(M4MError, match="a prompt has rows of 6 tokens; 8 are written"):
        pretrained.load(place / "lm").generate(prompt=random_rows(0, 1, 3, 3)[0])


def test_fingerprints():
    one = pretrained.fingerprint(small_lm(0))
    assert one == pretrained.fingerprint(small_lm(0))
    assert len(one) == 64
    assert one != pretrained.fingerprint(small_lm(1))
    lm = small_lm(0)
    lm.decoder.positions[...] = lm.decoder.positions[...] + 1
    assert one != pretrained.fingerprint(lm)
    wider = small_lm(0, dataclasses.replace(CONFIG, layers=1))
    assert one != pretrained.fingerprint(wider)
