from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4m_jax.music.notes import DRUM_PROGRAM
from m4m_jax.music.reduction import harmonic_reduction, moved_within_octaves, reduced
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
    found = harmonic_reduction(band, 10)
    assert found[:, :3].tolist() == [
        *([0, 4, 43], [0, 4, 60], [0, 4, 64]),
        *([4, 4, 43], [4, 4, 60], [4, 2, 64]),
        [6, 2, 67],
        [9, 1, 38],
    ]
    assert found[:, 3:].tolist() == [[0, 90, 0]] * 8
    assert found.dtype == np.int32


def slowly(table):
    """Each quarter of each note by itself: {(step, pitch): duration}."""
    sounding = [
        (step, min(step + max(duration, 1), table.length), pitch)
        for step, duration, pitch, program, *_ in table.notes.tolist()
        if program != DRUM_PROGRAM
    ]
    found: dict[tuple[int, int], int] = {}
    for start, end, pitch in sounding:
        for step in range(start, end):
            if step > start and step % 4:
                continue
            duration = min(end, step - step % 4 + 4) - step
            lowest = min(p for s, e, p in sounding if s <= step < e)
            place = step, (36 if pitch == lowest else 60) + pitch % 12
            found[place] = max(duration, found.get(place, 0))
    return [[*place, duration] for place, duration in sorted(found.items())]


@given(tables())
def test_it_is_that_of_each_note_by_itself(table):
    before = table.notes.copy()
    found = harmonic_reduction(table.notes, table.length)
    assert np.array_equal(table.notes, before)
    assert found[:, [0, 2, 1]].tolist() == slowly(table)
    whole = reduced(table)
    assert np.array_equal(whole.notes, found)
    assert [track.name for track in whole.tracks] == ["piano"]


@pytest.mark.parametrize("shift", [-12, -1, 0, 6])
@given(table=tables(), seed=st.integers(0, 99))
def test_a_reduction_moves_as_its_song_does(shift, table, seed):
    notes = table.notes.copy()
    notes[:, 2] = np.random.default_rng(seed).integers(12, 122, len(notes))
    moved = notes + np.array([0, 0, shift, 0, 0, 0], np.int32)
    found = harmonic_reduction(notes, table.length)
    expected = harmonic_reduction(moved, table.length)
    assert np.array_equal(moved_within_octaves(found, shift), expected)
