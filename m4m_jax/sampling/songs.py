"""Songs of any length, window by window: the end of one is the prompt of the next."""

from __future__ import annotations

import numpy as np
from jax import Array

from m4m_jax.models.system import System
from m4m_jax.music.compression import Compression
from m4m_jax.music.simunote import Vocabulary
from m4m_jax.sampling.sampler import Sampling, fold_keys, write_window

PROMPT_SHARE = 3
"""One part in so many of a window is the prompt of the next: 128 steps of 384."""


def empty_rows(steps: int, width: int, vocabulary: Vocabulary) -> np.ndarray:
    """Token rows int32 [steps, width] without notes."""
    rows = np.full((steps, width), vocabulary.pad, np.int32)
    rows[:, 0] = vocabulary.eos
    return rows


def fill(rows: np.ndarray, steps: int, vocabulary: Vocabulary) -> np.ndarray:
    """Token rows int32 [T, 2N] followed by empty ones up to `steps`."""
    return np.concatenate([rows, empty_rows(steps - len(rows), rows.shape[1], vocabulary)])


def write_song(
    system: System,
    reference: np.ndarray | None,
    prompt: np.ndarray,
    steps: int,
    keys: Array,
    sampling: Sampling,
    *,
    window: int,
    compress: Compression | None = None,
    allowed: np.ndarray | None = None,
) -> np.ndarray:
    """Write targets of any length, one a key.

    reference: token rows int32 [L, 2M], read window by window with empty rows after its end; or
    None. prompt: token rows int32 [P, 2N] that all targets begin with, shorter than a window.
    steps: rows of a target. keys: one a sample, [K]. window: steps of the song that a window spans;
    of the two streams it holds as many rows as `compress` leaves (None: all).

    Returns token rows int32 [K, steps, 2N], the prompt included.
    """
    vocabulary, samples = system.lm.vocabulary, len(keys)
    compress = compress or Compression()
    rows_heard, rows_written = window // compress.reference, window // compress.target
    # Windows begin at steps of the song that both streams have.
    advance = -(-(window - window // PROMPT_SHARE) // compress.stride) * compress.stride
    before = np.repeat(prompt[None], samples, axis=0)
    written, start = [before], 0
    while True:
        heard = None
        if reference is not None:
            first = start // compress.reference
            heard = fill(reference[first : first + rows_heard], rows_heard, vocabulary)[None]
        done = start // compress.target
        stop = min(rows_written, steps - done)
        rows = write_window(
            system, heard, before, stop, fold_keys(keys, start), sampling, window=rows_written,
            allowed=allowed,
        )  # fmt: skip
        written.append(rows[:, before.shape[1] :])
        if done + stop >= steps:
            return np.concatenate(written, axis=1)
        before = rows[:, advance // compress.target :]
        start += advance
