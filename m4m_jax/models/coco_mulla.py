"""Coco-Mulla, a baseline: a learned prefix carries the reference into a frozen language model.

After Lin et al., "Content-based Controls for Music Large Language Modeling" (2023), as the paper of
this library carries it over to notes.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from m4m_jax.errors import M4MError
from m4m_jax.models.adapter import AdapterLinear, AdapterParam
from m4m_jax.models.linked import AdapterConfig, Linked, masked_embedding
from m4m_jax.models.lm import LM
from m4m_jax.models.noise import Noise, at
from m4m_jax.models.roformer import NORMAL, Cache, causal, following


@dataclasses.dataclass(frozen=True)
class CocoMullaConfig(AdapterConfig):
    """steps: the length of the prefix, and the most that references and targets may have."""

    steps: int = 384
    system: Literal["coco-mulla"] = dataclasses.field(default="coco-mulla", kw_only=True)


class Prefix(NamedTuple):
    """What a layer of the target reads: the prefix stream [..., P, D], its keys and values."""

    stream: Array
    memory: tuple[Array, Array]


class CocoCarry(NamedTuple):
    """What sampling carries on: decoder caches and the prefix, each by layer."""

    caches: list[Cache]
    prefixes: list[Prefix]


class CocoMulla(Linked):
    """A frozen language model and a prefix stream of P steps beside it.

    prefix [P, D] runs through the layers without a mask; at each, a map of the reference's step
    embeddings and of learned positions is added to what queries, keys and values are made from. The
    target attends to it with the layer's own projections, through a gate by layer that starts at 0.
    """

    config: CocoMullaConfig

    def __init__(self, lm: LM, config: CocoMullaConfig | None = None, *, rngs: nnx.Rngs):
        config = config or CocoMullaConfig()
        super().__init__(lm, config)
        width, layers, steps = lm.config.width, lm.config.layers, config.steps

        def vectors(*shape: int) -> AdapterParam:
            value = NORMAL(rngs.params(), (*shape, width))
            return AdapterParam(value, axes=(*(None for _ in shape), "embed"))

        self.prefix = vectors(steps)
        self.prefix_positions = vectors(layers, steps)
        self.gates = AdapterParam(jnp.zeros(layers), axes=(None,))
        square = (width, width, ("embed", "heads"))
        self.maps = nnx.List([AdapterLinear(*square, rngs=rngs) for _ in range(layers)])
        self.masked_embedding = masked_embedding(width, rngs)

    def prepare(self, reference: Array, width: int, noise: Noise | None = None) -> Array:
        """Hide spans, then fill references with empty rows to the prefix's length."""
        reference = super().prepare(reference, width, noise)
        steps, missing = self.config.steps, self.config.steps - reference.shape[-2]
        if missing < 0:
            raise M4MError(
                f"the reference has {reference.shape[-2]} steps and coco-mulla reads {steps} at "
                "most; use shorter windows"
            )
        if not missing:
            return reference
        vocabulary = self.lm.vocabulary
        row = jnp.full(width, vocabulary.pad, jnp.int32).at[0].set(vocabulary.eos)
        shape = (*reference.shape[:-2], missing, reference.shape[-1])
        empty = jnp.broadcast_to(self.lm.encode(row), shape)
        return jnp.concatenate([reference, empty], axis=-2)

    def read(self, reference: Array, noise: Noise | None = None) -> list[Prefix]:
        """The prefix stream of references [..., P, D], as each layer of the target sees it."""
        decoder, steps = self.lm.decoder, self.config.steps
        h = jnp.broadcast_to(self.lm.shift(self.prefix[...]), reference.shape)
        rope, prefixes = decoder.rope(slice(steps)), []
        for i, (layer, told) in enumerate(zip(decoder.layers, self.maps, strict=True)):
            added = told(reference + self.prefix_positions[i])
            inner = at(self.lm_noise(noise), i)
            memory = layer.attention.read(h + added, at(inner, 3))
            prefixes.append(Prefix(h + added, memory))
            h, _ = layer(h, rope, attn_in=added, noise=inner)
        return prefixes

    def target_states(
        self, target: Array, reference: Array | None, noise: Noise | None = None
    ) -> Array:
        """The prefix stream, then the target beside it (`System.target_states`)."""
        assert reference is not None
        lm, length = self.lm, target.shape[-2]
        if length > self.config.steps:
            raise M4MError(
                f"the target has {length} steps and coco-mulla writes {self.config.steps} at most; "
                "use shorter windows"
            )
        prefixes = self.read(reference, at(noise, 0))
        rope, mask, h = lm.decoder.rope(slice(length)), causal(length), lm.shift(target)
        for i, (layer, prefix) in enumerate(zip(lm.decoder.layers, prefixes, strict=True)):
            inner = at(self.lm_noise(noise), 1 + i)
            query = h + prefix.stream[..., :length, :]
            gain = self.gates[i] * layer.attention.look(query, prefix.memory, at(inner, 3))
            h, _ = layer(h, rope, mask, attn_out=gain, noise=inner)
        return h

    def start(self, reference: Array | None, batch: int, steps: int) -> tuple[Array, CocoCarry]:
        """Run the prefix stream once and begin (`System.start`)."""
        assert reference is not None
        lm = self.lm
        caches = lm.decoder.caches(batch, steps, reference.dtype)
        states, carry = self.advance(CocoCarry(caches, self.read(reference)), lm.starts(batch))
        return states[:, 0], carry

    def advance(self, carry: CocoCarry, steps: Array) -> tuple[Array, CocoCarry]:
        """Read the next steps (`System.advance`)."""
        decoder, h = self.lm.decoder, steps
        positions = following(carry.caches[0], steps)
        rope, caches = decoder.rope(positions), []
        for i, (layer, prefix) in enumerate(zip(decoder.layers, carry.prefixes, strict=True)):
            query = h + prefix.stream[:, positions]
            gain = self.gates[i] * layer.attention.look(query, prefix.memory)
            h, cache = layer(h, rope, cache=carry.caches[i], attn_out=gain)
            caches.append(cache)
        return h, carry._replace(caches=caches)
