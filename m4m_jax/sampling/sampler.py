"""The compiled generator: one loop over steps, inside it one over the tokens of a row.

All stacks keep caches, the reference is read once, and a row ends as soon as every sequence of the
batch has written EOS. The loop's length is data, so one program serves prompts and songs of any
length up to a window.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from m4m_jax.models.lm import LM
from m4m_jax.models.system import System
from m4m_jax.music.simunote import Vocabulary


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
    lm: LM, state: Array, keys: Array, sampling: Sampling, allowed: Array | None, width: int
) -> Array:
    """Write a row int32 [B, width] from the global states [B, D]: notes, EOS, PADs."""
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
        token = jnp.where(ended, vocabulary.pad, token)
        ended = ended | (token == vocabulary.eos)
        return k + 1, lm.embedding(token), caches, ended, row.at[:, k].set(token)

    caches = lm.local_decoder.caches(batch, width, state.dtype)
    row = jnp.full((batch, width), vocabulary.pad, jnp.int32)
    ended = jnp.zeros(batch, bool)
    return jax.lax.while_loop(unfinished, write, (0, state, caches, ended, row))[-1]


@functools.partial(jax.jit, static_argnums=0)
def write_rows(
    graphdef: nnx.GraphDef,
    weights: Any,
    reference: Array | None,
    rows: Array,
    given: Array,
    stop: Array,
    keys: Array,
    sampling: Sampling,
    allowed: Array | None,
) -> Array:
    """Fill rows int32 [B, T, 2N] from step `given` up to `stop`; those before are the prompt.

    reference: token rows [B, L, 2M] or None. keys: one random key a sequence, [B]. Steps from
    `stop` on stay as they are.
    """
    system: System = nnx.merge(graphdef, weights)
    lm, (batch, steps, width) = system.lm, rows.shape

    def step(loop):
        t, state, carry, rows = loop
        row = jax.lax.cond(
            t < given,
            lambda: rows[:, t],
            lambda: sample_row(lm, state, fold_keys(keys, t), sampling, allowed, width),
        )
        state, carry = system.advance(carry, lm.encode(row))
        return t + 1, state, carry, rows.at[:, t].set(row)

    if reference is not None:
        reference = system.prepare(system.reference_lm.encode(reference), reference.shape[-1])
    state, carry = system.start(reference, batch, steps + 1)
    return jax.lax.while_loop(lambda loop: loop[0] < stop, step, (0, state, carry, rows))[-1]


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
) -> np.ndarray:
    """Continue prompts int32 [B, P, 2N] to `stop` rows in all: int32 [B, stop, 2N].

    reference: token rows [B, L, 2M] or None. The program is compiled for a window and serves
    any P <= stop <= window.
    """
    batch, given, width = prompt.shape
    rows = np.full((batch, window, width), system.lm.vocabulary.pad, np.int32)
    rows[:, :given] = prompt
    parts = nnx.split(system)
    filled = write_rows(*parts, reference, rows, given, stop, keys, sampling, allowed)
    return np.asarray(filled[:, :stop])
