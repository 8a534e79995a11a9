"""Files of weights: how they are recognised and refused, and every format there and back."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from flax import nnx
from peft import PeftModel
from safetensors.numpy import load_file, save_file

import m4m_jax
from m4m_jax import pretrained
from m4m_jax.bench.torch_checkpoints import save_checkpoint
from m4m_jax.bench.torch_lm import Size, sines
from m4m_jax.bench.torch_systems import CrossAttentive, SelfAttentive
from m4m_jax.convert import commands, foreign, recognize
from m4m_jax.convert.checkpoint import read_checkpoint, write_checkpoint
from m4m_jax.convert.safetensors_file import write_safetensors
from m4m_jax.convert.weights_file import Tensors, WeightsFile
from m4m_jax.data.packing import pack, unpack
from m4m_jax.errors import M4MError
from m4m_jax.models.card import Card
from m4m_jax.models.coco_mulla import CocoMullaConfig
from m4m_jax.models.cross import CrossAdapter, CrossConfig
from m4m_jax.models.lm import LM, LMConfig
from m4m_jax.models.lora import LoRAConfig
from m4m_jax.models.parameters import by_name
from m4m_jax.models.self_attentive import SelfConfig
from m4m_jax.music.compression import Compression
from m4m_jax.music.simunote import PLAIN, VELOCITY
from tests.compiling import quick_compile as quick_compile
from tests.convert import systems
from tests.convert.systems import LINKED, SMALL, rows, written
from tests.models.small import CONFIG, packed_logits

ON_A_BASE = [name for name in LINKED if name != "seq2seq"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint of every system, `base.ckpt` and `other.ckpt`."""
    folder = tmp_path_factory.mktemp("checkpoints")
    lm = systems.foundation()
    written(folder / "base.ckpt", lm)
    with torch.no_grad():
        other = systems.foundation()
        other.global_sos[0] += 1
    written(folder / "other.ckpt", other)
    for name in LINKED:
        written(folder / f"{name}.ckpt", systems.linked(name, lm))
    return folder


def base_for(place, name):
    return place / "base.ckpt" if name in ON_A_BASE else None


def refused(call, *arguments, **options) -> str:
    with pytest.raises(M4MError) as error:
        call(*arguments, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


def arrays(model) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in by_name(nnx.state(model.system)).items()}


