"""`m4m convert`: what it prints and leaves, and how it answers mistakes."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys

import pytest
import torch

from m4m_jax.bench.torch_lm import Size
from m4m_jax.cli import _run
from m4m_jax.errors import M4MError
from m4m_jax.music import write_midi
from tests.compiling import quick_compile as quick_compile
from tests.convert import systems
from tests.convert.systems import written
from tests.datasets.music import song

pytestmark = pytest.mark.usefixtures("quick_compile")

TINY = Size(32, 2, 2, 48, 1, 2, 40)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    lm = systems.foundation(TINY)
    written(folder / "base.ckpt", lm)
    written(folder / "self.ckpt", systems.linked("self", lm))
    written(folder / "unknown.ckpt", systems.linked("self", lm), "something_else")
    return folder


@pytest.fixture
def place(checkpoints, tmp_path, monkeypatch):
    for path in checkpoints.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def m4m(*arguments: str) -> tuple[int, str, str]:
    """Status, stdout and stderr of a command in this process."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        status = _run(arguments)
    return status, out.getvalue(), err.getvalue()


def mistake(*arguments: str) -> str:
    status, _, err = m4m(*arguments)
    assert status == 2
    assert re.fullmatch(r"m4m: .*\n", err)
    return err


def test_there_and_back(place):
    assert m4m("convert", "to-flax", "base.ckpt", "-o", "lm")[0] == 0
    status, out, _ = m4m("convert", "to-flax", "self.ckpt", "--base", "lm", "-o", "self")
    assert status == 0
    assert out.splitlines()[0].startswith("self on width 32")
    assert out.splitlines()[0].endswith("LoRA of rank 64 and alpha 128; chord-to-melody, N = 8")
    assert out.splitlines()[1] == "self"
    assert json.loads((place / "self" / "model.json").read_text())["base"]["path"] == "../lm"
    assert m4m("convert", "to-torch", "self", "-o", "back.ckpt")[:2] == (0, "back.ckpt\n")
    one, other = (torch.load(name)["state_dict"] for name in ("self.ckpt", "back.ckpt"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert m4m("convert", "to-safetensors", "self", "-o", "x.safetensors")[0] == 0
    assert m4m("convert", "to-peft", "self", "-o", "peft")[0] == 0
    for file in ("x.safetensors", "peft"):
        assert m4m("convert", "to-flax", file, "--base", "base.ckpt", "-o", f"{file}-again")[0] == 0


def test_what_is_said_of_the_task(place):
    options = ("--base", "base.ckpt", "-o", "dir", "--task", "analysis", "--max-notes", "12")
    status, out, _ = m4m("convert", "to-flax", "unknown.ckpt", *options)
    assert status == 0
    assert out.splitlines()[0].endswith("analysis, N = 12")


def test_inspect(place):
    status, out, err = m4m("convert", "inspect", "self.ckpt")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "system: self"
    assert "LoRA: rank 64, alpha 128, on query, value" in lines
    assert "task: chord-to-melody, N = 8" in lines
    assert "n_skip: 2" in lines
    state = torch.load("self.ckpt")["state_dict"]
    numbers = sum(value.numel() for value in state.values())
    assert f"parameters: {numbers:,} in {len(state)} tensors, position tables included" in lines
    assert "  sentence_embedding [2, 16] -> stream_vectors" in lines
    assert "task: unknown, N = 16, a guess" in m4m("convert", "inspect", "unknown.ckpt")[1]
    assert "size: width 32, 2 layers" in m4m("convert", "inspect", "base.ckpt")[1]


def test_verify(place):
    status, out, err = m4m("convert", "verify", "self.ckpt", "--base", "base.ckpt", "--steps", "24")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[-1] == "the two agree"
    assert re.fullmatch(r"\d+ tokens of 24 steps, \d\.\d{4} nats each in PyTorch", lines[1])
    worst, mean = (float(re.search(r"\d\.\d\de-\d\d", line)[0]) for line in lines[2:4])
    assert 0 < mean < worst < 5e-4
    write_midi(song(0), place / "song.mid")
    status, _, err = m4m("convert", "verify", "base.ckpt", "--midi", "song.mid", "--steps", "8")
    assert (status, err) == (0, "")


def test_verify_says_first_what_is_not_installed(tmp_path, monkeypatch):
    from m4m_jax.convert import verify

    monkeypatch.setitem(sys.modules, "m4m_jax.bench.torch_checkpoints", None)
    with pytest.raises(M4MError, match=r"the PyTorch build needs .*pip install -e '\.\[convert\]'"):
        verify.verify(tmp_path / "no-such-file.ckpt")


def test_verify_tells_a_disagreement(place, monkeypatch):
    from m4m_jax.convert import verify

    right = verify._pytorch_nll
    monkeypatch.setattr(verify, "_pytorch_nll", lambda *a: right(*a) + 1e-4)
    status, out, err = m4m("convert", "verify", "base.ckpt", "--steps", "8")
    assert (status, err) == (1, "")
    assert out.splitlines()[-1] == "THE TWO DISAGREE"


def test_mistakes(place):
    (place / "text.ckpt").write_text("no checkpoint")
    (place / "full").mkdir()
    (place / "full" / "file").touch()
    before = sorted(place.rglob("*"))
    out = ("-o", "out")
    assert "there is no such file" in mistake("convert", "to-flax", "none.ckpt", *out)
    assert "is not a PyTorch checkpoint" in mistake("convert", "to-flax", "text.ckpt", *out)
    assert "is not a PyTorch checkpoint" in mistake("convert", "inspect", "text.ckpt")
    assert "name its language model" in mistake("convert", "to-flax", "self.ckpt", *out)
    assert "name its language model" in mistake("convert", "verify", "self.ckpt")
    assert "full is not empty" in mistake("convert", "to-flax", "base.ckpt", "-o", "full")
    base = ("--base", "base.ckpt")
    assert "no task" in mistake("convert", "to-flax", "self.ckpt", *base, *out, "--task", "x")
    assert "no such model directory" in mistake("convert", "to-torch", "none", *out)
    assert "does not exist" in mistake("convert", "to-torch", "full", "-o", "none/x.ckpt")
    assert "no model.json" in mistake("convert", "to-peft", "full", *out)
    assert "is a folder, but no PEFT folder" in mistake("convert", "inspect", "full")
    assert "none.mid: cannot be read" in mistake(
        "convert", "verify", "base.ckpt", "--midi", "none.mid"
    )
    assert sorted(place.rglob("*")) == before
