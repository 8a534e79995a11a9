"""What the adapters have in common: they take over a pretrained language model."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from m4m_jax.models.adapter import AdapterParam
from m4m_jax.models.lm import LM
from m4m_jax.models.noise import Noise, span_mask
from m4m_jax.models.system import System


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What every adapter may be told.

    tune: what trains, the adapter alone or the language model with it. reference_mask_rate: about
    the share of reference steps that span masking hides, in training and ever after.
    """

    tune: Literal["adapter", "all"] = "adapter"
    reference_mask_rate: float = 0.0


class Linked(System):
    """A language model that an adapter makes read a reference.

    The global decoder's position table becomes true sines, as linked systems have it whatever the
    language model's file holds. Subclasses set `masked_embedding`, which stands for hidden steps.
    """

    config: AdapterConfig
    masked_embedding: AdapterParam

    def __init__(self, lm: LM, config: AdapterConfig):
        self.config = config
        self.base = lm
        lm.decoder.reset_positions()

    @property
    def lm(self) -> LM:
        """The language model that writes the target."""
        return self.base

    @property
    def trained(self) -> type[nnx.Variable]:
        """The adapter, or every parameter where the language model is tuned with it."""
        return AdapterParam if self.config.tune == "adapter" else nnx.Param

    def lm_noise(self, noise: Noise | None) -> Noise | None:
        """A language model that does not change in training is free of dropout."""
        still = self.config.tune == "adapter" and getattr(self.config, "lora", None) is None
        return None if still else noise

    def prepare(self, reference: Array, width: int, noise: Noise | None = None) -> Array:
        """Hide spans of the references, where that is asked for (`System.prepare`).

        In training the spans depend on the noise, otherwise on a sequence's place in the batch.
        """
        rate = self.config.reference_mask_rate
        if not rate:
            return reference
        key = jax.random.key(0) if noise is None else noise.key
        sequences = jnp.arange(reference[..., 0, 0].size)
        hide = jax.vmap(
            lambda n: span_mask(jax.random.fold_in(key, n), reference.shape[-2:-1], rate)
        )
        hidden = hide(sequences).reshape(reference.shape[:-1])
        return jnp.where(hidden[..., None], self.mask_vector(reference), reference)

    def mask_vector(self, steps: Array) -> Array:
        """What stands for a hidden step, in the precision of `steps`."""
        return self.masked_embedding[...].astype(steps.dtype)


def masked_embedding(width: int, rngs: nnx.Rngs) -> AdapterParam:
    """A new vector [D] for hidden steps."""
    return AdapterParam(nnx.initializers.normal(0.02)(rngs.params(), (width,)), axes=("embed",))
