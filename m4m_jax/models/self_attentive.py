"""The self-attentive adapter: reference and target one after the other, in one sequence.

The paper's "FA-self", section 3.2. The language model reads both as a single sequence, in which the
target's positions start anew; low-rank updates and a vector for each stream are trained.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from m4m_jax.models.adapter import AdapterParam
from m4m_jax.models.linked import AdapterConfig, Linked, masked_embedding
from m4m_jax.models.lm import LM
from m4m_jax.models.lora import LoRAConfig, attach_lora
from m4m_jax.models.noise import Noise
from m4m_jax.models.roformer import Cache, causal


@dataclasses.dataclass(frozen=True)
class SelfConfig(AdapterConfig):
    """The adapter's low-rank updates. With None the language model is frozen."""

    lora: LoRAConfig | None = dataclasses.field(default_factory=lambda: LoRAConfig(64, 128.0))
    system: Literal["self"] = dataclasses.field(default="self", kw_only=True)


class SelfCarry(NamedTuple):
    """What sampling carries on: decoder caches, and the target's steps so far (int32 [])."""

    caches: list[Cache]
    position: Array


class SelfAdapter(Linked):
    """A language model that reads the reference, then goes on with the target.

    The whole begins with the start vector. The last step of the reference, L - 1, opens the target:
    it stands at index L, where positions start at 0 again, and its state predicts target step 0.
    Stream vectors are added to the rows of the position table.
    """

    config: SelfConfig

    def __init__(self, lm: LM, config: SelfConfig | None = None, *, rngs: nnx.Rngs):
        config = config or SelfConfig()
        super().__init__(lm, config)
        if config.lora is not None:
            attach_lora(lm.stacks, config.lora, rngs=rngs)
        head = lm.config.width // lm.config.heads
        self.stream_vectors = AdapterParam(jnp.zeros((2, head)), axes=(None, None))
        self.masked_embedding = masked_embedding(lm.config.width, rngs)

    def rope(self, stream: int, positions: Array | slice) -> Array:
        """Rows of the position table for a stream, 0 the reference and 1 the target: [T, d]."""
        return self.lm.decoder.rope(positions) + self.stream_vectors[stream]

    def target_states(
        self, target: Array, reference: Array | None, noise: Noise | None = None
    ) -> Array:
        """One pass over both streams (`System.target_states`)."""
        assert reference is not None
        heard, written = reference.shape[-2], target.shape[-2]
        parts = (self.lm.shift(reference), reference[..., -1:, :], target[..., :-1, :])
        h = jnp.concatenate(parts, axis=-2)  # [..., L + T, D]
        rope = jnp.concatenate([self.rope(0, slice(heard)), self.rope(1, slice(written))])
        h = self.lm.decoder(h, rope, causal(heard + written), noise=self.lm_noise(noise))
        return h[..., heard:, :]

    def start(self, reference: Array | None, batch: int, steps: int) -> tuple[Array, SelfCarry]:
        """Read the references into the caches and begin (`System.start`)."""
        assert reference is not None
        decoder, (readings, heard, width) = self.lm.decoder, reference.shape
        caches = decoder.caches(readings, heard + steps, reference.dtype)
        _, caches = decoder.advance(self.lm.shift(reference), caches, self.rope(0, slice(heard)))
        caches = [cache.broadcast(batch) for cache in caches]
        last = jnp.broadcast_to(reference[:, -1:], (batch, 1, width))
        states, carry = self.advance(SelfCarry(caches, jnp.zeros((), jnp.int32)), last)
        return states[:, 0], carry

    def advance(self, carry: SelfCarry, steps: Array) -> tuple[Array, SelfCarry]:
        """Read the next steps (`System.advance`)."""
        rope = self.rope(1, carry.position + jnp.arange(steps.shape[1]))
        h, caches = self.lm.decoder.advance(steps, carry.caches, rope)
        return h, SelfCarry(caches, carry.position + steps.shape[1])
