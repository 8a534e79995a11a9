"""What a file of weights is, told by its contents: the system, its sizes, its task."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from m4m_jax.convert.tables import ATTENTION, LORA_PREFIX
from m4m_jax.convert.weights_file import WeightsFile
from m4m_jax.errors import M4MError
from m4m_jax.models.card import SystemName
from m4m_jax.models.coco_mulla import CocoMullaConfig
from m4m_jax.models.cross import CrossConfig
from m4m_jax.models.linked import AdapterConfig
from m4m_jax.models.lm import LMConfig
from m4m_jax.models.lora import LoRAConfig
from m4m_jax.models.self_attentive import SelfConfig
from m4m_jax.music.compression import Compression
from m4m_jax.music.simunote import PLAIN, VELOCITY
from m4m_jax.music.tasks import TASKS, UNKNOWN, Task, get_task

Shapes = Mapping[str, tuple[int, ...]]

WINDOW = 384
"""Steps of a training window of the public implementation."""

MARKS: dict[SystemName, str] = {
    "cross": r"yinyang_attn\..*",
    "self": r"sentence_embedding",
    "coco-mulla": r"h0p",
    "seq2seq": r"wrapped_model\.encoder\..*",
    "lm": r"global_sos",
}
"""By which tensors each system is known; the first that is there tells."""

TASK_WORDS = [
    (r"chord.*mel", "chord-to-melody"),
    (r"mel.*chord", "melody-to-chord"),
    (r"(other|non_?drum|no_?drum).*drum", "others-to-drums"),
    (r"drum", "drums-to-others"),
    (r"anal|beat|rwc", "analysis"),
    (r"random", "random-split"),
    (r"dens", "density-split"),
]
"""Which words in the name of a training task stand for which task of ours; the first that fits."""


def system_of(file: WeightsFile) -> SystemName:
    """The system whose weights a file holds; M4MError where there is no telling."""
    names = file.tensors.shapes
    for system, mark in MARKS.items():
        if any(re.fullmatch(mark, name) for name in names):
            return system
    some = ", ".join(sorted(names)[:3]) or "nothing"
    raise M4MError(f"{file.path} holds none of the known systems; its tensors are {some}, ...")


def lm_config(shapes: Shapes, where: str, prefix: str = "") -> LMConfig:
    """The sizes of a foundation LM whose tensors' names begin with `prefix`.

    What cannot be told for want of a tensor gets some value: pairing tensors with parameters then
    names all that is missing.
    """

    def size(name: str, axis: int, default: int) -> int:
        shape = shapes.get(prefix + name, ())
        return shape[axis] if len(shape) > axis else default

    def layers(stack: str) -> int:
        return 1 + max(_numbers(shapes, f"{prefix}{stack}.layer"), default=0)

    width = size("global_sos", 0, 64)
    table = "embed_positions.weight"
    heads, local_heads = (
        _heads(width, size(f"{stack}.{table}", 1, width), f"{where}: {prefix}{stack}.{table}")
        for stack in ("model", "local_encoder")
    )
    up = "layer.0.intermediate.dense.weight"
    return LMConfig(
        width,
        layers("model"),
        heads,
        size(f"model.{up}", 0, 64),
        layers("local_encoder"),
        local_heads,
        size(f"local_encoder.{up}", 0, 64),
        size(f"model.{table}", 0, 1536),
        _vocabulary(size("local_embedding.weight", 0, PLAIN.size), where),
    )


def _heads(width: int, head: int, where: str) -> int:
    if head < 2 or head % 2 or width % head:
        raise M4MError(f"{where} is {head} wide, which does not divide the model's {width}")
    return width // head


def _vocabulary(size: int, where: str) -> str:
    for vocabulary in (PLAIN, VELOCITY):
        if vocabulary.size == size:
            return vocabulary.name
    raise M4MError(
        f"{where} has a vocabulary of {size} tokens; {PLAIN.size} (plain) and {VELOCITY.size} "
        "(with velocities) are known"
    )


def _numbers(shapes: Shapes, prefix: str) -> set[int]:
    """The numbers that stand behind a prefix in tensors' names."""
    found = (re.match(re.escape(prefix) + r"\.(\d+)\.", name) for name in shapes)
    return {int(match[1]) for match in found if match}


