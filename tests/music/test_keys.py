from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4m_jax.music.keys import in_common_key, moved, to_common_key
from m4m_jax.music.notes import DRUM_PROGRAM, NoteTable, Track
from tests.datasets.music import song
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


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shift", [-5, -1, 2, 6])
def test_a_song_in_any_key_comes_to_the_same(seed, shift):
    music = song(seed, tracks=3)
    there = moved(music, shift)
    assert np.array_equal(there.notes[:, 2], music.notes[:, 2] + shift)
    ways = to_common_key(music.notes), to_common_key(there.notes)
    assert (ways[0] - ways[1] - shift) % 12 == 0
    assert moved(there, -shift) == music


@given(tables(), st.integers(-5, 6))
def test_drums_do_not_move(table, shift):
    drums = table.notes[:, 3] == DRUM_PROGRAM
    found = moved(table, shift).notes
    assert np.array_equal(found[drums], table.notes[drums])
    assert np.array_equal(np.delete(found, 2, axis=1), np.delete(table.notes, 2, axis=1))
    assert np.array_equal(found[~drums, 2] % 12, (table.notes[~drums, 2] + shift) % 12)
    assert ((found[:, 2] >= 0) & (found[:, 2] < 128)).all()


@given(tables(), st.integers(-5, 6))
def test_chords_keep_their_octave(table, shift):
    pitched = table.notes[:, 3] != DRUM_PROGRAM
    notes = table.notes[(table.notes[:, 2] < 116) | ~pitched]
    song, pitched = table.replace(notes=notes), notes[:, 3] != DRUM_PROGRAM
    there = moved(song, shift, chords=True)
    assert moved(there, -shift, chords=True) == song
    assert np.array_equal(there.notes[~pitched], notes[~pitched])
    for step in set(notes[pitched, 0].tolist()):
        chord = pitched & (notes[:, 0] == step)
        before, after = notes[chord, 2], there.notes[chord, 2]
        assert len(set((after - before).tolist())) == 1
        assert (after[0] - before[0] - shift) % 12 == 0
        assert after.min() // 12 == before.min() // 12


def test_only_the_chords_of_the_named_tracks_keep_their_octave():
    notes = [[0, 4, 57, 0, 90, 0], [4, 4, 48, 0, 90, 0], [0, 4, 69, 0, 90, 1], [4, 4, 60, 0, 90, 1]]
    table = NoteTable(np.array(notes, np.int32), (Track("chords", 0), Track("melody", 0)), 8)
    chords = np.array([True, False])
    assert moved(table, 5, chords=chords).notes[:, 2].tolist() == [50, 53, 74, 65]
    found = in_common_key(None, table, chords)
    assert found.target == moved(table, found.key, chords=chords)
    assert in_common_key(None, table).target == moved(table, found.key)


def test_notes_stay_within_midis_pitches():
    notes = np.array([[0, 1, 2, 0, 90, 0], [0, 1, 125, 0, 90, 0]], np.int32)
    table = NoteTable(notes, (Track("", 0),), 4)
    assert moved(table, 5).notes[:, 2].tolist() == [7, 118]
    assert moved(table, -5).notes[:, 2].tolist() == [9, 120]
