"""The seq2seq baseline: an encoder and a decoder that attends to it, trained from scratch.

After Vaswani et al., "Attention Is All You Need" (2017), on steps instead of words, in the sizes of
the paper's implementation.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
from flax import nnx
from jax import Array

from m4m_jax.errors import M4MError
from m4m_jax.models.lm import LM, LMConfig
from m4m_jax.models.noise import Noise, at, dropout
from m4m_jax.models.roformer import (
    NORMAL,
    Attention,
    Cache,
    Initializer,
    Layer,
    Stack,
    causal,
    following,
    layer_norm,
)
from m4m_jax.models.system import System

Memory = tuple[Array, Array]

SIZES = {
    "tiny": LMConfig(64, 2, 4, 128, local_layers=1, local_heads=4, local_ffn=128),
    "mini": LMConfig(128, 2, 4, 256, local_layers=1, local_heads=4, local_ffn=256),
    "1": LMConfig(256, 3, 4, 512, local_layers=2, local_heads=4, local_ffn=512),
}
"""The size of the paper's implementation, and two that train in minutes on two cores."""


def seq2seq_size(size: str, **changes) -> LMConfig:
    """The sizes of a preset, with changes."""
    if size not in SIZES:
        raise M4MError(f"seq2seq has no size {size!r}; its sizes are {', '.join(SIZES)}")
    return dataclasses.replace(SIZES[size], **changes)


class DecoderLayer(Layer):
    """A layer that attends to encoded steps between its self-attention and feed-forward parts."""

    def __init__(
        self,
        width: int,
        heads: int,
        ffn: int,
        *,
        kernel_init: Initializer = NORMAL,
        rngs: nnx.Rngs,
    ):
        super().__init__(width, heads, ffn, kernel_init=kernel_init, rngs=rngs)
        self.cross_attention = Attention(width, heads, kernel_init=kernel_init, rngs=rngs)
        self.cross_norm = layer_norm(width, rngs)

    def decode(
        self,
        h: Array,
        memory: Memory,
        rope: Array,
        mask: Array | None = None,
        cache: Cache | None = None,
        *,
        noise: Noise | None = None,
    ) -> tuple[Array, Cache | None]:
        """One layer on `h` [..., T, D]; returns (the layer's output, the extended cache).

        memory: keys and values of what `cross_attention` read; it has no positions. The rest is as
        for any layer.
        """
        compute = jax.checkpoint(self._decode) if self.remat else self._decode
        return compute(h, memory, rope, mask, cache, noise)

    def _decode(
        self,
        h: Array,
        memory: Memory,
        rope: Array,
        mask: Array | None,
        cache: Cache | None,
        noise: Noise | None,
    ) -> tuple[Array, Cache | None]:
        mixed, cache = self.attention(
            h, h, rope=(rope, rope), mask=mask, cache=cache, noise=at(noise, 0)
        )
        h = self.attention_norm(h + dropout(mixed, at(noise, 1)))
        found = self.cross_attention.look(h, memory, at(noise, 3))
        h = self.cross_norm(h + dropout(found, at(noise, 4)))
        return self.feed_forward(h, at(noise, 2)), cache


class Seq2SeqCarry(NamedTuple):
    """What sampling carries on: decoder caches, keys and values of the reference, each by layer."""

    caches: list[Cache]
    memory: list[Memory]


class Seq2Seq(System):
    """An encoder of references, `reader`, and a language model that attends to it, `core`.

    The encoder reads the reference's step embeddings unmasked, with no start vector and no shift.
    """

    def __init__(self, config: LMConfig, *, rngs: nnx.Rngs):
        c = config
        self.core = LM(config, kind=DecoderLayer, rngs=rngs)
        self.reader = Stack(c.layers, c.width, c.heads, c.ffn, c.positions, rngs=rngs)

    @property
    def lm(self) -> LM:
        """The local stacks and the decoder, whose layers need `decode`."""
        return self.core

    def read(self, reference: Array, noise: Noise | None = None) -> list[Memory]:
        """Keys and values of references' steps [..., L, D], a pair a layer of the decoder."""
        rope = self.reader.rope(slice(reference.shape[-2]))
        h = self.reader(reference, rope, noise=at(noise, 0))
        return [
            layer.cross_attention.read(h, at(at(at(noise, 1), i), 3))
            for i, layer in enumerate(self.core.decoder.layers)
        ]

    def target_states(
        self, target: Array, reference: Array | None, noise: Noise | None = None
    ) -> Array:
        """The encoder, then the decoder (`System.target_states`)."""
        assert reference is not None
        decoder, length = self.core.decoder, target.shape[-2]
        memory = self.read(reference, noise)
        rope, mask, h = decoder.rope(slice(length)), causal(length), self.core.shift(target)
        for i, (layer, heard) in enumerate(zip(decoder.layers, memory, strict=True)):
            h, _ = layer.decode(h, heard, rope, mask, noise=at(at(noise, 1), i))
        return h

    def start(self, reference: Array | None, batch: int, steps: int) -> tuple[Array, Seq2SeqCarry]:
        """Encode the references once and begin (`System.start`)."""
        assert reference is not None
        caches = self.core.decoder.caches(batch, steps, reference.dtype)
        carry = Seq2SeqCarry(caches, self.read(reference))
        states, carry = self.advance(carry, self.core.starts(batch))
        return states[:, 0], carry

    def advance(self, carry: Seq2SeqCarry, steps: Array) -> tuple[Array, Seq2SeqCarry]:
        """Read the next steps (`System.advance`)."""
        decoder, h = self.core.decoder, steps
        rope, caches = decoder.rope(following(carry.caches[0], steps)), []
        for layer, cache, heard in zip(decoder.layers, carry.caches, carry.memory, strict=True):
            h, cache = layer.decode(h, heard, rope, cache=cache)
            caches.append(cache)
        return h, carry._replace(caches=caches)
