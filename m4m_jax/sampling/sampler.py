"""The compiled generator: one loop over steps, inside it one over the tokens of a row.

All stacks keep caches, the reference and the prompt are read once and at once, and a row ends as
soon as every sequence of the batch has written EOS. The loop's length is data, so one program
serves prompts and songs of any length up to a window.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from m4m_jax.data import packing
from m4m_jax.models.lm import LM
from m4m_jax.models.system import System
from m4m_jax.music.simunote import Vocabulary

PROMPT = 64
"""A program that reads prompts is compiled for each multiple of so many steps."""


class Sampling(NamedTuple):
    """How a token is drawn from its logits. Temperature 0 takes the likeliest.

    top_k keeps the k likeliest tokens, top_p the likeliest whose shares add up to p (Holtzman et
    al., 2020), both after the temperature; None leaves them all.
    """

    temperature: Array | float = 1.0
    top_k: Array | int | None = None
    top_p: Array | float | None = None


def truncate(logits: Array, sampling: Sampling) -> Array:
    """Logits [V] with what top_k and top_p leave out at -inf."""
    if sampling.top_k is None and sampling.top_p is None:
        return logits
    ranked = jnp.sort(logits, descending=True)
    last = jnp.asarray(logits.shape[0] - 1)
    if sampling.top_k is not None:
        last = jnp.minimum(last, jnp.asarray(sampling.top_k) - 1)
    if sampling.top_p is not None:
        kept = jnp.where(jnp.arange(logits.shape[0]) <= last, ranked, -jnp.inf)
        before = jnp.cumsum(jax.nn.softmax(kept)) - jax.nn.softmax(kept)
        count = jnp.maximum(jnp.sum(before < sampling.top_p), 1)
        last = jnp.minimum(last, count - 1)
    return jnp.where(logits >= ranked[last], logits, -jnp.inf)


def draw(key: Array, logits: Array, sampling: Sampling) -> Array:
    """A token int32 [] from logits [V]."""
    warm = jnp.asarray(sampling.temperature) > 0
    scaled = truncate(logits / jnp.where(warm, sampling.temperature, 1.0), sampling)
    drawn = jax.random.categorical(key, scaled)
    return jnp.where(warm, drawn, jnp.argmax(logits)).astype(jnp.int32)


def well_formed(vocabulary: Vocabulary, programs: np.ndarray | None = None) -> np.ndarray:
    """Which tokens keep a row well-formed: bool [2, V], for even and for odd places.

    A note's program or EOS stands on an even place, its pitch and duration on the odd one after
    it. `programs` bool [128] leaves only some instruments (drums are 127).
    """
    allowed = np.zeros((2, vocabulary.size), bool)
    first = np.array(vocabulary.program_range)
    allowed[0, first] = True if programs is None else programs[first % 128]
    allowed[0, vocabulary.eos] = True
    allowed[1, vocabulary.pitch_range] = True
    return allowed


def sample_row(
    lm: LM,
    state: Array,
    keys: Array,
    sampling: Sampling,
    allowed: Array | None,
    width: int,
    forced: Array | None = None,
) -> Array:
    """Write a row int32 [B, width] from the global states [B, D]: notes, EOS, PADs.

    `forced` int32 [B, width], where given, takes the place of what is drawn.
    """
    batch, vocabulary = state.shape[0], lm.vocabulary

    def unfinished(loop):
        k, _, _, ended, _ = loop
        return (k < width) & ~ended.all()

    def write(loop):
        k, x, caches, ended, row = loop
        logits, caches = lm.next_logits(x, caches)
        if allowed is not None:
            logits = jnp.where(allowed[k % 2], logits, -jnp.inf)
        key = fold_keys(keys, k)
        token = jax.vmap(draw, (0, 0, None))(key, logits, sampling)
        if forced is not None:  # a number below 0 would leave the choice free
            token = jnp.where(forced[:, k] < 0, token, forced[:, k])
        token = jnp.where(ended, vocabulary.pad, token)
        ended = ended | (token == vocabulary.eos)
        return k + 1, lm.embedding(token), caches, ended, row.at[:, k].set(token)

    caches = lm.local_decoder.caches(batch, width, state.dtype)
    row = jnp.full((batch, width), vocabulary.pad, jnp.int32)
    ended = jnp.zeros(batch, bool)
    return jax.lax.while_loop(unfinished, write, (0, state, caches, ended, row))[-1]


@functools.partial(jax.jit, static_argnums=0)
def _encode(graphdef: nnx.GraphDef, weights: Any, rows: Array) -> Array:
    return nnx.merge(graphdef, weights).encode(rows)


def embed(lm: LM, rows: np.ndarray) -> Array:
    """Token rows int32 [..., T, 2N] -> their step embeddings [..., T, D], each distinct row once.

    Few programs are compiled: one for each power of two that rows are filled up to.
    """
    flat = rows.reshape(-1, rows.shape[-1])
    distinct, index = packing.distinct(flat)
    spare = max(64, 1 << (len(distinct) - 1).bit_length()) - len(distinct)
    filled = np.pad(distinct, [(0, spare), (0, 0)], constant_values=lm.vocabulary.pad)
    return _encode(*nnx.split(lm), filled)[index.reshape(rows.shape[:-1])]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def begin(
    graphdef: nnx.GraphDef,
    steps: int,
    width: int,
    weights: Any,
    reference: Array | None,
    prompt: Array,
    given: Array,
) -> tuple[Array, Any]:
    """Read the reference once, and the prompts at once: (state [B, D], what a system carries on).

    reference: step embeddings [B, L, D], or [1, L, D] for all, of rows of `width` tokens; or None.
    prompt: step embeddings [B, P, D], of which the first `given` count. steps: of a window.
    """
    system: System = nnx.merge(graphdef, weights)
    if reference is not None:
        reference = system.prepare(reference, width)
    state, carry = system.start(reference, len(prompt), steps + 1)
    if not prompt.shape[1]:
        return state, carry
    states, carry = system.advance(carry, prompt)
    states = jnp.concatenate([state[:, None], states], axis=1)
    unread = prompt.shape[1] - given
    # What follows overwrites the caches where the steps that do not count were read.
    return states[:, given], jax.tree.map(lambda x: x - unread if x.ndim == 0 else x, carry)


@functools.partial(jax.jit, static_argnums=0)
def write_rows(
    graphdef: nnx.GraphDef,
    weights: Any,
    state: Array,
    carry: Any,
    rows: Array,
    given: Array,
    stop: Array,
    keys: Array,
    sampling: Sampling,
    allowed: Array | None,
    forced: Array | None,
) -> Array:
    """Fill rows int32 [B, T, 2N] from step `given` up to `stop`, from what `begin` gave.

    keys: one random key a sequence, [B]. Steps from `stop` on stay as they are. forced: rows that
    take the place of those drawn, or None.
    """
    system: System = nnx.merge(graphdef, weights)

    def step(loop):
        t, state, carry, rows = loop
        told = None if forced is None else forced[:, t]
        row = sample_row(
            system.lm, state, fold_keys(keys, t), sampling, allowed, rows.shape[-1], told
        )
        states, carry = system.advance(carry, system.lm.encode(row)[:, None])
        return t + 1, states[:, 0], carry, rows.at[:, t].set(row)

    loop = (given, state, carry, rows)
    return jax.lax.while_loop(lambda loop: loop[0] < stop, step, loop)[-1]


def sample_keys(seed: int, samples: int) -> Array:
    """One random key a sample [samples]; sample k is the same however many there are."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(samples))


