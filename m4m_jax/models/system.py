"""What every model offers, alone or linked: a loss on packed batches, and sampling step by step.

A system differs from the next only in how the target's global states come from the step
embeddings of target and reference; how rows are embedded, decoded and scored is the same.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from m4m_jax.data.packing import PackedBatch
from m4m_jax.models.lookup import gather, look_up
from m4m_jax.models.nll import nll_sum, token_nll
from m4m_jax.models.noise import Noise, at, span_mask
from m4m_jax.models.placement import constrain

if TYPE_CHECKING:
    from m4m_jax.models.lm import LM


class System(nnx.Module, abc.ABC):
    """A model that writes a target, with or without a reference. S shards, B batch, T steps."""

    @property
    @abc.abstractmethod
    def lm(self) -> LM:
        """The language model that writes the target."""

    @property
    def reference_lm(self) -> LM:
        """The language model that embeds references."""
        return self.lm

    @property
    def trained(self) -> type[nnx.Variable]:
        """The variable type of what is trained: every parameter, or those of an adapter."""
        return nnx.Param

    @abc.abstractmethod
    def target_states(
        self, target: Array, reference: Array | None, noise: Noise | None = None
    ) -> Array:
        """Step embeddings [..., T, D] of both -> the target's global states [..., T, D].

        References [..., L, D] are those that `prepare` gave, and may have another number of steps.
        """

    @abc.abstractmethod
    def start(self, reference: Array | None, batch: int, steps: int) -> tuple[Array, Any]:
        """Read references [B, L, D] and begin `batch` targets of up to `steps` steps.

        One reference [1, L, D] serves all targets. Returns (the first step's state [B, D], what
        `advance` carries on).
        """

    @abc.abstractmethod
    def advance(self, carry: Any, steps: Array) -> tuple[Array, Any]:
        """Read the embeddings [B, P, D] of the next steps; returns (states after each, carry).

        All int32 scalars in what is carried count the steps that were read.
        """

    def prepare(self, reference: Array, width: int, noise: Noise | None = None) -> Array:
        """Step embeddings [..., L, D] of references -> what is read of them.

        width: tokens of the rows that they were embedded from, 2N.
        """
        return reference

    def lm_noise(self, noise: Noise | None) -> Noise | None:
        """The noise that the language model itself runs with: none where it is frozen."""
        return noise

    def hide(self, target: Array, noise: Noise | None) -> Array:
        """Span masking of the target's step embeddings in training, where a system has a mask."""
        mask = getattr(self, "masked_embedding", None)
        if noise is None or mask is None:
            return target
        hidden = span_mask(noise.key, target.shape[:-1], noise.mask_rate)
        return jnp.where(hidden[..., None], mask[...].astype(target.dtype), target)

    def references(self, batch: PackedBatch, embedded: Array, noise: Noise | None) -> Array | None:
        """The references' step embeddings [S, B, L, D]; `embedded` [S, R, D] are the rows'."""
        if batch.reference is None:
            return None
        if self.reference_lm is not self.lm:
            embedded = self.reference_lm.embed(batch, self.lm_noise(at(noise, 5)))
        steps = look_up(embedded, batch.reference)
        return self.prepare(steps, batch.rows.shape[-1], at(noise, 4))

    def packed_states(self, batch: PackedBatch, noise: Noise | None = None) -> Array:
        """The local decoder's outputs [S, K, P, D], from which the packed tokens' logits come."""
        embedded = self.lm.embed(batch, self.lm_noise(at(noise, 0)))  # [S, R, D]
        embedded = constrain(embedded, "shard", None, "embed")
        target = self.hide(look_up(embedded, batch.target), at(noise, 1))  # [S, B, T, D]
        reference = self.references(batch, embedded, noise)
        states = self.target_states(target, reference, at(noise, 2))
        flat = states.reshape(states.shape[0], -1, states.shape[-1])  # [S, B T, D]
        flat = constrain(flat, "shard", None, "embed")
        return self.lm.decode_tokens(
            gather(flat, batch.step),
            batch.tokens,
            batch.position,
            batch.step,
            self.lm_noise(at(noise, 3)),
        )

    def packed_nll(self, batch: PackedBatch) -> Array:
        """Natural-log NLL float32 [S, K, P] of each packed target token, 0 where unused."""
        h = jnp.moveaxis(self.packed_states(batch), 1, 0)  # [K, S, P, D]
        tokens = jnp.moveaxis(batch.tokens, 1, 0)
        nll = jax.lax.map(lambda x: token_nll(self.lm.head(x[0]), x[1]), (h, tokens))
        return jnp.where(batch.step >= 0, jnp.moveaxis(nll, 0, 1), 0.0)

    def loss(self, batch: PackedBatch, noise: Noise | None = None) -> tuple[Array, Array]:
        """The sum of the NLL over real target tokens float32 [], and their number int32 []."""
        h, head, real = self.packed_states(batch, noise), self.lm.head, batch.step >= 0
        weight = real.astype(jnp.promote_types(h.dtype, jnp.float32))
        return nll_sum(h, head.kernel[...], head.bias[...], batch.tokens, weight), real.sum()
