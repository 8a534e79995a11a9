"""AdamW with numbers that are arguments: one program serves every learning rate."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Hyper(NamedTuple):
    """The numbers of a training run that its compiled step takes as an argument.

    learning_rate: the constant or peak rate. weight_decay: decoupled, times the rate. clip: the
    largest global norm of the gradient, inf for none. dropout, lora_dropout, mask_rate: see Noise.
    """

    learning_rate: Array | float = 1e-4
    weight_decay: Array | float = 0.01
    clip: Array | float = float("inf")
    dropout: Array | float = 0.1
    lora_dropout: Array | float = 0.1
    mask_rate: Array | float = 0.0


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How learning rate and beta1 change over a run: "constant" or "one_cycle" (Smith, 2018).

    One cycle: the rate climbs from 1/25 to 1 of its peak over the first `warmup` of `steps`, then
    falls to 1/250,000, along cosines, while beta1 goes from .95 to .85 and back.
    """

    kind: str = "constant"
    steps: int = 1
    warmup: float = 0.005

    def __call__(self, step: Array) -> tuple[Array | float, Array | float]:
        """The factor on the learning rate, and beta1, at a step (int32 [])."""
        if self.kind == "constant":
            return 1.0, BETA1
        peak, last = self.warmup * self.steps - 1, self.steps - 1
        rising = step <= peak
        part = jnp.where(
            rising, step / max(peak, 1e-9), jnp.clip((step - peak) / (last - peak), 0, 1)
        )
        swing = (1 + jnp.cos(jnp.pi * part)) / 2  # 1 -> 0 along a cosine

        def between(start: float, top: float, end: float) -> Array:
            up, down = top + (start - top) * swing, end + (top - end) * swing
            return jnp.where(rising, up, down)

        return between(1 / 25, 1.0, 1 / 25e4), between(0.95, 0.85, 0.95)


def adamw(hyper: Hyper, schedule: Schedule, step: Array) -> optax.GradientTransformation:
    """Clipping and AdamW as they stand at a step; the form of their state depends on no number."""
    factor, beta1 = schedule(step)
    return optax.chain(
        optax.clip_by_global_norm(hyper.clip),
        optax.adamw(
            hyper.learning_rate * factor,
            b1=beta1,
            b2=BETA2,
            eps=EPSILON,
            weight_decay=hyper.weight_decay,
        ),
    )