def assert_same(one, other) -> None:
    first, second = arrays(one), arrays(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


# Recognition.

SIZES = LMConfig(96, 4, 4, 160, 1, 2, 112)


@pytest.mark.parametrize(
    ("name", "system", "adapter"),
    [
        ("base", "lm", None),
        ("cross", "cross", CrossConfig()),
        ("cross, no LoRA, every layer", "cross", CrossConfig(every=1, lora=None)),
        ("self", "self", SelfConfig()),
        ("coco-mulla", "coco-mulla", CocoMullaConfig()),
        ("seq2seq", "seq2seq", None),
    ],
)
def test_recognition(place, name, system, adapter):
    card = m4m_jax.load(place / f"{name}.ckpt", base_for(place, name)).card
    assert (card.system, card.adapter) == (system, adapter)
    sizes = LMConfig(64, 2, 4, 96, 1, 4, 96) if name == "seq2seq" else SIZES
    assert card.lm == sizes
    assert card.task == ("continuation" if name == "base" else "chord-to-melody")
    assert card.max_notes == (16 if name == "base" else 8)
    assert card.window == 384


@pytest.mark.parametrize(
    ("size", "vocabulary"),
    [(Size(64, 3, 2, 48, 2, 4, 40, positions=512), PLAIN), (Size(32, 1, 1, 16), VELOCITY)],
)
def test_sizes_are_told_by_shapes(tmp_path, size, vocabulary):
    if size.local_heads == 8:
        size = Size(32, 1, 1, 16, 1, 2, 24)
    lm = systems.foundation(size, vocabulary=vocabulary.size)
    card = m4m_jax.load(written(tmp_path / "lm.ckpt", lm)).card
    got = (card.lm.width, card.lm.layers, card.lm.heads, card.lm.ffn)
    assert got == (size.width, size.layers, size.heads, size.ffn)
    got = (card.lm.local_layers, card.lm.local_heads, card.lm.local_ffn)
    assert got == (size.local_layers, size.local_heads, size.local_ffn)
    assert card.lm.positions == size.positions
    assert card.lm.vocabulary == vocabulary.name


@pytest.mark.parametrize(("rank", "skip"), [(4, 1), (8, 3), (2, 4)])
def test_rank_and_links_are_told(tmp_path, rank, skip):
    lm = systems.foundation()
    base = written(tmp_path / "base.ckpt", lm)
    system = systems.exercise(CrossAttentive(lm, rank=rank, skip=skip))
    want = CrossConfig(every=skip, lora=LoRAConfig(rank, 2.0 * rank))
    for hyper in ({"n_skip": skip}, {"n_skip": None}):
        path = tmp_path / "cross.ckpt"
        save_checkpoint(path, system, train_task="mel_chord", **hyper)
        card = m4m_jax.load(path, base).card
        assert card.task == "melody-to-chord"
        # Of 4 layers, 2 links fit n_skip 2 and 3: without a word on it the smaller is taken.
        assert card.adapter == want or (hyper["n_skip"] is None and card.adapter.every == 2)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("chord_mel", "chord-to-melody"),
        ("chord-to-melody", "chord-to-melody"),
        ("mel_chord", "melody-to-chord"),
        ("melody-to-chord", "melody-to-chord"),
        ("drum_others", "drums-to-others"),
        ("drums-to-others", "drums-to-others"),
        ("nondrum_drum", "others-to-drums"),
        ("others-to-drums", "others-to-drums"),
        ("analysis", "analysis"),
        ("random-split", "random-split"),
        ("density-split", "density-split"),
        ("copy", "copy"),
        ("harmonize", "harmonize"),
        ("foo", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
        (3, "unknown"),
    ],
)
def test_tasks_are_told_by_name(name, task):
    told = recognize.told_task(name)
    assert (told.name if told else "unknown") == task


def test_what_the_user_says_comes_first(place):
    base = [foreign.Given(SIZES, pretrained.Base(fingerprint="x", path="y"))]
    file = foreign.open_weights(place / "cross.ckpt")
    card = foreign.card_of(file, base, "others-to-drums", 12)
    assert (card.task, card.max_notes, card.dedup) == ("others-to-drums", 12, True)
    assert foreign.card_of(file, base, None, 5).max_notes == 5
    assert "no task" in refused(foreign.card_of, file, base, "no-such-task")


def test_what_the_user_says_leaves_the_rest_of_a_files_card(place, tmp_path):
    file = foreign.open_weights(place / "base.ckpt")
    told = {"window": 96, "compress": Compression(1, 4), "max_notes": 5, "starts": "bars"}
    own = foreign.card_of(file).model_copy(update=told | {"harmony_by_quarter": True})
    write_safetensors(tmp_path / "x.safetensors", file.tensors.items(), own)
    file = foreign.open_weights(tmp_path / "x.safetensors")
    task = {"task": "drums-to-others", "reference": "drum", "target": "nondrum", "dedup": True}
    wanted = own.model_copy(update=task | {"harmony_by_quarter": False})
    assert foreign.card_of(file, task="drums-to-others") == wanted
    wanted = wanted.model_copy(update={"max_notes": 7})
    assert foreign.card_of(file, task="drums-to-others", max_notes=7) == wanted
    assert "no task" in refused(foreign.card_of, file, task="no-such-task")
    assert foreign.card_of(file, task=own.task) == own


def test_compression_is_told(place, tmp_path):
    file = foreign.open_weights(place / "cross.ckpt")
    hyper = {**file.hyper, "compress_ratio_l": 4, "compress_ratio_r": 2}
    assert recognize.compression(WeightsFile("x", file.tensors, hyper)) == Compression(4, 2)


# Position tables.


