"""The least work: arithmetic on the music alone, and weights read once for each token written.

Counted for a cross-attentive adapter with LoRA. Lookups, norms, softmax and dropout are left out:
they are no matrix products.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from m4m_jax.data import packing
from m4m_jax.data.packing import BLOCK, PackedBatch
from m4m_jax.models.cross import CrossConfig
from m4m_jax.models.lm import LMConfig
from m4m_jax.music.simunote import PLAIN


class Counts(NamedTuple):
    """What a batch makes the three stacks compute.

    sequences, steps: windows of a stream, and steps of each.
    rows: those that the local encoder embeds, of SOS and tokens.
    read, read_pairs: positions of all of them; pairs of positions of which one attends to another.
    last_pairs: those of the last layer, which is computed for one position a row.
    tokens, token_pairs: the same for the local decoder and the tokens of the target.
    """

    sequences: int
    steps: int
    rows: int
    read: int
    read_pairs: int
    last_pairs: int
    tokens: int
    token_pairs: int


def least(target: np.ndarray, reference: np.ndarray, encoder: str) -> Counts:
    """The distinct rows and real tokens of a batch of token rows int32 [B, T, 2N].

    With the reference encoder, which attends to PADs, rows are as long as they come.
    """
    width = target.shape[-1]
    rows, _ = packing.distinct(np.concatenate([target, reference]).reshape(-1, width))
    real = (rows != PLAIN.pad).sum(axis=1)
    length = 1 + (real if encoder == "masked" else np.full(len(rows), width))
    written = (target != PLAIN.pad).sum(axis=-1)
    return Counts(
        target.shape[0],
        target.shape[1],
        len(rows),
        int(length.sum()),
        int((length**2).sum()),
        int(length.sum()),
        int(written.sum()),
        int((written * (written + 1) // 2).sum()),
    )


def packed(batch: PackedBatch) -> Counts:
    """What a packed batch [..., 1, ...] makes of it: its size, what is not used included."""
    rows, width = batch.rows.shape[-2:]
    windows, steps = batch.target.shape[-2:]
    tokens, length = batch.tokens.shape[-2] * BLOCK, width + 1
    read = rows * length
    if batch.read is not None:
        blocks, length = batch.read.tokens.shape[-2:]
        rows, read = blocks * batch.read.first.shape[-1], blocks * length
    return Counts(
        *(windows, steps, rows, read, read * length, rows * length), tokens, tokens * BLOCK
    )


def step_operations(counts: Counts, lm: LMConfig, adapter: CrossConfig) -> int:
    """Arithmetic operations of the matrix products of a training step.

    The language model is frozen: its maps are gone through forward and, for the gradient of what
    they map, backward; those of the adapter once more, for their own gradient. Of an attention
    both products are gone through three times.
    """
    c, d = counts, lm.width
    links = range(0, lm.layers, adapter.every)
    window = c.sequences * c.steps
    causal = c.sequences * c.steps * (c.steps + 1) // 2

    def layer(tokens: int, pairs: int, ffn: int, queries: int | None = None) -> int:
        q = tokens if queries is None else queries
        maps = 2 * d * (2 * d * tokens + 2 * d * q + 2 * ffn * q)
        rank = 0 if adapter.lora is None else adapter.lora.rank
        updates = 2 * 2 * d * rank * (tokens + q)  # of values and of queries
        return 2 * maps + 3 * updates + 3 * 4 * d * pairs

    encoder = (lm.local_layers - 1) * layer(c.read, c.read_pairs, lm.local_ffn)
    encoder += layer(c.read, c.last_pairs, lm.local_ffn, queries=c.rows)
    decoders = (lm.layers + links[-1]) * layer(window, causal, lm.ffn)
    inner = adapter.width
    link = 3 * 2 * d * inner * 4 * window + 3 * 4 * inner * window * c.steps
    local = lm.local_layers * layer(c.tokens, c.token_pairs, lm.local_ffn)
    head = 2 * 2 * d * PLAIN.size * c.tokens
    return encoder + decoders + len(links) * link + local + head


class Writing(NamedTuple):
    """What writing rows takes at the least.

    operations: of the matrix products.
    bytes: of weights and caches, each read once for a step, or for a token where it is so often
        that it is needed.
    """

    operations: int
    bytes: int


def writing(
    rows: np.ndarray, prompt: int, lm: LMConfig, adapter: CrossConfig, *, item: int
) -> Writing:
    """What it takes to write the rows [B, T, 2N] from step `prompt` on.

    References are as long as the rows, and the same for all B; a row is done when the longest of
    the B is. item: bytes of a number.
    """
    d, links = lm.width, range(0, lm.layers, adapter.every)
    batch, steps, _ = rows.shape
    whole = 4 * d * d + 2 * d * lm.ffn
    local = lm.local_layers * (4 * d * d + 2 * d * lm.local_ffn)
    linked = len(links) * 2 * d * adapter.width
    written = (rows[:, prompt:] != PLAIN.pad).sum(axis=-1)  # [B, T - prompt]
    tokens, decoded = int(written.sum()), int(written.max(axis=0).sum())
    new = steps - prompt
    for_token, for_step = local + d * PLAIN.size, lm.layers * whole + linked + local
    # Keys and values of the steps so far, and the reference's.
    seen = lm.layers * 2 * d * batch * sum(range(prompt, steps))
    heard = len(links) * 2 * adapter.width * steps * new
    before = batch * prompt * (lm.layers * whole + linked + local)
    before += steps * (links[-1] * whole + local + linked)  # the reference, once
    return Writing(
        2 * (tokens * for_token + batch * new * for_step + before),
        item * (decoded * for_token + new * for_step + seen + heard),
    )
