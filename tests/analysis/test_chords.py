"""Chords found by rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m4m_jax.analysis import analyze
from m4m_jax.errors import M4MError
from m4m_jax.music import Track, parse_chord
from m4m_jax.music.labels import chord_label
from tests.analysis.music import alberti, blocks, jig, play, steps_of, table, transposed, waltz

PROGRESSIONS = {
    "pop": ("C:maj", "G:maj", "A:min", "F:maj"),
    "minor": ("A:min", "D:min", "E:maj", "A:min"),
    "jazz": ("D:min7", "G:7", "C:maj7", "A:7"),
    "diminished": ("C:maj", "C#:dim7", "D:min", "B:hdim7"),
    "inverted": ("C:maj", "G:maj/3", "A:min", "C:maj/5"),
    "suspended": ("C:maj", "G:sus4", "G:maj", "C:maj"),
}


def moved(label: str, semitones: int) -> str:
    """A label on another root."""
    chord = parse_chord(label)
    if chord is None:
        return label
    shorthand = label.partition(":")[2].partition("/")[0]
    return chord_label((chord.root + semitones) % 12, shorthand, chord.bass)


def joined(labels: list[str], bar: int) -> list[tuple[int, str]]:
    """A chord a bar as steps and labels, those that go on left out."""
    new = [k == 0 or label != labels[k - 1] for k, label in enumerate(labels)]
    return [(k * bar, label) for k, label in enumerate(labels) if new[k]]


@pytest.mark.parametrize("key", [0, 3, 7, 10])
@pytest.mark.parametrize(
    ("name", "bar", "meter", "manner"),
    [
        *((name, 16, (4, 4), blocks) for name in PROGRESSIONS),
        *((name, 16, (4, 4), alberti) for name in ("pop", "minor", "jazz")),
        *((name, 12, (3, 4), waltz) for name in PROGRESSIONS),
        *((name, 12, (6, 8), jig) for name in PROGRESSIONS),
    ],
)
def test_progressions(name, bar, meter, manner, key):
    labels = [moved(label, key) for label in PROGRESSIONS[name]] * 2
    song = play(labels, bar, manner, meter=meter)
    assert steps_of(song, analyze(song).chords) == joined(labels, bar)


def test_a_chord_may_change_within_a_bar():
    labels = ["C:maj", "F:maj", "G:maj", "C:maj", "A:min", "D:min", "G:maj", "G:maj"]
    song = play(labels, 8, meter=(4, 4))
    assert steps_of(song, analyze(song).chords) == joined(labels, 8)


def test_passing_notes_are_no_chords():
    chords = play(["C:maj", "F:maj", "G:maj", "C:maj"], 16, meter=(4, 4))
    scale = [(2 * k, 2, 72 + (0, 2, 4, 5, 7, 5, 4, 2)[k % 8]) for k in range(32)]
    rows = [tuple(row[:3]) for row in chords.notes.tolist()]
    song = table([*rows, *scale], 64, meter=(4, 4))
    assert steps_of(song, analyze(song).chords) == [
        (0, "C:maj"),
        (16, "F:maj"),
        (32, "G:maj"),
        (48, "C:maj"),
    ]


def test_silence_is_no_chord():
    first = play(["C:maj"], 16, start=16)
    rows = [tuple(row[:3]) for row in first.notes.tolist()]
    late = [(start + 32, d, pitch) for start, d, pitch in rows]
    song = table([*rows, *late], 96, meter=(4, 4))
    found = steps_of(song, analyze(song).chords)
    assert found == [(0, "N"), (16, "C:maj"), (32, "N"), (48, "C:maj"), (64, "N")]
    assert analyze(song).chords[-1].end == 96 / 8


def test_drums_have_no_chords():
    song = play(["C:maj"] * 4, 16, meter=(4, 4))
    drums = song.notes.copy()
    drums[:, 3], drums[:, 5] = 127, 1
    both = song.replace(
        notes=np.concatenate([song.notes, drums]), tracks=(*song.tracks, Track("kit", 0, True))
    )
    assert analyze(both).chords == analyze(song).chords
    drums[:, 5] = 0
    with pytest.raises(M4MError, match=r"^x\.mid: .* all are drums"):
        analyze(song.replace(notes=drums, tracks=(Track("kit", 0, True),)), name="x.mid")


@given(
    st.lists(
        st.tuples(st.integers(0, 63), st.integers(1, 24), st.integers(36, 84)),
        min_size=12,
        max_size=60,
        unique=True,
    ),
    st.integers(-12, 12),
)
@settings(max_examples=60, deadline=None)
def test_a_song_moved_has_its_chords_moved(rows, semitones):
    song = table(rows, 64, meter=(4, 4))
    found, other = analyze(song), analyze(transposed(song, semitones))
    assert [
        (label.start, label.end, moved(label.text, semitones)) for label in found.chords
    ] == other.chords
    assert found.beats.tolist() == other.beats.tolist()
    np.testing.assert_array_equal(found.song.meters, other.song.meters)
