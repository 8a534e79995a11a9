from __future__ import annotations

import numpy as np
import pytest

from m4m_jax.datasets.filters import quality_filter
from m4m_jax.datasets.ingest import Rejected
from m4m_jax.music import NoteTable, Track


def table(*tracks: tuple[int, int]) -> NoteTable:
    """Tracks of so many notes, of which so many begin on odd steps."""
    rows = [
        (2 * i + (i < odd), 1, 60, 0, 80, track)
        for track, (count, odd) in enumerate(tracks)
        for i in range(count)
    ]
    notes = np.array(rows, np.int32).reshape(-1, 6)
    return NoteTable(notes, (Track("", 0),) * len(tracks), 1000)


def test_some_track_needs_more_than_20_notes():
    assert quality_filter(table((21, 0))) == table((21, 0))
    with pytest.raises(Rejected, match="more than 20 notes") as caught:
        quality_filter(table((20, 0), (20, 0)))
    assert caught.value.reason == "too short"
    with pytest.raises(Rejected):
        quality_filter(NoteTable(np.zeros((0, 6), np.int32), (), 10))


@pytest.mark.parametrize(("odd", "kept"), [(0, True), (45, True), (46, False), (65, False)])
@pytest.mark.parametrize("noise", [(), ((20, 0),), ((100, 100),)])
def test_share_of_odd_steps(odd, kept, noise):
    # Neither a short track nor one with a greater share changes the verdict.
    song = table((100, odd), *noise)
    if kept:
        quality_filter(song)
    else:
        with pytest.raises(Rejected, match=f"{odd}.0% of onsets") as caught:
            quality_filter(song)
        assert caught.value.reason == "off the grid"


@pytest.mark.parametrize(("odd", "kept"), [(66, True), (99, True), (100, False)])
def test_mostly_odd_is_kept_and_all_odd_is_not(odd, kept):
    if kept:
        quality_filter(table((100, odd)))
    else:
        with pytest.raises(Rejected):
            quality_filter(table((100, odd)))


def test_the_least_share_counts():
    quality_filter(table((100, 50), (100, 40)))
    with pytest.raises(Rejected):
        quality_filter(table((100, 50), (100, 70)))
