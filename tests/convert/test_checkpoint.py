"""Checkpoints are read as data: what they may carry beside weights never runs."""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

from m4m_jax.convert import checkpoint
from m4m_jax.convert.checkpoint import read_checkpoint, write_checkpoint
from m4m_jax.errors import M4MError

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1.5])}


def saved(path: pathlib.Path, **content) -> pathlib.Path:
    torch.save({"state_dict": STATE, "pytorch-lightning_version": "2.5.2"} | content, path)
    return path


def refused(path) -> str:
    with pytest.raises(M4MError) as error:
        dict(read_checkpoint(path).tensors)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def test_tensors_are_read_as_they_were_written(tmp_path):
    file = read_checkpoint(saved(tmp_path / "x.ckpt"))
    assert file.tensors.shapes == {"a.weight": (2, 3), "b": (1,)}
    for name, value in STATE.items():
        assert file.tensors[name].dtype == np.float32
        np.testing.assert_array_equal(file.tensors[name], value)
    assert file.hyper == {}
    assert file.card is None


def test_other_floats_come_as_float32(tmp_path):
    values = torch.linspace(-3, 3, 50, dtype=torch.float64) / 3
    state = {"half": values.half(), "brain": values.bfloat16(), "double": values}
    file = read_checkpoint(saved(tmp_path / "x.ckpt", state_dict=state))
    assert all(file.tensors[name].dtype == np.float32 for name in state)
    for name, value in state.items():
        np.testing.assert_array_equal(file.tensors[name], value.float())


@pytest.fixture
def attribute_dict(monkeypatch) -> type:
    """A class that pickles under the name of Lightning's, which is not installed here."""
    home = "lightning_fabric.utilities.data"
    kind = type("AttributeDict", (dict,), {"__module__": home})
    for end in range(1, 4):
        name = ".".join(home.split(".")[:end])
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[home].AttributeDict = kind
    return kind


@pytest.fixture
def odd_hyper_parameters(attribute_dict):
    return attribute_dict(
        model_fp=pathlib.PurePosixPath("ckpt/base.ckpt"),
        home=pathlib.Path("/data/x"),
        task=argparse.Namespace(train_task="chord_mel", n_skip=np.int64(3)),
        rate=np.float32(0.25),
        wide=np.float64(1e-9),
        yes=np.bool_(True),
        sizes=(1, [2, None]),
        counts=collections.OrderedDict(a=1),
    )


def test_plain_values_of_known_types_are_kept(tmp_path, odd_hyper_parameters):
    path = saved(tmp_path / "x.ckpt", hyper_parameters=odd_hyper_parameters)
    assert read_checkpoint(path).hyper == {
        "model_fp": "ckpt/base.ckpt",
        "home": "/data/x",
        "task": {"train_task": "chord_mel", "n_skip": 3},
        "rate": 0.25,
        "wide": 1e-9,
        "yes": True,
        "sizes": [1, [2, None]],
        "counts": {"a": 1},
    }


def test_a_namespace_may_be_all_of_them(tmp_path):
    hyper = argparse.Namespace(n_skip=2)
    assert read_checkpoint(saved(tmp_path / "x.ckpt", hyper_parameters=hyper)).hyper == {
        "n_skip": 2
    }


def test_hyper_parameters_that_hold_themselves_are_refused(tmp_path):
    endless: list = []
    endless.append(endless)
    path = saved(tmp_path / "x.ckpt", hyper_parameters={"x": endless})
    assert "nested too deep" in refused(path)


def test_what_else_lightning_keeps_is_passed_over(tmp_path):
    path = saved(
        tmp_path / "x.ckpt",
        epoch=3,
        optimizer_states=[{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}],
        callbacks={"ModelCheckpoint": {"best_model_path": "/x", "best": torch.tensor(1.0)}},
    )
    assert read_checkpoint(path).tensors.shapes.keys() == STATE.keys()


