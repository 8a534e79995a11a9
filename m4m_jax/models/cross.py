"""The cross-attentive adapter: the target attends to the reference at every second layer.

The paper's "FA-cross", section 3.2. Both streams run through the same language model with the same
low-rank updates; a light attention links them, and only it and the updates are trained.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from m4m_jax.models.adapter import AdapterLinear, AdapterParam
from m4m_jax.models.linked import AdapterConfig, Linked, masked_embedding
from m4m_jax.models.lm import LM
from m4m_jax.models.lora import LoRAConfig, attach_lora, update_layers
from m4m_jax.models.noise import Noise, at
from m4m_jax.models.roformer import (
    KEEP_VARIANCE,
    Cache,
    Initializer,
    attend,
    causal,
    following,
)


@dataclasses.dataclass(frozen=True)
class CrossConfig(AdapterConfig):
    """Sizes of the adapter. Without LoRA the language model is frozen and free of dropout.

    every: one layer in so many has a link, from the first on. gate: what the links' gates start
    at. A new adapter changes nothing: the gates are 0 as in the paper's implementation, or else
    their output maps start at 0, and the links learn in fewer steps.
    """

    every: int = 2
    width: int = 256
    heads: int = 4
    gate: float = 0.0
    lora: LoRAConfig | None = dataclasses.field(default_factory=LoRAConfig)
    system: Literal["cross"] = dataclasses.field(default="cross", kw_only=True)


class CrossCarry(NamedTuple):
    """What sampling carries on: decoder caches, and keys and values of the reference by link."""

    caches: list[Cache]
    memory: list[tuple[Array, Array]]


NEAR = 11.0
"""How much higher a new link scores a reference step at the query's place than one far away."""

BAND = (0.09, 0.5)
"""Radians a step, of the features that a new link's first heads read their place from: so slow that
the next steps score about as much as the query's own, so fast that those a bar away score less."""

WIDER = 4
"""How much farther the next of a new link's heads looks than the first half, and the rest again."""


def step_table(steps: int, width: int) -> np.ndarray:
    """Sinusoidal step encoding float32 [steps, width]: sine on even, cosine on odd features."""
    angle = np.arange(steps)[:, None] * 10000.0 ** (-np.arange(0, width, 2) / width)
    return (
        np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(steps, width).astype(np.float32)
    )


