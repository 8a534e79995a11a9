from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4m_jax.music.keys import moved, to_common_key
from m4m_jax.music.notes import DRUM_PROGRAM, NoteTable, Track
from tests.music.strategies import tables

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 11)  # harmonic minor


def scale(tonic: int, tones: tuple[int, ...], program: int = 0) -> np.ndarray:
    """A scale upwards whose tonic and fifth are long."""
    rows = [
        [8 * k, 8 if tone in (0, 7) else 2, 48 + tonic + tone, program, 90, 0]
        for k, tone in enumerate(tones)
    ]
    return np.array(rows, np.int32)


@pytest.mark.parametrize("tonic", range(12))
def test_major_goes_to_c_and_minor_to_a(tonic):
    up, down = to_common_key(scale(tonic, MAJOR)), to_common_key(scale(tonic, MINOR))
    assert (tonic + up) % 12 == 0
    assert (tonic + down) % 12 == 9
    assert -5 <= up <= 6
    assert -5 <= down <= 6


def test_drums_have_no_key():
    assert to_common_key(scale(2, MAJOR, DRUM_PROGRAM)) == 0
    assert to_common_key(np.zeros((0, 6), np.int32)) == 0
    with_drums = np.concatenate([scale(2, MAJOR), np.repeat(scale(6, MINOR, DRUM_PROGRAM), 9, 0)])
    assert to_common_key(with_drums) == -2


@given(tables(), st.integers(-5, 6))
def test_a_song_in_any_key_comes_to_the_same(table, shift):
    notes = table.notes[(table.notes[:, 2] >= 12) & (table.notes[:, 2] < 116)]
    song = table.replace(notes=notes)
    there = moved(song, shift)
    pitched = notes[:, 3] != DRUM_PROGRAM
    assert np.array_equal(there.notes[:, 2], notes[:, 2] + shift * pitched)
    ways = to_common_key(notes), to_common_key(there.notes)
    if pitched.any() and len(np.unique(notes[pitched, 2] % 12)) > 1:  # one alone fits two keys
        first, second = (moved(s, way).notes for s, way in zip((song, there), ways, strict=True))
        assert np.array_equal(first[pitched, 2] % 12, second[pitched, 2] % 12)
    assert np.array_equal(moved(there, -shift).notes, notes)


def test_notes_stay_within_midis_pitches():
    notes = np.array([[0, 1, 2, 0, 90, 0], [0, 1, 125, 0, 90, 0]], np.int32)
    table = NoteTable(notes, (Track("", 0),), 4)
    assert moved(table, 5).notes[:, 2].tolist() == [7, 118]
    assert moved(table, -5).notes[:, 2].tolist() == [9, 120]
