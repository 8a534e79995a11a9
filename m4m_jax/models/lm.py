"""The foundation language model: three stacks of RoFormer layers over rows of notes.

A step's row of 2N tokens becomes one embedding (local encoder), the embeddings of the steps so far
become one state (global decoder), and the state becomes the tokens of the next row (local
decoder). Paper, section 3.1.
"""

from __future__ import annotations

import dataclasses
import functools

import jax.numpy as jnp
from flax import nnx
from jax import Array

from m4m_jax.data.packing import PackedBatch
from m4m_jax.errors import M4MError
from m4m_jax.models.lookup import gather
from m4m_jax.models.noise import Noise
from m4m_jax.models.roformer import KEEP_VARIANCE, NORMAL, Cache, Layer, Stack, causal
from m4m_jax.models.system import System
from m4m_jax.music.simunote import Vocabulary, by_name

ENCODERS = ("reference", "masked")

EMBEDDING = nnx.initializers.normal(0.3)
"""How embeddings start. With them, and with local maps that keep variance, a row's notes count from
the first step on, in its embedding and in each other's logits; at BERT's 0.02 they are lost."""


@dataclasses.dataclass(frozen=True)
class LMConfig:
    """Sizes of a foundation LM.

    encoder: "reference" attends to PADs, as the released weights need, so that a row's embedding
    depends on how many it carries; "masked" does not, and reads rows of any N alike.
    """

    width: int
    layers: int
    heads: int
    ffn: int
    local_layers: int = 3
    local_heads: int = 8
    local_ffn: int = 768
    positions: int = 1536
    vocabulary: str = "plain"
    encoder: str = "reference"

    def __post_init__(self):
        if self.encoder not in ENCODERS:
            raise M4MError(f"encoder {self.encoder!r} is not one of {', '.join(ENCODERS)}")
        for heads in (self.heads, self.local_heads):
            if self.width % (2 * heads):
                raise M4MError(
                    f"width {self.width} does not divide into {heads} heads of even size"
                )


PRESETS = {
    "tiny": LMConfig(64, 4, 4, 256, local_layers=1, local_heads=4, local_ffn=128),
    "mini": LMConfig(128, 4, 4, 512, local_layers=1, local_heads=4, local_ffn=256),
    "0": LMConfig(512, 6, 8, 1024),
    "1": LMConfig(768, 12, 12, 3072),
    "2": LMConfig(1024, 24, 16, 4096),
    "3": LMConfig(1280, 32, 16, 5120),
}
"""Sizes 0 to 3 of the paper's implementation, and two that train in minutes on two cores."""


def preset(size: str, **changes) -> LMConfig:
    """The configuration of a preset, with changes."""
    if size not in PRESETS:
        raise M4MError(f"no model size {size!r}; sizes are {', '.join(PRESETS)}")
    return dataclasses.replace(PRESETS[size], **changes)


