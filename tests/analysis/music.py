"""Progressions played in several manners, from chord labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m4m_jax.music import NoteTable, Track, chord_pitches, parse_chord

PIANO = (Track("piano", 0),)


def table(rows: Sequence[tuple[int, int, int]], length: int, *, meter=None) -> NoteTable:
    """Rows of step, duration and pitch as one track of piano; meter: (beats, unit), or none."""
    ordered = sorted(rows, key=lambda row: (row[0] + row[1], row[0], row[2]))
    notes = [(*row, 0, 80, 0) for row in ordered]
    meters = np.array([[0.0, *meter]]) if meter else np.zeros((0, 3))
    return NoteTable(
        np.array(notes, np.int32).reshape(-1, 6),
        PIANO,
        length,
        tempos=np.array([[0.0, 120.0]]),
        meters=meters,
    )


def _voices(label: str) -> tuple[int, list[int]]:
    chord = parse_chord(label)
    assert chord is not None
    bass, *rest = chord_pitches(chord)
    return bass - 12, [bass, *rest]


def blocks(label: str, start: int, bar: int) -> list[tuple[int, int, int]]:
    """The bass below, and the chord struck twice a bar."""
    bass, chord = _voices(label)
    struck = [(start + at, bar // 2, pitch) for at in (0, bar // 2) for pitch in chord]
    return [(start, bar, bass), *struck]


def alberti(label: str, start: int, bar: int) -> list[tuple[int, int, int]]:
    """The bass held; over it, in eighths, the lowest, highest, second and highest tone."""
    bass, chord = _voices(label)
    line = (chord[0], chord[-1], chord[1], chord[-1])
    run = [(start + at, 2, line[k % 4]) for k, at in enumerate(range(0, bar, 2))]
    return [(start, bar, bass), *run]


def waltz(label: str, start: int, bar: int) -> list[tuple[int, int, int]]:
    """The bass on one, the chord on two and three."""
    bass, chord = _voices(label)
    return [(start, 4, bass), *((start + at, 4, p) for at in range(4, bar, 4) for p in chord)]


def jig(label: str, start: int, bar: int) -> list[tuple[int, int, int]]:
    """The bass and the fifth of two dotted quarters, and the chord on their last two eighths."""
    bass, chord = _voices(label)
    return [
        *((start + half, 2, bass) for half in (0, 6)),
        *((start + half + at, 2, p) for half in (0, 6) for at in (2, 4) for p in chord),
    ]


def play(labels: Sequence[str], bar: int, manner=blocks, *, start: int = 0, **facts) -> NoteTable:
    """A chord a bar, from a step on."""
    rows = [row for k, label in enumerate(labels) for row in manner(label, start + k * bar, bar)]
    return table(rows, start + bar * len(labels), **facts)


def transposed(song: NoteTable, semitones: int) -> NoteTable:
    """The song with all its pitches moved."""
    notes = song.notes.copy()
    notes[:, 2] += semitones
    return song.replace(notes=notes)


def steps_of(song: NoteTable, labels) -> list[tuple[int, str]]:
    """Labels as steps and texts, for a song at 120 quarters a minute."""
    return [(round(label.start * 8), label.text) for label in labels]
