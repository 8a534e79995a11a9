"""Songs for the tests, made up from a seed."""

from __future__ import annotations

import numpy as np

from m4m_jax.music import NoteTable, Track


def song(seed: int, *, bars: int = 8, tracks: int = 2, length: int | None = None) -> NoteTable:
    """A melody of quarter and eighth notes over parts of half notes, `bars` bars of 4/4."""
    rng = np.random.default_rng(seed)
    parts = []
    for track in range(tracks):
        onsets = np.arange(0, 16 * bars, 8 if track else 2)
        onsets = onsets[rng.random(len(onsets)) < 0.9]
        duration = np.full(len(onsets), 6 if track else 2)
        pitch = rng.integers(40, 52, len(onsets)) + 24 * (track == 0)
        fixed = [np.full(len(onsets), value) for value in (track, 80, track)]
        parts.append(np.stack([onsets, duration, pitch, *fixed], axis=1))
    return NoteTable(
        notes=np.concatenate(parts).astype(np.int32),
        tracks=tuple(Track(f"part {k}", k) for k in range(tracks)),
        length=16 * bars if length is None else length,
        tempos=np.array([[0.0, 96.0]]),
        meters=np.array([[0.0, 4.0, 4.0]]),
    )
