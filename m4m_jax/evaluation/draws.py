"""How a model's samples are drawn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Draws:
    """As for `m4m_jax.generate`."""

    samples: int = 8
    seed: int = 0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    prompt_steps: int = 0