def fold_keys(keys: Array, number: Array | int) -> Array:
    """Each of the keys [K] folded with a number."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def write_window(
    system: System,
    reference: np.ndarray | None,
    prompt: np.ndarray,
    stop: int,
    keys: Array,
    sampling: Sampling,
    *,
    window: int,
    allowed: np.ndarray | None = None,
    forced: np.ndarray | None = None,
) -> np.ndarray:
    """Continue prompts int32 [B, P, 2N] to `stop` rows in all: int32 [B, stop, 2N].

    reference: token rows [B, L, 2M], or [1, L, 2M] for all, or None. forced: rows [B, window, 2N]
    that take the place of those drawn, for a measurement. The loop is compiled for a window and
    serves any P <= stop <= window.
    """
    batch, given, width = prompt.shape
    rows = np.full((batch, window, width), system.lm.vocabulary.pad, np.int32)
    rows[:, :given] = prompt
    heard = None if reference is None else embed(system.reference_lm, reference)
    read = embed(system.lm, rows[:, : min(-(-given // PROMPT) * PROMPT, window)])
    graph, weights = nnx.split(system)
    read_of = 0 if reference is None else reference.shape[-1]
    state, carry = begin(graph, window, read_of, weights, heard, read, given)
    filled = write_rows(
        graph, weights, state, carry, rows, given, stop, keys, sampling, allowed, forced
    )
    return np.asarray(filled[:, :stop])
