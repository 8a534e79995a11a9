"""PyTorch Lightning checkpoints, in and out, without running what a pickle may carry.

A `.ckpt` is a torch zip of a dict: `state_dict`, `pytorch-lightning_version` and, for a linked
system, `hyper_parameters`. A pickle can name any function to be called, so a file is read by
torch's restricted unpickler (`weights_only`), which knows tensors and plain containers. A few
harmless types that hyper-parameters are made of come as plain data (`STAND_INS`); whatever else a
file names is refused.
"""

from __future__ import annotations

import importlib
import math
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from etils import epath

from m4m_jax.convert.weights_file import Tensors, WeightsFile
from m4m_jax.errors import M4MError, lacking
from m4m_jax.files import atomic_path
from m4m_jax.models.card import Card, read_card

LIGHTNING_VERSION = "2.5.2"
CARD = "m4m_card"
"""The key of a checkpoint under which this package keeps a model's card."""
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
"""What a file of torch begins with, and what one of torch before 1.6 does."""


def import_torch() -> Any:
    """The torch package; M4MError where it is not installed."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise lacking("PyTorch files need torch", "convert") from error


class _Fields:
    """Stands in for an object that is no more than its fields, such as argparse.Namespace."""

    def __new__(cls, *arguments: Any) -> _Fields:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.fields = state


class _NumpyType:
    """Stands in for numpy.dtype, of numbers only."""

    code: str

    def __new__(cls, code: Any = "", *arguments: Any) -> _NumpyType:
        self = super().__new__(cls)
        if not re.fullmatch(r"[biuf][1-8]", str(code)):
            raise M4MError(f"it holds numpy values of type {str(code)[:20]!r}")
        self.code = str(code)
        return self

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
        self.code = (order if order in ("<", ">") else "") + self.code


def _path(*parts: Any) -> str:
    """Stands in for the path types of pathlib."""
    return str(PurePosixPath(*(part for part in parts if isinstance(part, str))))


def _number(kind: Any, data: Any) -> Any:
    """Stands in for the function that unpickles a numpy scalar."""
    if not isinstance(kind, _NumpyType) or not isinstance(data, bytes):
        raise M4MError("it holds a numpy value that is no number")
    return np.frombuffer(data, kind.code, count=1)[0].item()


STAND_INS: list[tuple[Any, str]] = [
    (_Fields, "argparse.Namespace"),
    *((_path, f"{home}.{name}") for home in ("pathlib", "pathlib._local") for name in (
        "Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath",
    )),
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
    (_NumpyType, "numpy.dtype"),
    *((OrderedDict, f"{home}.AttributeDict") for home in (
        "lightning_fabric.utilities.data",
        "lightning.fabric.utilities.data",
        "lightning.pytorch.utilities.parsing",
        "pytorch_lightning.utilities.parsing",
    )),
]  # fmt: skip
"""What stands in for the types, by name, that hyper-parameters are known to hold: data alone."""


DEPTH = 12
"""How deep hyper-parameters may be nested: a pickle may hold a list that holds itself."""


def plain(value: Any, depth: int = DEPTH) -> Any:
    """A value of nothing but dicts, lists, strings, numbers and None; all else as its text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if not depth:
        raise M4MError("its hyper_parameters are nested too deep")
    if isinstance(value, _Fields):
        return plain(getattr(value, "fields", {}), depth - 1)
    if isinstance(value, Mapping):
        return {str(key): plain(part, depth - 1) for key, part in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(part, depth - 1) for part in value]
    return str(value)


def read_checkpoint(path: epath.PathLike) -> WeightsFile:
    """Open a Lightning checkpoint (or a bare state dict's file); its tensors stay on disk.

    Raises M4MError where there is no such file, where it is none or damaged, where it names code,
    and where torch is not installed.
    """
    where = os.fspath(path)
    if not os.path.isfile(where):
        raise M4MError(f"{where}: there is no such file on this machine")
    _check_zip(where)
    content = _unpickle(where)
    if not isinstance(content, Mapping) or not isinstance(content.get("state_dict"), Mapping):
        raise M4MError(f"{where} is not a Lightning checkpoint: it holds no state_dict")
    state = {str(name): value for name, value in content["state_dict"].items()}
    _check_tensors(state, where)
    card = content.get(CARD)
    try:
        hyper = plain(content.get("hyper_parameters") or {})
    except M4MError as error:
        raise M4MError(f"{where} is refused: {error}") from error
    return WeightsFile(
        where,
        Tensors(
            {name: tuple(value.shape) for name, value in state.items()},
            lambda name: state[name].detach().float().numpy(),
        ),
        hyper if isinstance(hyper, dict) else {},
        read_card(card, where) if isinstance(card, str) else None,
    )


def _check_zip(where: str) -> None:
    """Raise M4MError where a file does not begin as a zip, which torch would tell in its terms."""
    try:
        with open(where, "rb") as file:
            head = file.read(len(_ZIP))
    except OSError as error:
        raise M4MError(f"{where} cannot be read: {error.strerror}") from error
    if head.startswith(_PICKLE):
        raise M4MError(
            f"{where} is a bare pickle, as of PyTorch before 1.6; save it with a newer one"
        )
    if head != _ZIP:
        raise M4MError(
            f"{where} is not a PyTorch checkpoint (.ckpt), .safetensors file or PEFT folder"
        )


def _unpickle(where: str) -> Any:
    torch = import_torch()
    try:
        with torch.serialization.safe_globals(STAND_INS):
            return torch.load(where, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        # Damaged and malicious files fail in many ways; none of them is a defect of ours.
        raise M4MError(f"{where} {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        return f"is refused: it names the code {found[1]}, which weights do not need; nothing ran"
    if isinstance(error, M4MError):
        return f"is refused: {text}"
    if "weights_only" in text.lower() or "unpickl" in type(error).__name__.lower():
        return "is refused: its pickle holds more than tensors and plain values; nothing ran"
    return f"is not a PyTorch checkpoint, or is damaged ({text[:120] or type(error).__name__})"


def _check_tensors(state: Mapping[str, Any], where: str) -> None:
    torch = import_torch()
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
            raise M4MError(f"{where}: {name} in its state_dict is not a tensor")
        if value.dtype not in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            raise M4MError(f"{where}: {name} holds {value.dtype}; weights are float64 or shorter")
        if value.device.type != "cpu":
            raise M4MError(f"{where}: {name} has no numbers (device {value.device})")
        # A tensor may repeat a few stored numbers without end; weights do not.
        stored = value.untyped_storage().nbytes() // value.element_size()
        if math.prod(value.shape) > stored:
            raise M4MError(f"{where}: {name} is larger than what is stored of it")


def write_checkpoint(
    path: epath.PathLike,
    tensors: Iterable[tuple[str, np.ndarray]],
    hyper: Mapping[str, Any] | None,
    card: Card | None = None,
) -> None:
    """Write a Lightning checkpoint, whole or not at all.

    tensors: arrays with their PyTorch names. hyper: a linked system's hyper-parameters, plain.
    """
    torch = import_torch()
    state = {
        name: torch.from_numpy(np.array(value, np.float32, order="C")) for name, value in tensors
    }
    content: dict[str, Any] = {
        "state_dict": OrderedDict(state),
        "pytorch-lightning_version": LIGHTNING_VERSION,
    }
    if hyper:
        content["hyper_parameters"] = dict(hyper)
    if card is not None:
        content[CARD] = card.model_dump_json()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)
