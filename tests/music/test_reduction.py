from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4m_jax.music.compression import compress_rows, stretch
from m4m_jax.music.notes import DRUM_PROGRAM, NoteTable, Track
from m4m_jax.music.reduction import (
    harmony_by_quarter,
    moved_within_octaves,
    reduced,
    struck,
    tied,
)
from m4m_jax.music.simunote import END, from_rows, to_rows
from tests.music.strategies import tables


def test_the_harmony_of_a_band():
    band = np.array(
        [
            [6, 2, 67, 73, 100, 0],
            [0, 6, 76, 73, 100, 0],
            [0, 1, 64, 24, 60, 1],
            [0, 8, 60, 24, 60, 1],
            [0, 8, 43, 33, 80, 2],
            [0, 1, 36, DRUM_PROGRAM, 120, 3],
            [9, 0, 62, 24, 60, 1],
        ],
        np.int32,
    )
    found = harmony_by_quarter(band, 10)
    assert found[:, :3].tolist() == [
        # 13 steps sound: 4 of C, 5 of E and 4 of G, of which 12 / 13 twelfths are 3.7, 4.6 and 3.7
        *([0, 16, 43], [0, 16, 60], [0, 16, 64], [0, 16, 67]),
        # 12 steps: 4 of C, 2 of E, 4 of G in the bass and 2 above
        *([4, 16, 43], [4, 16, 60], [4, 16, 67], [4, 8, 64]),
        *([8, 4, 38], [8, 16, 62]),
    ]
    assert found[:, 3:].tolist() == [[0, 90, 0]] * 10
    assert found.dtype == np.int32


def test_the_bass_is_the_lowest_the_longest_and_of_two_the_lower():
    rows = [[0, 3, 50, 0, 90, 0], [3, 1, 40, 0, 90, 0], [4, 2, 47, 0, 90, 0], [6, 2, 45, 0, 90, 0]]
    found = harmony_by_quarter(np.array(rows, np.int32), 8)
    assert found[:, :3].tolist() == [
        *([0, 12, 38], [0, 16, 62], [0, 12, 64]),
        *([4, 8, 45], [4, 16, 69], [4, 16, 71]),
    ]


def test_a_tone_that_hardly_sounds_is_left_out():
    rows = [[0, 4, 48 + 12 * k, 0, 90, 0] for k in range(6)] + [[0, 1, 50, 0, 90, 0]]
    assert harmony_by_quarter(np.array(rows, np.int32), 4)[:, 2].tolist() == [36, 60]
    rows[-1][1] = 2
    assert harmony_by_quarter(np.array(rows, np.int32), 4)[:, 2].tolist() == [36, 60, 62]


def slowly(table):
    """Each quarter by itself: (step, -length, pitch), the bass's length as if it were endless."""
    notes = [
        (step, min(step + max(duration, 1), table.length), pitch)
        for step, duration, pitch, program, *_ in table.notes.tolist()
        if program != DRUM_PROGRAM
    ]
    found = []
    for line in range(0, table.length, 4):
        steps = range(line, line + 4)
        sounding = [(step, pitch) for step in steps for s, e, pitch in notes if s <= step < e]
        if not sounding:
            continue
        lows = [min(p for s, p in sounding if s == step) for step in {s for s, _ in sounding}]
        of = {c: [p for p in lows if p % 12 == c] for c in range(12)}
        bass = max(of, key=lambda c: (len(of[c]), -min(of[c], default=128)))
        found.append((line, -1000, 36 + bass, 4 * len(of[bass])))
        for c in range(12):
            share = Fraction(12 * sum(p % 12 == c for _, p in sounding), len(sounding))
            if strength := min(round(share), 4):
                found.append((line, -4 * strength, 60 + c, 4 * strength))
    return [[step, length, pitch] for step, _, pitch, length in sorted(found)]


