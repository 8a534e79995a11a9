"""`.safetensors` files: the tensors of a checkpoint, and the model's card in the metadata."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import safetensors
from etils import epath
from safetensors.numpy import save_file

from m4m_jax.convert.weights_file import Tensors, WeightsFile
from m4m_jax.errors import M4MError
from m4m_jax.files import atomic_path
from m4m_jax.models.card import Card, read_card

CARD = "m4m_card"
"""The metadata's key of a model's card, JSON."""

FLOATS = ("F64", "F32", "F16", "BF16")


def read_safetensors(path: epath.PathLike) -> WeightsFile:
    """Open a `.safetensors` file; its tensors stay on disk until they are asked for.

    Raises M4MError where there is no such file, or where it is damaged.
    """
    where = os.fspath(path)
    if not os.path.isfile(where):
        raise M4MError(f"{where}: there is no such file on this machine")
    try:
        file = safetensors.safe_open(where, framework="np")
        metadata, names = file.metadata() or {}, list(file.keys())
        slices = {name: file.get_slice(name) for name in names}
        kinds = {name: part.get_dtype() for name, part in slices.items()}
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise M4MError(f"{where} is not a safetensors file, or is damaged ({reason})") from error
    for name, kind in kinds.items():
        if kind not in FLOATS:
            raise M4MError(f"{where}: {name} holds {kind}; weights are float64 or shorter")
    card = read_card(metadata[CARD], where) if CARD in metadata else None
    return WeightsFile(where, Tensors(shapes, file.get_tensor), card=card)


def write_safetensors(
    path: epath.PathLike, tensors: Iterable[tuple[str, np.ndarray]], card: Card | None = None
) -> None:
    """Write tensors with their PyTorch names, whole or not at all."""
    arrays = {name: np.array(value, np.float32, order="C") for name, value in tensors}
    metadata = {"format": "pt"} | ({} if card is None else {CARD: card.model_dump_json()})
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata)
