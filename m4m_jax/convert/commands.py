"""What `m4m convert` does: weights between this package's directories and PyTorch's files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from m4m_jax import pretrained
from m4m_jax.convert import foreign
from m4m_jax.convert.checkpoint import write_checkpoint
from m4m_jax.convert.foreign import Given
from m4m_jax.convert.peft_folder import write_peft
from m4m_jax.convert.safetensors_file import write_safetensors
from m4m_jax.convert.tables import TABLES
from m4m_jax.convert.weights import parameters_of, tensors_of
from m4m_jax.errors import M4MError
from m4m_jax.files import check_place
from m4m_jax.models import parameters
from m4m_jax.models.card import Base, Card, Part
from m4m_jax.models.cross import CrossConfig
from m4m_jax.models.lora import LoRAConfig


def to_flax(
    path: epath.PathLike,
    out: epath.PathLike,
    bases: Sequence[epath.PathLike] = (),
    *,
    task: str | None = None,
    max_notes: int | None = None,
) -> Card:
    """Write a file of PyTorch weights as a model directory.

    bases: an adapter's language models, of the target first: model directories or files.
    task, max_notes: what the model was trained for, where the file does not tell.
    """
    pretrained.check_new(out)
    file = foreign.open_weights(path)
    given = [name_base(base, out) for base in bases]
    card = foreign.card_of(file, given, task, max_notes)
    arrays = foreign.read_arrays(file, card)
    del file  # and with it the pages of the file that are in memory
    pretrained.save_arrays(arrays, card, out)
    return card


def name_base(path: epath.PathLike, out: epath.PathLike) -> Given:
    """The sizes of a language model and how an adapter in `out` names it.

    A file's fingerprint is taken one tensor at a time.
    """
    if not foreign.is_foreign(path):
        model = pretrained.load(path)
        _check_base(model.card, path)
        return Given(model.card.lm, pretrained.base_of(model.system, path, out))
    file = foreign.open_weights(path)
    card = foreign.card_of(file)
    _check_base(card, path)
    places = sorted(foreign.places_of(file, card), key=lambda place: place.flax)
    digest = parameters.fingerprint_of(parameters_of(file.tensors, places))
    return Given(card.lm, Base(fingerprint=digest, path=pretrained.path_from(path, out)))


def _check_base(card: Card, path: epath.PathLike) -> None:
    if card.system != "lm":
        raise M4MError(f"{path} is a {card.system} model; the base of an adapter is a lm")


def torch_tensors(path: epath.PathLike) -> tuple[Card, Mapping[str, np.ndarray]]:
    """The card and the tensors, by PyTorch name, of a model directory or of a file of weights."""
    if foreign.is_foreign(path):
        file = foreign.open_weights(path)
        return foreign.card_of(file), file.tensors
    card, tensors = _tensors(path)
    return card, dict(tensors)


def to_torch(path: epath.PathLike, out: epath.PathLike) -> None:
    """Write a model directory as a Lightning checkpoint of the public implementation's layout.

    An adapter's base is not needed. Raises M4MError where that implementation knows no such model.
    """
    check_place(out)
    card, tensors = _tensors(path)
    check_public(card, path)
    hyper = None if card.system == "lm" else hyper_parameters(card)
    write_checkpoint(out, tensors, hyper, card)


def to_safetensors(path: epath.PathLike, out: epath.PathLike) -> None:
    """Write a model directory as one `.safetensors` file."""
    check_place(out)
    card, tensors = _tensors(path)
    write_safetensors(out, tensors, card)


def to_peft(path: epath.PathLike, out: epath.PathLike) -> None:
    """Write an adapter's directory as a folder whose low-rank updates the peft library loads."""
    pretrained.check_new(out)
    card, tensors = _tensors(path)
    write_peft(out, tensors, card)


def _tensors(path: epath.PathLike) -> tuple[Card, Iterator[tuple[str, np.ndarray]]]:
    """A model directory's card, and its arrays by PyTorch name in PyTorch's layout, one by one."""
    card, arrays = pretrained.read(path)
    return card, tensors_of(arrays, TABLES[card.system], os.fspath(path))


def hyper_parameters(card: Card) -> dict[str, Any]:
    """A linked system's hyper-parameters under the public implementation's names."""
    adapter = card.adapter
    return {
        "model_fp": card.base.path if card.base is not None else "",
        "train_task": card.task,
        "mask_prob": 0.0 if adapter is None else adapter.reference_mask_rate,
        "mask_length": 10,
        "max_position_embeddings": card.lm.positions,
        "compress_ratio_l": card.compress.reference,
        "compress_ratio_r": card.compress.target,
        "n_skip": adapter.every if isinstance(adapter, CrossConfig) else 2,
        "use_lora": getattr(adapter, "lora", None) is not None,
        "change_pe": adapter is not None,
    }


def check_public(card: Card, path: epath.PathLike) -> None:
    """M4MError where the public implementation would run a model otherwise, or not at all."""
    lora: LoRAConfig | None = getattr(card.adapter, "lora", None)
    views: list[Card | Part] = [card, *card.mixture]
    odd = {
        "it reads a harmonic reduction": any(view.harmony_by_quarter for view in views),
        "it reads and writes in a common key": any(view.common_key for view in views),
        "its encoder masks PADs": card.lm.encoder != "reference",
        "it links two language models": card.reference_lm is not None,
        "its language model was tuned": card.adapter is not None and card.adapter.tune == "all",
        "its alpha is not twice the rank": lora is not None and lora.alpha != 2 * lora.rank,
        "its low-rank updates are not on query and value": lora is not None
        and set(lora.targets) != {"query", "value"},
        "its links are not of width 256 and 4 heads": isinstance(card.adapter, CrossConfig)
        and (card.adapter.width, card.adapter.heads) != (256, 4),
    }
    if reasons := [reason for reason, holds in odd.items() if holds]:
        raise M4MError(
            f"{path} is nothing that the PyTorch implementation knows: {', '.join(reasons)}; "
            "write it with to-safetensors"
        )
