"""Songs that every task can use, made up from a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from m4m_jax import datasets
from m4m_jax.music import NoteTable, Track, write_midi

NAME = "midi_folder/band"
TRACKS = (
    Track("beats", 0, is_drum=True),
    Track("chords", 0),
    Track("melody", 73),
    Track("bass", 33),
    Track("kit", 0, is_drum=True),
)


def band(seed: int, bars: int = 8) -> NoteTable:
    """Beats and chords as in analysed songs, then what they are of: melody, bass and drums.

    Chords and bass move in quarter notes, the melody in sixteenths.
    """
    rng = np.random.default_rng(seed)
    length = 16 * bars
    eighths, bar_starts = np.arange(0, length, 2), np.arange(0, length, 16)
    roots = rng.integers(48, 60, bars)

    def notes(step, duration, pitch, track):
        columns = [step, duration, pitch, TRACKS[track].note_program, rng.integers(40, 120), track]
        return np.stack([np.broadcast_to(c, np.shape(step)) for c in columns], axis=1)

    steps = np.flatnonzero(rng.random(length) < 0.7)
    parts = [
        notes(eighths, 2, 42, 0),
        notes(bar_starts, 2, 35, 0),
        notes(bar_starts + 8, 2, 38, 0),
        *(notes(bar_starts, 16, roots + interval, 1) for interval in (0, 4, 7)),
        notes(steps, 1, roots[steps // 16] + rng.choice([12, 16, 19], len(steps)), 2),
        notes(np.arange(0, length, 4), 4, np.repeat(roots - 12, 4), 3),
        notes(np.arange(0, length, 2), 1, 40, 4),
    ]
    return NoteTable(
        notes=np.concatenate(parts).astype(np.int32),
        tracks=TRACKS,
        length=length,
        tempos=np.array([[0.0, 100.0]]),
        meters=np.array([[0.0, 4.0, 4.0]]),
    )


def build_band(folder: Path, songs: int = 24) -> Path:
    """A data set of such songs, written as MIDI; returns where data sets live."""
    source = folder / "songs"
    source.mkdir(parents=True)
    for seed in range(songs):
        write_midi(band(seed), source / f"{seed:02}.mid")
    report = datasets.build(NAME, source, folder / "data", workers=1)
    assert report.kept == songs
    return folder / "data"
