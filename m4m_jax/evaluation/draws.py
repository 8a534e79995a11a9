"""How a model's samples are drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace

from m4m_jax.music.tasks import as_drawn


@dataclass(frozen=True)
class Draws:
    """As for `m4m_jax.generate`."""

    samples: int = 8
    seed: int = 0
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    prompt_steps: int = 0

    def of_task(self, task: str) -> Draws:
        """The same with nothing left to the task."""
        temperature, top_p = as_drawn(task, self.temperature, self.top_p)
        return replace(self, temperature=temperature, top_p=top_p)
