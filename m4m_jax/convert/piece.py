"""A piece of music to compare models on: Beethoven's "Ode to Joy", with chords, bass and drums.

From the fourth movement of the Ninth Symphony (1824), the theme's sixteen bars, set simply.
"""

from __future__ import annotations

import numpy as np

from m4m_jax.music.notes import DRUM_PROGRAM, NoteTable, Track

BAR = 16
PIANO, STRINGS, BASS = 0, 48, 32

PHRASE = "F# F# G A A G F# E D D E F#"
MELODY = [
    f"{PHRASE} F#. E, E:",
    f"{PHRASE} E. D, D:",
    "E E F# D E F#, G, F# D E F#, G, F# E D E a:",
    f"{PHRASE} E. D, D:",
]
"""The theme in D; a dot makes a note half as long again, a comma half, a colon twice as long."""

CHORDS = ["D D A D", "D D A D", "A D A A", "D D A D"]
"""The harmony of each line, a bar each."""

PITCHES = {"D": 62, "E": 64, "F#": 66, "G": 67, "A": 69, "a": 57}
TRIADS = {"D": (50, 54, 57), "A": (49, 52, 57)}
LENGTHS = {".": 6, ",": 2, ":": 8}
KICK, SNARE, HAT = 36, 38, 42


def ode_to_joy() -> NoteTable:
    """256 steps on four tracks: melody, chords, bass, drums."""
    tracks = (
        Track("melody", PIANO, is_drum=False),
        Track("chords", STRINGS, is_drum=False),
        Track("bass", BASS, is_drum=False),
        Track("drums", 0, is_drum=True),
    )
    parts = ((_melody(), 96), (_chords(), 64), (_bass(), 80), (_drums(), 72))
    notes = [
        (*note, DRUM_PROGRAM if track.is_drum else track.program, velocity, k)
        for k, (track, (part, velocity)) in enumerate(zip(tracks, parts, strict=True))
        for note in part
    ]
    return NoteTable(
        notes=np.array(notes, np.int32),
        tracks=tracks,
        length=len(CHORDS) * 4 * BAR,
        tempos=np.array([[0.0, 120.0]]),
        meters=np.array([[0.0, 4.0, 4.0]]),
        off_grid=0.0,
    )


def _melody() -> list[tuple[int, int, int]]:
    """Step, duration and pitch of each note."""
    notes, step = [], 0
    for word in " ".join(MELODY).split():
        length = LENGTHS.get(word[-1], 4)
        notes.append((step, length, PITCHES[word.rstrip(".,:")]))
        step += length
    return notes


def _harmony() -> list[tuple[int, str]]:
    return [(BAR * bar, chord) for bar, chord in enumerate(" ".join(CHORDS).split())]


def _chords() -> list[tuple[int, int, int]]:
    return [(step, BAR, pitch) for step, chord in _harmony() for pitch in TRIADS[chord]]


def _bass() -> list[tuple[int, int, int]]:
    return [(s, 8, TRIADS[chord][0] - 12) for step, chord in _harmony() for s in (step, step + 8)]


def _drums() -> list[tuple[int, int, int]]:
    bars = [step for step, _ in _harmony()]
    hits = [(0, KICK), (8, SNARE), *((beat, HAT) for beat in range(0, BAR, 2))]
    return [(bar + place, 2, pitch) for bar in bars for place, pitch in hits]