def test_position_tables_are_those_of_the_file(place):
    lm = m4m_jax.load(place / "base.ckpt").system
    state = torch.load(place / "base.ckpt", weights_only=True)["state_dict"]
    linked = m4m_jax.load(place / "cross.ckpt", place / "base.ckpt").system.lm
    for theirs, ours in (("local_encoder", "encoder"), ("local_decoder", "local_decoder")):
        table = state[f"{theirs}.embed_positions.weight"].numpy()
        np.testing.assert_array_equal(getattr(lm, ours).positions[...], table)
        np.testing.assert_array_equal(getattr(linked, ours).positions[...], table)
    table = state["model.embed_positions.weight"]
    np.testing.assert_array_equal(lm.decoder.positions[...], table)
    np.testing.assert_allclose(linked.decoder.positions[...], sines(*table.shape), atol=1e-6)
    assert np.abs(linked.decoder.positions[...] - table.numpy()).max() > 1


# What is refused.


def test_an_adapter_needs_its_base(place):
    message = refused(m4m_jax.load, place / "cross.ckpt")
    assert "is a cross adapter; name its language model with base" in message
    message = refused(m4m_jax.load, place / "base.ckpt", place / "other.ckpt")
    assert "is a lm model, which is on no base" in message
    message = refused(m4m_jax.load, place / "cross.ckpt", place / "self.ckpt")
    assert "self.ckpt is a self adapter" in message


def test_the_path_in_a_file_is_not_followed(place, tmp_path):
    """Not even where it leads to the right base."""
    system = systems.linked("cross", systems.foundation())
    save_checkpoint(tmp_path / "x.ckpt", system, model_fp=str(place / "base.ckpt"))
    assert "name its language model with base" in refused(m4m_jax.load, tmp_path / "x.ckpt")


def test_all_that_does_not_fit_is_in_one_error(place, tmp_path):
    content = torch.load(place / "base.ckpt", weights_only=True)
    state = content["state_dict"]
    del state["global_sos"], state["model.embed_positions.weight"]
    state["final_decoder.bias"] = torch.zeros(7)
    state["model.layer.0.more"] = torch.zeros(2)
    torch.save(content, tmp_path / "x.ckpt")
    assert "holds none of the known systems" in refused(m4m_jax.load, tmp_path / "x.ckpt")
    state["global_sos"] = torch.zeros(96)
    torch.save(content, tmp_path / "x.ckpt")
    message = refused(m4m_jax.load, tmp_path / "x.ckpt")
    for words in (
        "final_decoder.bias has shape (7,)",
        "model.layer.0.more has no place",
        "model.embed_positions.weight is not there",
    ):
        assert words in message


def test_a_base_of_other_layers_is_refused(place, tmp_path):
    wrong = written(tmp_path / "x.ckpt", systems.foundation(Size(96, 2, 4, 160, 1, 2, 112)))
    message = refused(m4m_jax.load, place / "cross.ckpt", wrong)
    assert "does not fit a base of 2 layers" in message
    message = refused(m4m_jax.load, place / "coco-mulla.ckpt", wrong)
    assert "w_e.3.weight has no place" in message


def test_an_odd_vocabulary_is_refused(tmp_path):
    lm = systems.foundation(SMALL, vocabulary=4000)
    message = refused(m4m_jax.load, written(tmp_path / "x.ckpt", lm))
    assert "a vocabulary of 4000 tokens" in message


# There and back.


@pytest.mark.parametrize("name", ["base", *LINKED])
def test_torch_to_flax_to_torch(place, tmp_path, name):
    base = base_for(place, name)
    commands.to_flax(place / f"{name}.ckpt", tmp_path / "dir", [base] if base else [])
    commands.to_torch(tmp_path / "dir", tmp_path / "back.ckpt")
    before, after = (
        torch.load(path, weights_only=True)
        for path in (place / f"{name}.ckpt", tmp_path / "back.ckpt")
    )
    assert after["state_dict"].keys() == before["state_dict"].keys()
    for key, value in before["state_dict"].items():
        assert torch.equal(after["state_dict"][key], value), key
    told = ("n_skip", "use_lora", "change_pe", "compress_ratio_l", "max_position_embeddings")
    for key in told if name != "base" else ():
        assert after["hyper_parameters"][key] == before["hyper_parameters"][key]
    # What was written says the same of itself, here too.
    card = m4m_jax.load(tmp_path / "dir").card
    again = m4m_jax.load(tmp_path / "back.ckpt", base)
    assert again.card.model_copy(update={"base": card.base}) == card
    assert_same(again, m4m_jax.load(place / f"{name}.ckpt", base))


