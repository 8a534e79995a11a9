"""Songs of any length, window by window: the end of one is the prompt of the next."""

from __future__ import annotations

import itertools

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


def part_of(rows: np.ndarray, first: int, steps: int, vocabulary: Vocabulary) -> np.ndarray:
    """Token rows int32 [steps, 2N] from row `first` on, with empty ones before 0 and at the end."""
    before = empty_rows(max(-first, 0), rows.shape[1], vocabulary)
    return fill(np.concatenate([before, rows[max(first, 0) : first + steps]]), steps, vocabulary)


def window_starts(
    steps: int, window: int, stride: int = 1, starts: np.ndarray | None = None
) -> list[int]:
    """Where the windows of a song begin, ascending, in steps of the song.

    Each begins two thirds of a window after the one before, or a bit less where `starts` says so,
    and the last as soon as it reaches the song's end.

    Args:
        steps: the song's length.
        window: steps of a window.
        stride: starts are multiples of this.
        starts: int64 [k], ascending, the starts to choose from, of which the first is the song's;
            where windows would be too far apart, others are taken. Any, from 0 on, when None.
    """
    advance = -(-(window - window // PROMPT_SHARE) // stride) * stride
    found = [0 if starts is None else int(starts[0])]
    while (start := found[-1]) + window < steps:
        near = np.arange(start + stride, start + advance + 1, stride)
        if starts is not None and np.isin(near, starts).any():
            near = near[np.isin(near, starts)]
        last = near[near + window >= steps]
        found.append(int(last[0] if len(last) else near[-1]))
    return found


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
    starts: np.ndarray | None = None,
) -> np.ndarray:
    """Write targets of any length, one a key.

    reference: token rows int32 [L, 2M], read window by window with empty rows after its end; or
    None. prompt: token rows int32 [P, 2N] that all targets begin with, shorter than a window.
    steps: rows of a target. keys: one a sample, [K]. window: steps of the song that a window spans;
    of the two streams it holds as many rows as `compress` leaves (None: all). starts: as those
    of `window_starts`; where the first is below 0, so many empty steps come before the song.

    Returns token rows int32 [K, steps, 2N], the prompt included.
    """
    vocabulary, samples = system.lm.vocabulary, len(keys)
    compress = compress or Compression()
    rows_heard, rows_written = window // compress.reference, window // compress.target
    begins = window_starts(steps * compress.target, window, compress.stride, starts)
    lead = -begins[0] // compress.target
    silence = empty_rows(lead, prompt.shape[1], vocabulary)
    before = np.repeat(np.concatenate([silence, prompt])[None], samples, axis=0)
    written = [before[:, lead:]]
    for start, following in itertools.pairwise([*begins, begins[-1] + window]):
        heard = None
        if reference is not None:
            heard = part_of(reference, start // compress.reference, rows_heard, vocabulary)[None]
        stop = min(rows_written, steps - start // compress.target)
        own = fold_keys(keys, start - begins[0])
        rows = write_window(
            system, heard, before, stop, own, sampling, window=rows_written, allowed=allowed
        )
        written.append(rows[:, before.shape[1] :])
        before = rows[:, (following - start) // compress.target :]
    return np.concatenate(written, axis=1)
