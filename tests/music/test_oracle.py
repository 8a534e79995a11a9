"""The package against the second opinion of `oracle.py`, on files that make reading hard."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m4m_jax.errors import M4MError
from m4m_jax.music import midi_bytes, parse_midi, select, to_rows
from tests.music import oracle


def selectors(tracks):
    numbered = [f"{w}-{k}" for w in ("track", "upto", "from", "notrack") for k in range(tracks)]
    return ["all", "drum", "nondrum", *numbered]


def assert_same_rows(data):
    song = oracle.read(data)
    if not any(oracle.rows(song, "all", 1)):
        with pytest.raises(M4MError, match="no notes"):
            parse_midi(data, "song.mid")
        return
    table = parse_midi(data, "song.mid")
    found = [(t.program, t.is_drum) for t in table.tracks]
    assert found == [(i.program, i.is_drum) for i in song.instruments]
    for selector in selectors(len(table.tracks)):
        notes = select(table, selector).notes
        for max_notes, dedup in ((2, False), (16, False), (16, True)):
            rows = to_rows(notes, table.length, max_notes, dedup=dedup)
            expected = oracle.rows(song, selector, max_notes, dedup=dedup)
            assert rows.tobytes() == oracle.as_bytes(expected, max_notes), selector


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_rows_agree(seed):
    assert_same_rows(oracle.random_file(seed))


@settings(max_examples=50)
@given(st.integers(0, 2**32))
def test_rows_of_written_files_agree(seed):
    """Read, written, read by the second opinion: players see what we see."""
    data = oracle.random_file(seed)
    if any(oracle.rows(oracle.read(data), "all", 1)):
        assert_same_rows(midi_bytes(parse_midi(data, "song.mid")))