@pytest.mark.parametrize("name", ["base", "cross", "seq2seq"])
def test_safetensors_there_and_back(place, tmp_path, name):
    base = base_for(place, name)
    commands.to_flax(place / f"{name}.ckpt", tmp_path / "dir", [base] if base else [], max_notes=5)
    commands.to_safetensors(tmp_path / "dir", tmp_path / "x.safetensors")
    want = read_checkpoint(place / f"{name}.ckpt").tensors
    got = load_file(tmp_path / "x.safetensors")
    assert got.keys() == want.keys()
    for key, value in got.items():
        np.testing.assert_array_equal(value, want[key])
    again = m4m_jax.load(tmp_path / "x.safetensors", base)
    assert again.card.max_notes == 5
    assert_same(again, m4m_jax.load(tmp_path / "dir"))
    commands.to_flax(tmp_path / "x.safetensors", tmp_path / "two", [base] if base else [])
    assert_same(m4m_jax.load(tmp_path / "two"), again)


def test_safetensors_without_a_card(place, tmp_path):
    """As others write them."""
    save_file(dict(read_checkpoint(place / "base.ckpt").tensors), tmp_path / "x.safetensors")
    assert_same(m4m_jax.load(tmp_path / "x.safetensors"), m4m_jax.load(place / "base.ckpt"))


def test_the_fingerprint_in_a_card_is_held_to(place, tmp_path):
    commands.to_flax(place / "self.ckpt", tmp_path / "dir", [place / "base.ckpt"])
    commands.to_safetensors(tmp_path / "dir", tmp_path / "x.safetensors")
    message = refused(m4m_jax.load, tmp_path / "x.safetensors", place / "other.ckpt")
    assert "was trained on another base" in message
    assert "name its language model with base" in refused(m4m_jax.load, tmp_path / "x.safetensors")


def test_a_card_of_another_model_is_refused(place, tmp_path):
    commands.to_flax(place / "base.ckpt", tmp_path / "dir")
    tensors = read_checkpoint(place / "base.ckpt").tensors
    card = m4m_jax.load(tmp_path / "dir").card
    for odd in ({"layers": 10**9}, {"positions": 10**12}):
        lm = dataclasses.replace(card.lm, **odd)
        write_safetensors(
            tmp_path / "x.safetensors", tensors.items(), card.model_copy(update={"lm": lm})
        )
        message = refused(m4m_jax.load, tmp_path / "x.safetensors")
        assert "its card describes another model" in message