def lora_config(file: WeightsFile) -> LoRAConfig | None:
    """Rank and targets of a file's low-rank updates; alpha is twice the rank unless it is told."""
    ranks, maps = set(), set()
    for name, shape in file.tensors.shapes.items():
        pattern = re.escape(LORA_PREFIX) + r"\..*\.attention\.(.*)\.lora_A\.default\.weight"
        if (match := re.fullmatch(pattern, name)) and match[1] in ATTENTION:
            ranks.add(shape[0])
            maps.add(ATTENTION[match[1]])
    if not ranks:
        return None
    rank = max(ranks)
    alpha = float(file.hyper.get("lora_alpha", 2 * rank))
    return LoRAConfig(rank, alpha, tuple(m for m in ATTENTION.values() if m in maps))


def cross_config(file: WeightsFile, layers: int) -> CrossConfig:
    """The sizes of a cross-attentive adapter on a language model of so many layers."""
    shapes = file.tensors.shapes
    links = 1 + max(_numbers(shapes, "yinyang_attn"), default=0)
    told = file.hyper.get("n_skip")
    every = told if isinstance(told, int) and told > 0 else math.ceil(layers / links)
    width = shapes.get("yinyang_attn.0.q_linear.weight", (CrossConfig.width,))[0]
    if math.ceil(layers / every) != links:
        raise M4MError(
            f"{file.path} has {links} links with n_skip {every}, which does not fit a base of "
            f"{layers} layers; name the right base"
        )
    return CrossConfig(every, width, lora=lora_config(file))


def adapter_config(file: WeightsFile, layers: int) -> AdapterConfig:
    """The sizes of a file's adapter on a language model of so many layers."""
    system = system_of(file)
    if system == "cross":
        return cross_config(file, layers)
    if system == "self":
        return SelfConfig(lora=lora_config(file))
    prefix = file.tensors.shapes["h0p"]
    return CocoMullaConfig(steps=prefix[1] if len(prefix) == 3 else CocoMullaConfig.steps)


def task_of(file: WeightsFile, task: str | None, max_notes: int | None) -> dict[str, Any]:
    """The fields of a card that say what a file's model was made for, where the file has no card.

    task, max_notes: what the user says, which takes precedence. A linked system's task is told by
    its hyper-parameter `train_task`; where it is not, it is "unknown", and the fields are those of
    a model that reads and writes whole songs.
    """
    if task is None and system_of(file) == "lm":
        task = "continuation"
    known = get_task(task) if task is not None else told_task(file.hyper.get("train_task"))
    if known is None:
        known = Task(UNKNOWN, "", "all", "all")
    return {
        **known.view,
        "max_notes": max_notes or known.max_notes,
        "window": WINDOW,
        "compress": compression(file),
    }


def compression(file: WeightsFile) -> Compression:
    """The ratios of reference and target, as hyper-parameters tell them; seq2seq heeds none."""
    if system_of(file) == "seq2seq":
        return Compression()
    told = (file.hyper.get(f"compress_ratio_{side}", 1) for side in "lr")
    return Compression(*(ratio if isinstance(ratio, int) and ratio > 0 else 1 for ratio in told))


def told_task(name: Any) -> Task | None:
    """The task that the public implementation calls so, as far as it can be told."""
    if not isinstance(name, str):
        return None
    if name in TASKS:
        return TASKS[name]
    words = re.sub(r"[^a-z]+", "_", name.lower())
    for pattern, task in TASK_WORDS:
        if re.search(pattern, words):
            return get_task(task)
    return None
