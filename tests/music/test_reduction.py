from __future__ import annotations

import numpy as np
from hypothesis import given

from m4m_jax.music.notes import DRUM_PROGRAM
from m4m_jax.music.reduction import on_piano, piano_reduction
from tests.music.strategies import tables


def test_a_band_on_one_piano():
    band = np.array(
        [
            [4, 2, 67, 73, 100, 0],
            [0, 4, 60, 73, 100, 0],
            [0, 8, 60, 24, 60, 1],
            [0, 8, 36, 33, 80, 2],
            [0, 1, 36, DRUM_PROGRAM, 120, 3],
        ],
        np.int32,
    )
    reduced = piano_reduction(band)
    assert reduced.tolist() == [[0, 8, 36, 0, 90, 0], [0, 8, 60, 0, 90, 0], [4, 2, 67, 0, 90, 0]]
    assert reduced.dtype == np.int32


@given(tables())
def test_the_longest_note_of_each_step_and_pitch(table):
    before = table.notes.copy()
    longest: dict[tuple[int, int], int] = {}
    for step, duration, pitch, program, *_ in table.notes.tolist():
        if program != DRUM_PROGRAM:
            longest[step, pitch] = max(duration, longest.get((step, pitch), 0))
    reduced = piano_reduction(table.notes)
    assert np.array_equal(table.notes, before)
    assert [((s, p), d) for s, d, p, *_ in reduced.tolist()] == sorted(longest.items())
    assert np.array_equal(piano_reduction(reduced), reduced)
    whole = on_piano(table)
    assert np.array_equal(whole.notes, reduced)
    assert [track.name for track in whole.tracks] == ["piano"]