@pytest.mark.parametrize("content", [b"", b"MThd", b"\xff" * 100, (8).to_bytes(8, "little")])
def test_files_that_are_no_safetensors(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert "is not a safetensors file, or is damaged" in refused(m4m_jax.load, path)
    assert "there is no such file" in refused(m4m_jax.load, tmp_path / "none.safetensors")


def test_a_base_may_be_a_directory_a_file_or_loaded(place, tmp_path):
    commands.to_flax(place / "base.ckpt", tmp_path / "base")
    want = m4m_jax.load(place / "cross.ckpt", place / "base.ckpt")
    loaded = m4m_jax.load(tmp_path / "base")
    for base in (tmp_path / "base", loaded, str(tmp_path / "base")):
        assert_same(m4m_jax.load(place / "cross.ckpt", base), want)
    for number, base in enumerate((tmp_path / "base", place / "base.ckpt")):
        card = commands.to_flax(place / "cross.ckpt", tmp_path / f"{number}", [base])
        assert card.base.fingerprint == pretrained.fingerprint(loaded.system)
        assert_same(m4m_jax.load(tmp_path / f"{number}"), want)


# PEFT.


@pytest.fixture
def peft_folder(place, tmp_path):
    commands.to_flax(place / "cross.ckpt", tmp_path / "dir", [place / "base.ckpt"])
    commands.to_peft(tmp_path / "dir", tmp_path / "peft")
    return tmp_path / "peft"


@pytest.mark.usefixtures("quick_compile")
def test_peft_loads_the_updates(place, peft_folder):
    """The library puts them on the PyTorch build, which then computes the logits that we do."""
    lm = systems.foundation()
    theirs = CrossAttentive(lm, rank=0)
    theirs.wrapped_model = PeftModel.from_pretrained(lm, str(peft_folder))
    theirs.frozen = False
    lm.model.rebuild_positions()
    rest = load_file(peft_folder / "adapter_links.safetensors")
    state = {name: torch.from_numpy(value) for name, value in rest.items()}
    unplaced = torch.nn.Module.load_state_dict(theirs, state, strict=False).unexpected_keys
    assert not unplaced
    theirs.eval()
    target, reference = rows(0, 1, 10, 5), rows(1, 1, 10, 5)
    with torch.no_grad():
        want = theirs(torch.from_numpy(target), torch.from_numpy(reference)).numpy()
    ours = m4m_jax.load(peft_folder, place / "base.ckpt")
    batch = pack(target, reference, vocabulary=PLAIN)
    logits = packed_logits(ours.system, batch)
    got, real = unpack(np.asarray(logits), batch), target != PLAIN.pad
    np.testing.assert_allclose(got[real], want[real], atol=1e-4, rtol=0)


def test_peft_there_and_back(place, peft_folder):
    again = m4m_jax.load(peft_folder, place / "base.ckpt")
    assert_same(again, m4m_jax.load(place / "cross.ckpt", place / "base.ckpt"))
    assert again.card.adapter == CrossConfig()


def test_updates_that_peft_has_written(place, tmp_path):
    """Its own folder, with the links beside it, is read too."""
    theirs = systems.exercise(SelfAttentive(systems.foundation(), rank=4))
    theirs.wrapped_model.save_pretrained(tmp_path / "peft")
    state = {k: v.numpy() for k, v in theirs.state_dict().items() if "lora" not in k}
    save_file(state, tmp_path / "peft" / "adapter_links.safetensors")
    got = m4m_jax.load(tmp_path / "peft", place / "base.ckpt")
    want = m4m_jax.load(written(tmp_path / "x.ckpt", theirs), place / "base.ckpt")
    assert_same(got, want)
    assert got.card.adapter == SelfConfig(lora=LoRAConfig(4, 8.0))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_dora": True}, "use_dora True"),
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"rank_pattern": {"query": 3}}, "rank_pattern"),
        ({"lora_alpha": None}, "it has no lora_alpha"),
        ({"lora_alpha": 7}, "alpha"),
    ],
)
def test_other_updates_are_refused(place, peft_folder, changes, words):
    file = peft_folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    assert words in refused(m4m_jax.load, peft_folder, place / "base.ckpt")


def test_a_peft_folder_that_is_incomplete(place, peft_folder):
    (peft_folder / "adapter_links.safetensors").unlink()
    message = refused(m4m_jax.load, peft_folder, place / "base.ckpt")
    assert "adapter_links.safetensors: there is no such file" in message
    (peft_folder / "adapter_config.json").write_text("{")
    assert "is not JSON" in refused(m4m_jax.load, peft_folder, place / "base.ckpt")