def near_sighted(
    key: Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32, *, heads: int
) -> Array:
    """A first position map [D, width] with which a link looks at the reference around its own step.

    Queries and keys share the map, so that equal steps score `NEAR` and others less, the further
    apart they are. Half of the heads look at a step or two, the next at a bar, the others at some:
    a chord depends on what is around it. A link that begins with all steps alike is long in
    learning where to look.
    """
    width, inner = shape
    frequency = np.repeat(10000.0 ** (-np.arange(0, width, 2) / width), 2)[:, None]  # [D, 1]
    farther = WIDER ** (np.arange(heads) - (heads - 1) // 2).clip(0, 2)  # [H]
    slowed = frequency * np.repeat(farther, inner // heads)  # [D, width]
    read = (slowed > BAND[0]) & (slowed < BAND[1])
    scale = np.sqrt(NEAR / (np.sqrt(inner / heads) * np.maximum(read.sum(axis=0) / 2, 1)))
    return jax.random.normal(key, shape, dtype) * np.where(read, scale, 0.01)


def scaled(factor: float) -> Initializer:
    """Maps whose output varies by `factor` times the variance of what they map."""
    return nnx.initializers.variance_scaling(factor, "fan_in", "truncated_normal")


FLOOR = 1e-5
"""Variances below this share of the largest count as so much when what a link hears is whitened."""


def whitening(heard: np.ndarray, width: int, rng: np.random.Generator) -> np.ndarray:
    """A map [D, width] under which states [n, D] vary alike in all directions, by 1 a feature."""
    variance, axes = np.linalg.eigh(np.cov(heard, rowvar=False))
    scale = 1 / np.sqrt(variance.clip(0) + FLOOR * variance.max())
    size = max(len(scale), width)
    turn, _ = np.linalg.qr(rng.normal(size=(size, size)))
    turn = turn[: len(scale), :width] * np.sqrt(size / len(scale))
    return (axes * scale) @ turn


class Link(nnx.Module):
    """Low-rank attention from the target's states to the reference's, through a gate.

    Any target step sees every reference step. A projected step encoding, of the target's width, is
    added to queries, keys and values.
    """

    def __init__(self, width: int, reference_width: int, config: CrossConfig, *, rngs: nnx.Rngs):
        self.heads = config.heads
        inward = (width, config.width, ("embed", "heads"))
        heard = (reference_width, *inward[1:])
        # At first the place decides where a link looks, and what it hears there, one step of the
        # five or so that it looks at, is not lost in the mixture.
        self.query = AdapterLinear(*inward, kernel_init=scaled(0.04), rngs=rngs)
        self.key = AdapterLinear(*heard, kernel_init=scaled(0.04), rngs=rngs)
        self.value = AdapterLinear(*heard, kernel_init=scaled(16.0), rngs=rngs)
        self.position = AdapterLinear(
            *inward, kernel_init=functools.partial(near_sighted, heads=config.heads), rngs=rngs
        )
        first = nnx.initializers.zeros if config.gate else KEEP_VARIANCE
        outward = (config.width, width, ("heads", "embed"))
        self.output = AdapterLinear(*outward, kernel_init=first, rngs=rngs)
        self.gate = AdapterParam(jnp.full(1, config.gate, jnp.float32), axes=(None,))

    def split(self, x: Array) -> Array:
        """[..., width] -> [..., H, d]."""
        return x.reshape(*x.shape[:-1], self.heads, -1)

    def read(self, reference: Array) -> tuple[Array, Array]:
        """Keys and values [..., L, H, d] of the reference's states [..., L, D]."""
        table = step_table(reference.shape[-2], self.position.in_features)
        position = self.position(jnp.asarray(table, reference.dtype))  # [L, width]
        return (
            self.split(self.key(reference) + position),
            self.split(self.value(reference) + position),
        )

    def whiten(self, heard: Array, seed: int) -> None:
        """Make the value map one under which states [..., D] like these vary alike in all ways."""
        states = np.asarray(heard, np.float64).reshape(-1, heard.shape[-1])
        kernel = whitening(states, self.value.out_features, np.random.default_rng(seed))
        bias, dtype = -states.mean(axis=0) @ kernel, self.value.kernel.dtype
        self.value.kernel[...] = jnp.asarray(kernel, dtype)
        self.value.bias[...] = jnp.asarray(bias, dtype)

    def __call__(
        self, h: Array, encoding: Array, memory: tuple[Array, Array], noise: Noise | None = None
    ) -> Array:
        """Target states `h` [..., T, D] with their step encoding [T, D] -> [..., T, D]."""
        q = self.split(self.query(h) + self.position(encoding))
        mixed = attend(q, *memory, None, noise)
        return self.output(mixed.reshape(*h.shape[:-1], -1)) * self.gate[...]


class CrossAdapter(Linked):
    """A language model and the links that let it read a reference.

    It takes over `lm`, on whose maps low-rank updates are put. `reference_lm`, taken over likewise,
    reads the reference where that is another one: layers are paired by their relative depth.
    """

    config: CrossConfig

    def __init__(
        self,
        lm: LM,
        config: CrossConfig | None = None,
        *,
        reference_lm: LM | None = None,
        rngs: nnx.Rngs,
    ):
        config = config or CrossConfig()
        super().__init__(lm, config)
        self.reference_base = nnx.data(reference_lm)
        if config.lora is not None:
            attach_lora(lm.stacks, config.lora, rngs=rngs)
        widths = (lm.config.width, self.reference_lm.config.width)
        links = len(range(0, lm.config.layers, config.every))
        if reference_lm is not None:
            decoder, encoder = reference_lm.decoder, reference_lm.encoder
            decoder.reset_positions()
            if config.lora is not None:  # on what is read of it; it writes nothing
                read = (*decoder.layers[: self.source_of(links - 1)], *encoder.layers)
                update_layers(read, config.lora, rngs=rngs)
        self.links = nnx.List([Link(*widths, config, rngs=rngs) for _ in range(links)])
        self.masked_embedding = masked_embedding(lm.config.width, rngs)
        if reference_lm is not None and config.reference_mask_rate:
            self.masked_reference = masked_embedding(reference_lm.config.width, rngs)

    @property
    def reference_lm(self) -> LM:
        """The language model that reads the reference."""
        return self.base if self.reference_base is None else self.reference_base

    def mask_vector(self, steps: Array) -> Array:
        """What stands for a hidden reference step: of the width of the model that reads it."""
        if self.reference_base is None:
            return super().mask_vector(steps)
        return self.masked_reference[...].astype(steps.dtype)

    def link_at(self, layer: int) -> Link | None:
        """The link that feeds a layer, if one does."""
        index, rest = divmod(layer, self.config.every)
        return None if rest else self.links[index]

    def target_states(
        self, target: Array, reference: Array | None, noise: Noise | None = None
    ) -> Array:
        """Both streams side by side, layer by layer (`System.target_states`)."""
        assert reference is not None
        lm, length = self.lm, target.shape[-2]
        encoding = jnp.asarray(step_table(length, target.shape[-1]), target.dtype)
        rope, mask, h = lm.decoder.rope(slice(length)), causal(length), lm.shift(target)
        # Streams of one length through one language model are one batch of each layer; where that
        # is frozen, nothing needs to come back through the reference's.
        frozen = self.config.tune == "adapter" and self.config.lora is None
        alike = self.reference_base is None and reference.shape == target.shape and not frozen
        memory = [] if alike else self.read(reference, at(noise, 0))
        heard = lm.shift(reference) if alike else None
        for i, layer in enumerate(lm.decoder.layers):
            link, added = self.link_at(i), None
            if link is not None:
                if heard is not None:
                    memory.append(link.read(heard))
                added = link(h, encoding, memory[i // self.config.every], at(noise, 100 + i))
            inner = at(self.lm_noise(noise), 1 + i)
            if heard is not None and len(memory) < len(self.links):
                both = None if added is None else jnp.stack([jnp.zeros_like(added), added])
                streams = jnp.stack([heard, h])
                (heard, h), _ = layer(streams, rope, mask, attn_out=both, noise=inner)
            else:
                h, _ = layer(h, rope, mask, attn_out=added, noise=inner)
        return h

    def read(self, reference: Array, noise: Noise | None = None) -> list[tuple[Array, Array]]:
        """Keys and values of a reference's steps [..., L, D], one pair a link.

        The reference runs through its language model as any sequence does, so its state k has read
        the steps before k. Layer i of n of the target reads what layer i m / n of m gets, rounded
        down; layers above the last one read are not needed.
        """
        heard = self.heard(reference, noise)
        return [link.read(h) for link, h in zip(self.links, heard, strict=False)]

    def heard(self, reference: Array, noise: Noise | None = None) -> Iterator[Array]:
        """What the links read of step embeddings [..., L, D]: states [..., L, D], link by link."""
        lm, length = self.reference_lm, reference.shape[-2]
        rope, mask, h = lm.decoder.rope(slice(length)), causal(length), lm.shift(reference)
        sources = [self.source_of(link) for link in range(len(self.links))]
        for i, layer in enumerate(lm.decoder.layers):
            yield from [h] * sources.count(i)
            h, _ = layer(h, rope, mask, noise=at(self.lm_noise(noise), i))

    def whiten(self, reference: Array) -> None:
        """Make new links hear all that references tell, not just what is loudest in it.

        Pitch is but a tenth of what the step embeddings of notes differ in, and links would be long
        in finding it. Their value maps become those under which the states that references like
        these, step embeddings [B, L, D], give vary alike in all directions.
        """
        for number, (link, h) in enumerate(zip(self.links, self.heard(reference), strict=False)):
            link.whiten(h, number)

    def source_of(self, link: int) -> int:
        """The layer of the reference's language model whose input a link reads."""
        return link * self.config.every * self.reference_lm.config.layers // self.lm.config.layers

    def start(self, reference: Array | None, batch: int, steps: int) -> tuple[Array, CrossCarry]:
        """Read the references once and begin (`System.start`)."""
        assert reference is not None
        lm = self.lm
        caches = lm.decoder.caches(batch, steps, lm.start_vector.dtype)
        states, carry = self.advance(CrossCarry(caches, self.read(reference)), lm.starts(batch))
        return states[:, 0], carry

    def advance(self, carry: CrossCarry, steps: Array) -> tuple[Array, CrossCarry]:
        """Read the next steps (`System.advance`)."""
        decoder, h = self.lm.decoder, steps
        positions = following(carry.caches[0], steps)
        rope = decoder.rope(positions)
        table = jnp.asarray(step_table(carry.caches[0].keys.shape[1], steps.shape[-1]), steps.dtype)
        encoding, caches = table[positions], []
        for i, layer in enumerate(decoder.layers):
            link, added = self.link_at(i), None
            if link is not None:
                added = link(h, encoding, carry.memory[i // self.config.every])
            h, cache = layer(h, rope, cache=carry.caches[i], attn_out=added)
            caches.append(cache)
        return h, carry._replace(caches=caches)
