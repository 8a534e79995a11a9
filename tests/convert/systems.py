"""PyTorch systems full of random numbers, and their checkpoints, as users have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from m4m_jax.bench import torch_systems
from m4m_jax.bench.torch_checkpoints import save_checkpoint
from m4m_jax.bench.torch_lm import FoundationLM, Size, System
from m4m_jax.music.simunote import PLAIN
from tests.golden import values

SMALL = Size(96, 4, 4, 160, local_layers=1, local_heads=2, local_ffn=112)
SMALL_SEQ2SEQ = Size(64, 2, 4, 96, 1, 4, 96)

LINKED = {
    "cross": torch_systems.CrossAttentive,
    "cross, no LoRA, every layer": lambda lm: torch_systems.CrossAttentive(lm, rank=0, skip=1),
    "self": torch_systems.SelfAttentive,
    "coco-mulla": torch_systems.CocoMulla,
    "seq2seq": lambda lm: torch_systems.Seq2Seq(SMALL_SEQ2SEQ),
}
"""The linked systems by name, given the language model that they are on, if any."""


def exercise(system: System) -> System:
    """Give every parameter and position table random numbers, so that nothing hides behind 0."""
    with torch.no_grad():
        for name, tensor in system.state_dict(keep_vars=True).items():
            # Maps that shrink a little: float32 itself must not be what two builds differ by.
            shrink = 0.8 if tensor.ndim == 2 and "embed" not in name else 1.0
            tensor.copy_(torch.from_numpy(shrink * values.value(name, tuple(tensor.shape))))
    return system.eval()


def foundation(size: Size = SMALL, **options) -> FoundationLM:
    return exercise(FoundationLM(size, **options))


def linked(name: str, lm: FoundationLM) -> System:
    return exercise(LINKED[name](lm))


def written(path: Path, system: System, task: str = "chord_mel") -> Path:
    """The system's checkpoint, with hyper-parameters where it is linked."""
    given = {} if isinstance(system, FoundationLM) else {"model_fp": "/", "train_task": task}
    save_checkpoint(path, system, **given)
    return path


def rows(seed: int, batch: int, steps: int, max_notes: int, vocabulary=PLAIN) -> np.ndarray:
    """Token rows int32 [B, T, 2N]: some empty, some full, some again."""
    rng = np.random.default_rng(seed)
    counts = rng.choice([0, 1, 2, max_notes], (batch, steps))
    counts[:, :3] = 0, max_notes, 1
    ends = (len(vocabulary.program_range), vocabulary.pitch_range[-1] + 1)
    first = rng.integers(0, ends[0], (batch, steps, max_notes))
    second = rng.integers(vocabulary.pitch_range[0], ends[1], (batch, steps, max_notes))
    tokens = np.stack([first, second], axis=-1).reshape(batch, steps, -1)
    place, end = np.arange(2 * max_notes), 2 * counts[..., None]
    tokens = np.where(place < end, tokens, np.where(place == end, vocabulary.eos, vocabulary.pad))
    tokens[:, -1] = tokens[:, 1]
    return tokens.astype(np.int32)
