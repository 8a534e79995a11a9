"""Bars and beats, found from notes or read from meters."""

from __future__ import annotations

import numpy as np
import pytest

from m4m_jax.analysis.meter import beats_of, find_meters, meters_of
from tests.analysis.music import blocks, jig, play, table, waltz

LABELS = ["C:maj", "F:maj", "D:min", "G:maj", "A:min", "F:maj", "G:maj", "C:maj"] * 2


def meters(*rows) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, 3)


@pytest.mark.parametrize(
    ("bar", "manner", "meter"),
    [(16, blocks, (4, 4)), (12, waltz, (3, 4)), (12, jig, (6, 8))],
)
def test_the_meter_is_found_without_a_map(bar, manner, meter):
    assert find_meters(play(LABELS, bar, manner)).tolist() == [[0, *meter]]


@pytest.mark.parametrize(
    ("start", "pickup"), [(4, (1, 4)), (6, (3, 8)), (8, (2, 4)), (12, (3, 4)), (14, (7, 8))]
)
@pytest.mark.parametrize("given", [None, (4, 4)])
def test_bars_begin_where_the_music_has_them(start, pickup, given):
    song = play(LABELS, 16, start=start, meter=given)
    assert find_meters(song).tolist() == [[0, *pickup], [start, 4, 4]]


def test_a_map_of_several_meters_is_kept():
    song = play(LABELS, 16, start=8).replace(meters=meters((0, 4, 4), (32, 3, 4)))
    np.testing.assert_array_equal(find_meters(song), song.meters)
    late = song.replace(meters=meters((8, 4, 4)))
    np.testing.assert_array_equal(find_meters(late), late.meters)


def test_a_bar_cut_short():
    cut = 16 * len(LABELS)
    one, half = play(LABELS, 16), play(["E:maj"], 8, start=cut)
    two = play(LABELS, 16, start=cut + 8)
    rows = [tuple(row[:3]) for song in (one, half, two) for row in song.notes.tolist()]
    found = find_meters(table(rows, two.length))
    assert found.tolist() == [[0, 4, 4], [cut, 2, 4], [cut + 8, 4, 4]]


def test_chords_that_are_known_tell_where_bars_begin():
    """Even quarters say nothing of bars; chords that change every 16 steps do."""
    even = table([(step, 4, 60) for step in range(0, 256, 4)], 256, meter=(4, 4))
    assert find_meters(even).tolist() == [[0, 4, 4]]
    assert find_meters(even, range(8, 256, 16)).tolist() == [[0, 2, 4], [8, 4, 4]]


def test_too_short_for_a_bar():
    song = table([(0, 2, 60)], 3, meter=(4, 4))
    np.testing.assert_array_equal(find_meters(song), song.meters)
    assert find_meters(table([(0, 2, 60)], 3)).shape == (0, 3)


def test_beats_of_meters():
    song = table([(0, 1, 60)], 70).replace(
        meters=meters((0, 4, 4), (16, 3, 4), (28, 6, 8), (40, 5, 8), (50, 2, 2))
    )
    steps, numbers = beats_of(song)
    assert steps.tolist() == [0, 4, 8, 12, 16, 20, 24, 28, 34, 40, 42, 44, 46, 48, 50, 58, 66]
    assert numbers.tolist() == [1, 2, 3, 4, 1, 2, 3, 1, 2, 1, 2, 3, 4, 5, 1, 2, 1]


def test_beats_of_a_pickup_are_counted_from_its_end():
    song = table([(0, 1, 60)], 24).replace(meters=meters((0, 5, 8), (10, 4, 4)))
    steps, numbers = beats_of(song)
    assert steps.tolist() == [2, 6, 10, 14, 18, 22]
    assert numbers.tolist() == [3, 4, 1, 2, 3, 4]


def test_meters_of_downbeats():
    song = table([(0, 1, 60)], 200, meter=(3, 4))
    assert meters_of(np.array([4, 20, 36, 46, 62, 78]), song).tolist() == [
        [0, 1, 4],
        [4, 4, 4],
        [36, 5, 8],
        [46, 4, 4],
    ]
    # One that is missing is a bar of twice the length; where many are, bars go on.
    assert meters_of(np.array([0, 16, 32, 64, 80]), song).tolist() == [
        [0, 4, 4],
        [32, 8, 4],
        [64, 4, 4],
    ]
    assert meters_of(np.array([0, 16, 32, 160]), song).tolist() == [[0, 4, 4]]
    for few in ([], [40]):
        np.testing.assert_array_equal(meters_of(np.array(few, np.int64), song), song.meters)