@given(tables())
def test_it_is_that_of_each_quarter_by_itself(table):
    before = table.notes.copy()
    found = harmony_by_quarter(table.notes, table.length)
    assert np.array_equal(table.notes, before)
    assert found[:, :3].tolist() == slowly(table)
    whole = reduced(table)
    assert np.array_equal(whole.notes, found)
    assert [track.name for track in whole.tracks] == ["piano"]


@given(tables())
def test_no_length_is_lost_at_a_grid_of_quarters(table):
    whole = reduced(table)
    rows = to_rows(whole.notes, whole.length, 16)
    assert not (rows[np.arange(len(rows)) % 4 > 0, 0, 0] != END).any()
    compressed = compress_rows(rows, 4)
    there = stretch(from_rows(compressed), 4, whole.length)
    key = [0, 2, 1]
    assert sorted(there.notes[:, key].tolist()) == sorted(whole.notes[:, key].tolist())


@pytest.mark.parametrize("shift", [-12, -1, 0, 6])
@given(table=tables(), seed=st.integers(0, 99))
def test_a_reduction_moves_as_its_song_does(shift, table, seed):
    notes = table.notes.copy()
    notes[:, 2] = np.random.default_rng(seed).integers(12, 122, len(notes))
    moved = notes + np.array([0, 0, shift, 0, 0, 0], np.int32)
    found = harmony_by_quarter(notes, table.length)
    expected = harmony_by_quarter(moved, table.length)
    assert np.array_equal(moved_within_octaves(found, shift), expected)


def test_chords_are_struck_on_each_quarter():
    rows = [[3, 7, 48, 0, 90, 0], [3, 7, 52, 0, 90, 0], [0, 8, 42, DRUM_PROGRAM, 90, 1]]
    table = NoteTable(np.array(rows, np.int32), (Track("", 0), Track("", 0, is_drum=True)), 12)
    found = struck(table)
    assert found.notes[:, :3].tolist() == [
        *([3, 1, 48], [3, 1, 52], [4, 4, 48], [4, 4, 52], [8, 2, 48], [8, 2, 52]),
        [0, 8, 42],
    ]
    assert tied(found) == table


def test_only_equal_chords_are_tied():
    rows = [
        *([0, 4, 48], [0, 4, 52], [4, 4, 48], [4, 4, 53]),  # another chord
        *([9, 3, 48], [9, 3, 53]),  # after a rest
        *([12, 4, 48], [12, 3, 53], [16, 4, 48], [16, 4, 53]),  # which do not end together
    ]
    notes = np.array([[*row, 0, 90, 0] for row in rows], np.int32)
    found = tied(NoteTable(notes, (Track("", 0),), 20)).notes[:, :3].tolist()
    expected = [*rows[:4], [9, 7, 48], [9, 6, 53], *rows[8:]]
    assert sorted(found) == sorted(expected)


@given(tables())
def test_ties_undo_strikes(table):
    """Of block chords one after the other, none like the one before."""
    pitched = table.notes[table.notes[:, 3] != DRUM_PROGRAM]
    starts = np.unique(pitched[:, 0])
    ends = np.append(starts[1:], table.length)[: len(starts)]
    chords = [
        [start, end - start, pitch, 0, 90, 0]
        for k, (start, end) in enumerate(zip(starts, ends, strict=True))
        for pitch in {k % 2, *pitched[pitched[:, 0] == start, 2]} - {1 - k % 2}
    ]
    notes = np.array(chords, np.int32).reshape(-1, 6)
    music = NoteTable(notes, (Track("chords", 0),), table.length)
    cut = struck(music)
    assert (cut.notes[:, 1] <= 4).all()
    assert (cut.notes[:, 0] // 4 == (cut.notes[:, 0] + cut.notes[:, 1] - 1) // 4).all()
    order = np.lexsort((notes[:, 2], notes[:, 0]))
    again = tied(cut).notes
    assert np.array_equal(again[np.lexsort((again[:, 2], again[:, 0]))], notes[order])
