"""Songs made up to be as full as real ones, for measurements without data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from m4m_jax.music.notes import NoteTable, Track, write_midi


def band(seed: int) -> NoteTable:
    """A song as full as those of large collections: drums, bass, chords and melody in 4/4.

    About 0.8 drum notes and 2 other notes a step; drums repeat from bar to bar,
    nearly.
    """
    rng = np.random.default_rng(seed)
    bars = int(rng.integers(40, 160))
    beat = rng.random((6, 16)) < np.array([[0.15], [0.12], [0.4], [0.05], [0.05], [0.03]])
    drum, step = np.nonzero(np.tile(beat, bars) ^ (rng.random((6, 16 * bars)) < 0.01))
    kit = 35 + 6 * np.arange(6) + rng.integers(0, 6, 6)
    parts = [_part(step, 1, kit[drum], 127, 0)]
    for track, (program, density, voices) in enumerate(
        [(33, 0.25, 1), (0, 0.15, 4), (25, 0.2, 3), (73, 0.3, 1)], start=1
    ):
        steps = np.flatnonzero(rng.random(16 * bars) < density)
        base = 36 + 8 * track + rng.integers(0, 12, len(steps))
        length = rng.integers(1, 8, len(steps))
        parts += [_part(steps, length, base + 4 * voice, program, track) for voice in range(voices)]
    return NoteTable(
        np.concatenate(parts).astype(np.int32),
        (Track("drums", 0, is_drum=True), *(Track("", p) for p in (33, 0, 25, 73))),
        16 * bars,
        np.array([[0.0, 120.0]]),
        np.array([[0.0, 4.0, 4.0]]),
    )


def tune(seed: int) -> NoteTable:
    """A song as full as folk tunes: a melody, mostly eighths, over triads of half a bar."""
    rng = np.random.default_rng(seed)
    bars = int(rng.integers(24, 60))
    steps = np.flatnonzero(rng.random(16 * bars) < np.tile([0.8, 0.02, 0.4, 0.02], 4 * bars))
    scale = 62 + np.array([0, 2, 4, 5, 7, 9, 11, 12]) + rng.choice([0, 5, 7])
    length, pitch = rng.choice([2, 4], len(steps)), rng.choice(scale, len(steps))
    melody = _part(steps, length, pitch, 0, 0)
    struck = 8 * np.flatnonzero(rng.random(2 * bars) < 0.6)
    root = rng.choice(scale[[0, 3, 4]], len(struck)) - 12
    chords = [_part(struck, 8, root + tone, 0, 1) for tone in (0, 4, 7)]
    return NoteTable(
        np.concatenate([melody, *chords]).astype(np.int32),
        (Track("melody", 0), Track("chords", 0)),
        16 * bars,
        np.array([[0.0, 120.0]]),
        np.array([[0.0, 4.0, 4.0]]),
    )


def write(folder: epath.Path, number: int, make: Callable[[int], NoteTable] = band) -> epath.Path:
    """Write so many songs into a new folder, which is returned."""
    folder.mkdir()
    for seed in range(number):
        write_midi(make(seed), folder / f"{seed:03}.mid")
    return folder


def _part(step: Any, duration: Any, pitch: Any, program: int, track: int) -> np.ndarray:
    columns = np.broadcast_arrays(step, duration, pitch, program, 80, track)
    return np.stack(columns, axis=1)
