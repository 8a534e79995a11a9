"""Checkpoint files of the PyTorch build, laid out as those of the public implementation.

A Lightning `.ckpt` is a torch zip of a dict: `state_dict`, `pytorch-lightning_version` and, for a
linked system, `hyper_parameters`, which name the foundation's file in `model_fp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from etils import epath

from m4m_jax.bench.torch_lm import POSITIONS, FoundationLM, Size, System
from m4m_jax.bench.torch_systems import (
    Adapter,
    CocoMulla,
    CrossAttentive,
    SelfAttentive,
    Seq2Seq,
)
from m4m_jax.files import atomic_path
from m4m_jax.models.card import Card
from m4m_jax.models.cross import CrossConfig
from m4m_jax.models.lm import LMConfig
from m4m_jax.models.self_attentive import SelfConfig
from m4m_jax.music.simunote import by_name

LIGHTNING_VERSION = "2.5.2"


def hyper_parameters(system: System, **given: Any) -> dict[str, Any]:
    """A linked system's hyper-parameters under the public names; `given` ones take precedence."""
    return {
        "model_fp": "",
        "train_task": "",
        "mask_prob": 0.0,
        "mask_length": 10,
        "max_position_embeddings": POSITIONS,
        "compress_ratio_l": 1,
        "compress_ratio_r": 1,
        "n_skip": system.skip if isinstance(system, CrossAttentive) else 2,
        "use_lora": isinstance(system, Adapter) and not system.frozen,
        "change_pe": isinstance(system, Adapter),
        **given,
    }


def save_checkpoint(path: epath.PathLike, system: System, **given: Any) -> None:
    """Write the system's weights, as they are saved in training, to `path`.

    Args:
        path: The `.ckpt` file to make.
        system: A foundation LM or a linked system; adapters save only what trains.
        **given: Hyper-parameters, such as `model_fp` (the foundation's file) and `train_task`. A
            foundation's file has none unless they are given.
    """
    alone = isinstance(system, FoundationLM)
    hyper = given if alone else hyper_parameters(system, **given)
    content = {
        "state_dict": system.state_dict(),
        "pytorch-lightning_version": LIGHTNING_VERSION,
        **({"hyper_parameters": hyper} if hyper else {}),
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def build(card: Card, tensors: Mapping[str, np.ndarray], lm: FoundationLM | None = None) -> System:
    """The system that a card describes, with a checkpoint's tensors, in evaluation mode.

    Args:
        card: Of a model that the public implementation knows.
        tensors: The checkpoint's state dict.
        lm: The foundation LM of an adapter, which is copied.
    """
    system = _new_system(card, lm)
    state = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    system.load_state_dict(state)
    return system.eval()


def _new_system(card: Card, lm: FoundationLM | None) -> System:
    if card.system == "lm":
        return FoundationLM(size_of(card.lm), by_name(card.lm.vocabulary).size)
    if card.system == "seq2seq":
        return Seq2Seq(size_of(card.lm))
    assert lm is not None
    adapter = card.adapter
    if isinstance(adapter, CrossConfig):
        rank = 0 if adapter.lora is None else adapter.lora.rank
        return CrossAttentive(lm, rank=rank, skip=adapter.every)
    if isinstance(adapter, SelfConfig):
        return SelfAttentive(lm, rank=0 if adapter.lora is None else adapter.lora.rank)
    return CocoMulla(lm)


def size_of(config: LMConfig) -> Size:
    """The sizes of a language model as the PyTorch build takes them."""
    return Size(
        config.width,
        config.layers,
        config.heads,
        config.ffn,
        config.local_layers,
        config.local_heads,
        config.local_ffn,
        config.positions,
    )