class Writes:
    """Unpickling it writes a file."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("place", ["hyper_parameters", "state_dict", "callbacks", "elsewhere"])
@pytest.mark.parametrize("how", ["os.system", "exec", "open", "pathlib", "numpy"])
def test_a_malicious_pickle_runs_nothing(tmp_path, place, how):
    trace = tmp_path / "ran"
    payload = {
        "os.system": Writes(os.system, f"touch {trace}"),
        "exec": Writes(exec, f"open({str(trace)!r}, 'w')"),
        "open": Writes(open, str(trace), "w"),
        "pathlib": Writes(pathlib.Path.touch, pathlib.Path(trace)),
        "numpy": Writes(np.save, str(trace), 1),
    }[how]
    path = saved(tmp_path / "x.ckpt", **{place: {"x": payload}})
    assert "is refused" in refused(path)
    assert "nothing ran" in refused(path)
    assert not list(tmp_path.glob("ran*"))
    torch.load(path, weights_only=False)  # it would have
    assert list(tmp_path.glob("ran*"))


def test_a_stand_in_is_no_way_to_code(tmp_path):
    """Types that are allowed by name build nothing but data, whatever they are called with."""
    scalar = np._core.multiarray.scalar
    for payload in (
        Writes(scalar, np.dtype("O"), b"x"),
        Writes(np.dtype, "O"),
        Writes(np.dtype, [("a", "f8")]),
    ):
        path = saved(tmp_path / "x.ckpt", hyper_parameters={"x": payload})
        assert "is refused" in refused(path)


def test_a_bare_pickle_is_refused(tmp_path):
    path, trace = tmp_path / "x.ckpt", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"state_dict": Writes(os.system, f"touch {trace}")}))
    refused(path)
    assert not trace.exists()


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = saved(tmp_path / "x.ckpt")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "is not a PyTorch checkpoint, or is damaged" in refused(path)


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    path = tmp_path / "x.ckpt"
    for content in (b"", b"MThd" + bytes(100)):
        path.write_bytes(content)
        words = "is not a PyTorch checkpoint (.ckpt), .safetensors file or PEFT folder"
        assert refused(path) == f"{path} {words}"
    torch.save({"state_dict": STATE}, path, _use_new_zipfile_serialization=False)
    assert refused(path).endswith("as of PyTorch before 1.6; save it with a newer one")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    refused(path)
    torch.save([1, 2], path)
    assert "it holds no state_dict" in refused(path)
    torch.save({"weights": STATE}, path)
    assert "it holds no state_dict" in refused(path)
    assert "there is no such file" in refused(tmp_path / "none.ckpt")
    assert "there is no such file" in refused(tmp_path)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3, "is not a tensor"),
        (torch.arange(3), "int64"),
        (torch.eye(3).to_sparse(), "is not a tensor"),
        (torch.zeros(1).expand(10**9, 10**3), "is larger than what is stored of it"),
    ],
)
def test_what_is_no_weight_is_refused(tmp_path, value, words):
    message = refused(saved(tmp_path / "x.ckpt", state_dict=STATE | {"odd": value}))
    assert "odd" in message
    assert words in message


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "x.ckpt"
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.float32([1])}
    write_checkpoint(path, arrays.items(), {"n_skip": 2})
    file = read_checkpoint(path)
    assert file.hyper == {"n_skip": 2}
    for name, value in arrays.items():
        np.testing.assert_array_equal(file.tensors[name], value)
    content = torch.load(path, weights_only=True)
    assert content.keys() == {"state_dict", "pytorch-lightning_version", "hyper_parameters"}
    assert content["state_dict"]["a"].is_contiguous()


def test_without_torch_the_extra_is_named(tmp_path, monkeypatch):
    path = saved(tmp_path / "x.ckpt")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(M4MError, match=r"pip install -e '\.\[convert\]'"):
        checkpoint.read_checkpoint(path)
