"""Checkpoint files of the PyTorch build, laid out as those of the public implementation.

A Lightning `.ckpt` is a torch zip of a dict: `state_dict`, `pytorch-lightning_version` and, for a
linked system, `hyper_parameters`, which name the foundation's file in `model_fp`.
"""

from __future__ import annotations

from typing import Any

import torch
from etils import epath

from m4m_jax.bench.torch_lm import POSITIONS, FoundationLM, System
from m4m_jax.bench.torch_systems import Adapter, CrossAttentive
from m4m_jax.files import atomic_path

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
