"""Adapters as the peft library keeps them: low-rank updates in a folder that it loads.

    adapter_model.safetensors   the low-rank updates
    adapter_config.json         their rank, alpha and targets
    adapter_links.safetensors   what else the adapter is made of, and its card

peft loads the first two onto the PyTorch language model; the third is read by this package, and by
whoever puts the links in place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from etils import epath

from m4m_jax.convert.safetensors_file import read_safetensors, write_safetensors
from m4m_jax.convert.tables import ATTENTION, LORA_PREFIX
from m4m_jax.convert.weights_file import Tensors, WeightsFile
from m4m_jax.errors import M4MError
from m4m_jax.files import atomic_path
from m4m_jax.models.card import Card
from m4m_jax.models.lora import LoRAConfig

CONFIG, UPDATES, LINKS = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_links.safetensors",
)

PLAIN_LORA = {
    "peft_type": "LORA",
    "bias": "none",
    "fan_in_fan_out": False,
    "use_dora": False,
    "use_rslora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
    "layer_replication": None,
}
"""What a configuration says of low-rank updates such as ours."""


def is_peft(path: epath.PathLike) -> bool:
    """Whether a folder is laid out so."""
    return (epath.Path(path) / CONFIG).is_file()


def read_peft(path: epath.PathLike) -> WeightsFile:
    """Open a folder; M4MError where it is incomplete or holds updates of another kind."""
    folder = epath.Path(path)
    config = _read_config(folder / CONFIG)
    updates = read_safetensors(folder / UPDATES).tensors
    rest = read_safetensors(folder / LINKS)
    lora = None if rest.card is None else getattr(rest.card.adapter, "lora", None)
    if lora is not None and lora.alpha != config["lora_alpha"]:
        raise M4MError(
            f"{folder} has alpha {config['lora_alpha']} in {CONFIG} and {lora.alpha} in {LINKS}"
        )
    names = {_full_name(name): name for name in updates}
    shapes = {full: updates.shapes[name] for full, name in names.items()}

    def read(name: str) -> np.ndarray:
        return updates[names[name]] if name in names else rest.tensors[name]

    return WeightsFile(
        os.fspath(path),
        Tensors(shapes | rest.tensors.shapes, read),
        {"lora_alpha": config["lora_alpha"]},
        rest.card,
    )


def _read_config(file: epath.Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise M4MError(f"{file} is not JSON ({error})") from error
    if not isinstance(config, dict) or not isinstance(config.get("lora_alpha"), int | float):
        raise M4MError(f"{file} does not describe low-rank updates: it has no lora_alpha")
    for key, plain in PLAIN_LORA.items():
        if (config.get(key, plain) or plain) != plain:
            raise M4MError(f"{file} has {key} {config[key]!r}; only {plain!r} is known here")
    return config


def _full_name(name: str) -> str:
    """A tensor's name in a checkpoint, given the one that peft writes without its adapter's."""
    stem, dot, last = name.removeprefix("base_model.model.").rpartition(".")
    return f"{LORA_PREFIX}.{stem}.default{dot}{last}"


def _short_name(name: str) -> str:
    return "base_model.model" + name.removeprefix(LORA_PREFIX).replace(".default.", ".")


def write_peft(path: epath.PathLike, tensors: Iterable[tuple[str, np.ndarray]], card: Card) -> None:
    """Write an adapter's tensors, with their PyTorch names, as a new folder.

    Raises M4MError where the adapter has no low-rank updates.
    """
    folder = epath.Path(path)
    lora: LoRAConfig | None = getattr(card.adapter, "lora", None)
    if lora is None or card.reference_lm is not None or not card.bases:
        raise M4MError(
            f"peft loads low-rank updates of one frozen language model, which this {card.system} "
            "model does not consist of; write it with to-safetensors"
        )
    arrays = dict(tensors)
    updates = {name: value for name, value in arrays.items() if name.startswith(LORA_PREFIX)}
    rest = {name: value for name, value in arrays.items() if name not in updates}
    with atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        short = {_short_name(name): value for name, value in updates.items()}
        write_safetensors(temporary / UPDATES, short.items())
        write_safetensors(temporary / LINKS, rest.items(), card)
        (temporary / CONFIG).write_text(json.dumps(_config(lora), indent=2) + "\n")


def _config(lora: LoRAConfig) -> dict[str, Any]:
    theirs = {ours: name.removeprefix("self.") for name, ours in ATTENTION.items()}
    targets = [theirs[name] for name in lora.targets]
    return PLAIN_LORA | {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.1,
        # The local attention's output alone: the feed-forward part has an output.dense too.
        "target_modules": [f"attention.{t}" if "." in t else t for t in targets],
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
    }