def test_what_peft_cannot_hold(place, tmp_path):
    commands.to_flax(place / "base.ckpt", tmp_path / "base")
    assert "low-rank updates" in refused(commands.to_peft, tmp_path / "base", tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


# Models that the public implementation does not know.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lm": {"encoder": "masked"}}, "its encoder masks PADs"),
        ({"adapter": {"heads": 8}}, "links are not of width 256 and 4 heads"),
        ({"adapter": {"lora": {"alpha": 8.0}}}, "its alpha is not twice the rank"),
        ({"common_key": True}, "it reads and writes in a common key"),
        ({"harmony_by_quarter": True}, "it reads a harmonic reduction"),
    ],
)
def test_only_what_it_knows_becomes_a_checkpoint(place, tmp_path, changes, words):
    folder, out = tmp_path / "dir", tmp_path / "x.ckpt"
    commands.to_flax(place / "cross.ckpt", folder, [place / "base.ckpt"])
    fields = json.loads((folder / "model.json").read_text())
    for part, change in changes.items():
        if not isinstance(change, dict):
            fields[part] = change
            continue
        for key, value in change.items():
            fields[part][key] = fields[part][key] | value if isinstance(value, dict) else value
    (folder / "model.json").write_text(json.dumps(fields))
    assert words in refused(commands.to_torch, folder, out)
    assert not out.exists()
    commands.to_safetensors(folder, tmp_path / "x.safetensors")
    shutil.rmtree(folder)
    again = m4m_jax.load(tmp_path / "x.safetensors", place / "base.ckpt").card
    assert json.loads(again.model_dump_json())["adapter"] == fields["adapter"]


ABOUT = {"task": "copy", "reference": "all", "target": "all", "max_notes": 4, "window": 12}


@pytest.mark.parametrize("tuned", [False, True])
def test_two_language_models_and_tuned_ones(tmp_path, tuned):
    """Systems that only this package has go through safetensors like any other."""
    sizes = (CONFIG, dataclasses.replace(CONFIG, width=48, layers=3))
    lms = [LM(config, rngs=nnx.Rngs(i)) for i, config in enumerate(sizes)]
    for number, lm in enumerate(lms):
        card = Card(system="lm", lm=lm.config, **ABOUT | {"reference": None})
        pretrained.save(m4m_jax.Model(lm, card), tmp_path / f"{number}")
    adapter = CrossConfig(width=16, heads=2, tune="all" if tuned else "adapter")
    paths = [tmp_path / "0", tmp_path / "1"]
    bases = [
        None if tuned else pretrained.base_of(lm, path, tmp_path / "dir")
        for lm, path in zip(lms, paths, strict=True)
    ]
    card = Card(
        system="cross", lm=sizes[0], reference_lm=sizes[1], adapter=adapter, base=bases[0],
        reference_base=bases[1], **ABOUT,
    )  # fmt: skip
    system = CrossAdapter(lms[0], adapter, reference_lm=lms[1], rngs=nnx.Rngs(2))
    pretrained.save(m4m_jax.Model(system, card), tmp_path / "dir")
    commands.to_safetensors(tmp_path / "dir", tmp_path / "x.safetensors")
    again = m4m_jax.load(tmp_path / "x.safetensors", None if tuned else paths[::-1])
    assert_same(again, m4m_jax.load(tmp_path / "dir"))
    assert "it links two language models" in refused(
        commands.to_torch, tmp_path / "dir", tmp_path / "x.ckpt"
    )
    if not tuned:
        message = refused(m4m_jax.load, tmp_path / "x.safetensors", paths[0])
        assert "name both its language models with base" in message


def test_tensors_are_read_one_at_a_time():
    read = []

    def value(name):
        read.append(name)
        return np.zeros(3, np.float32)

    tensors = Tensors({"a": (3,), "b": (3,)}, value)
    assert (list(tensors), len(tensors), read) == (["a", "b"], 2, [])
    assert tensors["a"].shape == (3,)
    assert read == ["a"]
    with pytest.raises(KeyError):
        tensors["c"]


def test_a_checkpoint_carries_its_card(tmp_path):
    card = Card(
        system="lm", lm=SIZES, task="copy", reference=None, target="all", max_notes=3, window=12
    )
    write_checkpoint(tmp_path / "x.ckpt", [("a", np.zeros(1))], None, card)
    assert read_checkpoint(tmp_path / "x.ckpt").card == card