class LM(System):
    """The foundation LM, a system without a reference. B batch, T steps, D width, V tokens.

    kind: the class of the global decoder's layers.
    """

    def __init__(self, config: LMConfig, *, kind: type[Layer] = Layer, rngs: nnx.Rngs):
        self.config = config
        c = config
        whole = (c.layers, c.width, c.heads, c.ffn, c.positions)
        local = functools.partial(
            Stack,
            *(c.local_layers, c.width, c.local_heads, c.local_ffn, c.positions),
            kernel_init=KEEP_VARIANCE,
            rngs=rngs,
        )
        self.start_vector = nnx.Param(EMBEDDING(rngs.params(), (c.width,)), axes=("embed",))
        self.embedding = nnx.Embed(
            self.vocabulary.size,
            c.width,
            embedding_init=EMBEDDING,
            embedding_metadata={"axes": ("vocab", "embed")},
            rngs=rngs,
        )
        # Otherwise it casts to the precision that it was made in, whatever it holds by then.
        self.embedding.dtype = None
        self.encoder = local()
        self.decoder = Stack(*whole, kind=kind, rngs=rngs)
        self.local_decoder = local()
        self.head = nnx.Linear(
            c.width,
            self.vocabulary.size,
            kernel_init=NORMAL,
            kernel_metadata={"axes": ("embed", "vocab")},
            bias_metadata={"axes": ("vocab",)},
            rngs=rngs,
        )

    @property
    def vocabulary(self) -> Vocabulary:
        """What the token ids mean."""
        return by_name(self.config.vocabulary)

    @property
    def masked(self) -> bool:
        """Whether its local encoder does not read PADs."""
        return self.config.encoder == "masked"

    @property
    def stacks(self) -> tuple[Stack, Stack, Stack]:
        """Global decoder, local encoder, local decoder."""
        return self.decoder, self.encoder, self.local_decoder

    def encode(self, rows: Array, noise: Noise | None = None) -> Array:
        """Embed rows int32 [..., 2N] -> [..., D]: SOS and the tokens, read at position 0."""
        sos = jnp.full((*rows.shape[:-1], 1), self.vocabulary.sos, rows.dtype)
        tokens = jnp.concatenate([sos, rows], axis=-1)  # [..., 1 + 2N]
        mask = None
        if self.masked:
            mask = (tokens != self.vocabulary.pad)[..., None, :]
        rope = self.encoder.rope(slice(tokens.shape[-1]))
        h = self.encoder(self.embedding(tokens), rope, mask, queries=1, noise=noise)
        return h[..., 0, :]

    def embed(self, batch: PackedBatch, noise: Noise | None = None) -> Array:
        """Embed a batch's distinct rows: [S, R, D]."""
        read = batch.read
        if read is None or not self.masked:
            return self.encode(batch.rows, noise)
        h = self.encoder(
            self.embedding(read.tokens),
            self.encoder.rope(read.position),
            same(read.row),
            queries=read.first,
            noise=noise,
        )
        return gather(h.reshape(h.shape[0], -1, h.shape[-1]), read.place)

    def shift(self, steps: Array) -> Array:
        """Step embeddings [..., T, D] -> the decoder's input: start vector, all but the last."""
        start = jnp.broadcast_to(self.start_vector[...], (*steps.shape[:-2], 1, steps.shape[-1]))
        return jnp.concatenate([start, steps[..., :-1, :]], axis=-2)

    def states(self, steps: Array, noise: Noise | None = None) -> Array:
        """Step embeddings [..., T, D] -> global states [..., T, D]; state t has read steps < t."""
        length = steps.shape[-2]
        rope = self.decoder.rope(slice(length))
        return self.decoder(self.shift(steps), rope, causal(length), noise=noise)

    def decode_tokens(
        self, states: Array, tokens: Array, position: Array, segment: Array, noise: Noise | None
    ) -> Array:
        """The local decoder on tokens that lie packed in blocks; `head` gives their logits.

        states [..., P, D]: the global state of each token's step. tokens int32 [..., P]: the
        labels; those of a step stand together, in order. position [..., P]: place within the step.
        segment [..., P]: tokens of equal segment are of one step. Returns [..., P, D].
        """
        before = jnp.roll(tokens, 1, axis=-1)  # its first entry is read by no step
        h = jnp.where(position[..., None] == 0, states, self.embedding(before))
        mask = same(segment) & causal(tokens.shape[-1])
        return self.local_decoder(h, self.local_decoder.rope(position), mask, noise=noise)

    def next_logits(self, x: Array, caches: list[Cache]) -> tuple[Array, list[Cache]]:
        """One position `x` [B, D] of the local decoder -> logits float32 [B, V], caches."""
        h, caches = self.local_decoder.advance(x[:, None], caches)
        return self.head(h[:, 0]).astype(jnp.float32), caches

    @property
    def lm(self) -> LM:
        """Itself."""
        return self

    def target_states(
        self, target: Array, reference: Array | None, noise: Noise | None = None
    ) -> Array:
        """Global states; a reference is not read (`System.target_states`)."""
        return self.states(target, noise)

    def start(self, reference: Array | None, batch: int, steps: int) -> tuple[Array, list[Cache]]:
        """Begin a sequence (`System.start`)."""
        carry = self.decoder.caches(batch, steps, self.start_vector.dtype)
        states, carry = self.advance(carry, self.starts(batch))
        return states[:, 0], carry

    def starts(self, batch: int) -> Array:
        """The start vector, for each sequence: [B, 1, D]."""
        return jnp.broadcast_to(self.start_vector[...], (batch, 1, self.config.width))

    def advance(self, carry: list[Cache], steps: Array) -> tuple[Array, list[Cache]]:
        """Read the next steps (`System.advance`)."""
        return self.decoder.advance(steps, carry)


def same(segment: Array) -> Array:
    """Which positions of blocks [..., P] are of one segment: bool [..., P, P]."""
    return segment[..., :, None] == segment[..., None, :]
