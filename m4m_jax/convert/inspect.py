"""What a file of weights holds, in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from etils import epath

from m4m_jax.convert import foreign, recognize
from m4m_jax.convert.tables import TABLES, Rule
from m4m_jax.convert.weights import our_name
from m4m_jax.convert.weights_file import WeightsFile
from m4m_jax.models.card import ADAPTERS, Card
from m4m_jax.models.lm import PRESETS, LMConfig
from m4m_jax.models.lora import LoRAConfig
from m4m_jax.music.tasks import UNKNOWN


def headline(card: Card) -> str:
    """One line on a model."""
    lora: LoRAConfig | None = getattr(card.adapter, "lora", None)
    updates = f", LoRA of rank {lora.rank} and alpha {lora.alpha:g}" if lora is not None else ""
    return f"{card.system} on {size_name(card.lm)}{updates}; {card.task}, N = {card.max_notes}"


def size_name(lm: LMConfig) -> str:
    """A language model's size, by name where it has one."""
    sizes = f"width {lm.width}, {lm.layers} layers, {lm.heads} heads, {lm.vocabulary} vocabulary"
    for name, preset in PRESETS.items():
        if (preset.width, preset.layers, preset.heads) == (lm.width, lm.layers, lm.heads):
            return f"size {name} ({sizes})"
    return sizes


def describe(path: epath.PathLike) -> list[str]:
    """Lines on a file: system, sizes, task, parameters by part, what maps where.

    A base is not needed, and what does not belong is listed.
    """
    file = foreign.open_weights(path)
    system = recognize.system_of(file)
    about = recognize.task_of(file, None, None)
    lines = [f"system: {system}"]
    if system in ADAPTERS:
        lines += _adapter(file)
    else:
        lines.append(f"size: {size_name(foreign.card_of(file).lm)}")
    max_notes = file.card.max_notes if file.card is not None else about["max_notes"]
    task = file.card.task if file.card is not None else about["task"]
    lines.append(f"task: {task}, N = {max_notes}" + (", a guess" if task == UNKNOWN else ""))
    lines += [f"{key}: {value}" for key, value in sorted(file.hyper.items())]
    numbers = sum(map(math.prod, file.tensors.shapes.values()))
    lines.append(
        f"parameters: {numbers:,} in {len(file.tensors)} tensors, position tables included"
    )
    lines += _by_part(file.tensors.shapes)
    return lines + _mapping(file, TABLES[system])


def _adapter(file: WeightsFile) -> list[str]:
    lora = recognize.lora_config(file)
    width = file.tensors.shapes.get("masked_embedding", (0,))[-1]
    lines = [f"size: width {width}; to be put on a language model, named with --base"]
    if lora is not None:
        targets = ", ".join(lora.targets)
        lines.append(f"LoRA: rank {lora.rank}, alpha {lora.alpha:g}, on {targets}")
    return lines


def _by_part(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Numbers in each part, by the first words of tensors' names."""
    parts: Counter[str] = Counter()
    for name, shape in shapes.items():
        short = name.removeprefix("wrapped_model.").removeprefix("base_model.model.")
        parts[short.partition(".")[0] + (" (LoRA)" if ".lora_" in name else "")] += math.prod(shape)
    return [f"  {part}: {number:,}" for part, number in parts.items()]


def _mapping(file: WeightsFile, table: Sequence[Rule]) -> list[str]:
    lines = ["tensors:"]
    for name, shape in file.tensors.shapes.items():
        place = our_name(name, table)
        goal = "no place" if place is None else place.flax
        lines.append(f"  {name} {list(shape)} -> {goal}")
    return lines
