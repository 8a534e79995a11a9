from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m4m_jax.datasets import record
from m4m_jax.datasets.record import Song, content_hash, hash_split
from m4m_jax.music import NoteTable, Track
from tests.datasets.music import song


@st.composite
def tables(draw) -> NoteTable:
    names = st.text(max_size=8) | st.just("\udcff\udc80")
    tracks = draw(st.lists(st.builds(Track, names, st.integers(0, 127), st.booleans()), max_size=4))
    length = draw(st.integers(1, 100_000))
    count = draw(st.integers(0, 30)) if tracks else 0
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    track = np.sort(rng.integers(0, max(len(tracks), 1), count))
    programs = np.array([t.note_program for t in tracks] or [0])
    notes = np.stack(
        [
            rng.integers(0, length, count),
            rng.integers(0, 5000, count),
            rng.integers(0, 128, count),
            programs[track],
            rng.integers(1, 128, count),
            track,
        ],
        axis=1,
    )
    changes = np.sort(rng.random(draw(st.integers(0, 3))) * length)
    return NoteTable(
        notes=notes.astype(np.int32),
        tracks=tuple(tracks),
        length=length,
        tempos=np.stack([changes, rng.random(len(changes)) * 200 + 1e-9], axis=1),
        meters=np.stack([changes, changes * 0 + 3, changes * 0 + 8], axis=1),
        off_grid=draw(st.floats(0, 1)),
    )


@settings(deadline=None)
@given(tables(), st.text(min_size=1) | st.just("bad \udcff name.mid"))
def test_a_record_is_the_song(table, name):
    features = record.features()
    given_song = Song(name, content_hash(table), table)
    stored = features.serialize_example(record.encode(given_song))
    assert record.decode(features.deserialize_example_np(stored)) == given_song


def test_content_is_the_sorted_notes_as_little_endian_integers():
    notes = np.array([[4, 2, 60, 5, 90, 0], [0, 2, 64, 5, 80, 0], [0, 2, 62, 127, 70, 1]], np.int32)
    table = NoteTable(notes, (Track("a", 5), Track("b", 0, is_drum=True)), 8)
    rows = [[0, 2, 62, 127], [0, 2, 64, 5], [4, 2, 60, 5]]
    expected = b"".join(value.to_bytes(4, "little") for row in rows for value in row)
    assert content_hash(table) == hashlib.sha256(expected).hexdigest()


def test_content_does_not_see_names_order_tempo_or_velocity():
    table = song(0)
    notes = table.notes.copy()
    notes[:, 4] = 33
    first = notes[notes[:, 5] == 0][::-1]
    notes[notes[:, 5] == 0] = first
    other = table.replace(
        notes=notes,
        tracks=tuple(Track("other", t.program) for t in table.tracks),
        tempos=np.zeros((0, 2)),
        meters=np.zeros((0, 3)),
        length=table.length + 5,
        off_grid=0.5,
    )
    assert content_hash(other) == content_hash(table)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_content_sees_every_note(column):
    table = song(0)
    notes = table.notes.copy()
    notes[7, column] += 1
    assert content_hash(table.replace(notes=notes)) != content_hash(table)


@pytest.mark.parametrize(
    ("content", "split"),
    [("00", "test"), ("0a", "test"), ("01", "validation"), ("0b", "validation"), ("09", "train")],
)
def test_the_split_is_the_hash_mod_10(content, split):
    assert hash_split(content) == split
