from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from m4m_jax.data import eligible, windows
from m4m_jax.data.windows import Draw
from m4m_jax.errors import M4MError
from m4m_jax.music import (
    PLAIN,
    VELOCITY,
    Compression,
    NoteTable,
    Task,
    Track,
    compress_rows,
    get_task,
    select,
    to_rows,
    to_tokens,
)
from m4m_jax.music.inspect import select_notes
from m4m_jax.music.keys import moved, to_common_key
from m4m_jax.music.reduction import harmony_by_quarter
from m4m_jax.music.simunote import encode
from tests.datasets.music import song

PAIR = Task("pair", "", "track-1", "track-0", max_notes=4)


def empty(length=64):
    return NoteTable(np.zeros((0, 6), np.int32), (Track("", 0), Track("", 1)), length)


def on_drums(table):
    """The last track of a table played on drums."""
    notes = table.notes.copy()
    notes[notes[:, 5] == len(table.tracks) - 1, 3] = 127
    return table.replace(notes=notes, tracks=(*table.tracks[:-1], Track("kit", 0, True)))


def test_a_view_is_the_rows_of_the_parts():
    table = song(0)
    reference, target = windows.view(table, PAIR)
    for rows, track in ((reference, 1), (target, 0)):
        notes = table.notes[table.notes[:, 5] == track]
        assert np.array_equal(rows, to_rows(notes, table.length, 4))
        assert rows.dtype == np.uint8
    assert target.shape == (128, 4, 4)


def test_a_language_model_has_no_reference():
    view = windows.view(song(0), get_task("continuation"))
    assert view.reference is None
    assert view.target.shape == (128, 16, 4)


def test_names_and_the_number_of_notes():
    table = song(0)
    task = Task("named", "", "chords", "melody")
    names = {"melody": "track-0", "chords": "track-1"}
    reference, target = windows.view(table, task, names, max_notes=2)
    expected = windows.view(table, PAIR, max_notes=2)
    assert np.array_equal(reference, expected.reference)
    assert np.array_equal(target, expected.target)
    with pytest.raises(M4MError, match="no part"):
        windows.view(table, task)


def test_dedup_is_the_tasks():
    notes = np.array([[0, 2, 60, 0, 80, 0], [0, 8, 60, 0, 80, 0]], np.int32)
    table = NoteTable(notes, (Track("", 0),), 4)
    for dedup, count in ((False, 2), (True, 1)):
        rows = windows.view(table, Task("t", "", None, "all", dedup=dedup)).target
        assert (rows[0, :, 0] < 128).sum() == count


def test_the_reference_is_reduced_and_the_target_is_not():
    table = on_drums(song(0, tracks=3))
    task = Task("t", "", "from-1", "track-0", 4, harmony_by_quarter=True)
    plain = windows.view(table, dataclasses.replace(task, harmony_by_quarter=False))
    reference, target = windows.view(table, task)
    assert np.array_equal(target, plain.target)
    chords = table.notes[table.notes[:, 5] == 1]
    heard = harmony_by_quarter(chords, table.length)
    assert np.array_equal(reference, to_rows(heard, table.length, 4))
    assert set(reference[..., 0].ravel()) == {0, 254, 255}
    assert 127 in plain.reference[..., 0]


def test_songs_of_drums_alone_have_no_harmony():
    drums = Task("t", "", "track-1", "track-0", harmony_by_quarter=True)
    found = eligible([song(0), on_drums(song(1))], drums)
    assert found.indices.tolist() == [0]
    assert found.left_out == {"an empty part": 1}


def test_streams_are_compressed_each_by_its_ratio():
    table = song(0)
    table = table.replace(notes=table.notes[table.notes[:, 0] < 125], length=125)
    whole = windows.view(table, PAIR)
    task = dataclasses.replace(PAIR, compress=Compression(reference=4, target=2))
    reference, target = windows.view(table, task)
    assert (len(reference), len(target)) == (32, 63)
    assert np.array_equal(reference, compress_rows(whole.reference, 4))
    assert np.array_equal(target, compress_rows(whole.target, 2))


def test_songs_without_a_note_on_the_steps_kept_are_left_out():
    table = song(0)
    notes = table.notes.copy()
    notes[:, 0] |= 1
    late = table.replace(notes=notes)
    task = dataclasses.replace(PAIR, compress=Compression(target=2))
    found = eligible([table, late], task)
    assert found.indices.tolist() == [0]
    assert found.left_out == {"an empty part": 1}
    assert eligible([table, late], PAIR).indices.tolist() == [0, 1]


def test_a_random_split_is_the_songs_own():
    task = Task("split", "", "random-0", "random-1")
    tables = [song(seed, tracks=5) for seed in range(12)]
    splits = []
    for table in tables:
        first, second = windows.parts(table, task), windows.parts(table, task)
        assert np.array_equal(first, second)
        given, written = first
        assert np.array_equal(given, ~written)
        # What a model is given, and judged against, is what it was trained on.
        assert select(table, "random-0") == table.replace(notes=windows.shown(table.notes, given))
        assert select_notes(table, "random-1", "x") == select(table, "random-1")
        assert given.any()
        assert written.any()
        splits.append(tuple(given))
    assert len(set(splits)) > 3


def test_a_random_split_is_the_same_in_the_common_key():
    """Which is that of the part given, and does not change what is given."""
    task = Task("split", "", "random-0", "random-1", common_key=True)
    keys = set()
    for seed in range(12):
        table = song(seed, tracks=5)
        given, written = windows.parts(table, task)
        reference, target = windows.streams(table, task)
        key = to_common_key(windows.shown(table.notes, given))
        keys.add(key)
        assert np.array_equal(reference, moved(table, key).notes[given[table.notes[:, 5]]])
        assert np.array_equal(target, moved(table, key).notes[written[table.notes[:, 5]]])
    assert len(keys) > 2


def test_eligible_songs():
    songs = [song(0), song(1, bars=2), empty(), song(2, tracks=1), song(3)]
    found = eligible(songs, PAIR, min_steps=128)
    assert found.indices.tolist() == [0, 4]
    assert found.indices.dtype == np.int64
    assert found.left_out == {"too short": 1, "an empty part": 1, "no such part": 1}
    assert eligible(songs, PAIR).indices.tolist() == [0, 1, 4]


def test_songs_that_cannot_be_split():
    songs = [song(0), song(1, tracks=1), song(2, bars=2)]
    found = eligible(songs, get_task("random-split"), min_steps=128)
    assert found.indices.tolist() == [0]
    assert found.left_out == {"no such split": 1, "too short": 1}
    assert found.summary() == "1 of 3 songs; no such split: 1; too short: 1"
    slow = songs[0].notes.copy()
    slow[:, 0] -= slow[:, 0] % 4
    found = eligible([songs[0].replace(notes=slow), *songs], get_task("density-split"))
    assert found.indices.tolist() == [1, 3]
    assert found.left_out == {"no such split": 2}
    assert eligible(songs[:1], PAIR).summary() == "1 of 1 songs"


@pytest.mark.parametrize("songs", [[], [song(1, bars=2)], [song(0, tracks=1)]])
def test_no_song_is_left(songs):
    with pytest.raises(M4MError, match="task pair: no song") as error:
        eligible(songs, PAIR, min_steps=128)
    assert "\n" not in str(error.value)
    short = any(table.length < 128 for table in songs)
    assert ("windows have 128 steps" in str(error.value)) == short


def test_shift_range_is_the_whole_songs_cut():
    assert windows.shift_range(song(0).notes, (-5, 6)) == (-5, 6)
    notes = np.array([[0, 1, 2, 0, 80, 0], [0, 1, 124, 0, 80, 1]], np.int32)
    table = NoteTable(notes, (Track("", 0), Track("", 0)), 4)
    assert windows.shift_range(table.notes, (-5, 6)) == (-2, 3)
    assert windows.shift_range(table.notes, (-1, 5)) == (-1, 3)
    assert windows.shift_range(table.notes, (0, 0)) == (0, 0)


def test_draws_cover_what_is_allowed():
    rng = np.random.default_rng(0)
    draws = [windows.draw(100, 90, rng, shifts=(-2, 1)) for _ in range(500)]
    assert {d.start for d in draws} == set(range(11))
    assert {d.shift for d in draws} == {-2, -1, 0, 1}
    strided = [windows.draw(100, 90, rng, stride=4) for _ in range(100)]
    assert {d.start for d in strided} == {0, 4, 8}
    assert {d.shift for d in strided} == {0}
    assert windows.draw(50, 90, rng) == Draw(0, 0)
    assert windows.draw(90, 90, rng) == Draw(0, 0)


def test_draws_among_given_starts():
    rng, starts = np.random.default_rng(0), np.array([-8, 4, 16, 24, 40])
    draws = [windows.draw(100, 76, rng, starts=starts) for _ in range(100)]
    assert {d.start for d in draws} == {-8, 4, 16, 24}
    assert windows.draw(50, 76, rng, starts=starts) == Draw(-8, 0)


def test_starts_are_bar_lines():
    table = song(0, bars=2)
    assert windows.whole_bars(table, 48).tolist() == [0, 16]
    triple = table.replace(meters=np.array([[0.0, 6.0, 8.0]]))
    assert windows.whole_bars(triple, 48).tolist() == [0, 12, 24]
    assert windows.whole_bars(triple, 48, 8).tolist() == [0, 24]
    assert windows.whole_bars(empty(0), 48).tolist() == [0]


def test_songs_that_begin_with_part_of_a_bar():
    table = song(0, bars=3).replace(meters=np.array([[0.0, 1.0, 4.0], [4.0, 4.0, 4.0]]))
    assert windows.whole_bars(table, 48).tolist() == [-12, 4, 20, 36]
    assert windows.whole_bars(table, 48, 4).tolist() == [-12, 4, 20, 36]
    assert windows.whole_bars(table, 48, 8).tolist() == [0]
    assert windows.whole_bars(song(0, bars=1), 48).tolist() == [0]
    # A bar that no window can hold is left as it is.
    assert windows.whole_bars(table, 16).tolist() == [-12, 4, 20, 36]
    assert windows.whole_bars(table, 15).tolist() == [0, 4, 20, 36]
    # Where a longer bar is followed by a shorter one, nothing is missing.
    waltz = table.replace(meters=np.array([[0.0, 4.0, 4.0], [16.0, 3.0, 4.0]]))
    assert windows.whole_bars(waltz, 48).tolist() == [0, 16, 28, 40]


@pytest.mark.parametrize("ratio", [1, 2, 4])
@pytest.mark.parametrize("vocabulary", [PLAIN, VELOCITY])
def test_a_window_is_that_stretch_of_the_moved_song(vocabulary, ratio):
    table = song(0)
    drums = table.notes.copy()
    drums[:, [2, 3, 5]] = [40, 127, 2]
    notes = np.concatenate([table.notes, drums])
    moved = notes.copy()
    moved[: len(table.notes), 2] += 3
    for before, shift in ((notes, 0), (moved, 3)):
        rows = compress_rows(to_rows(before, 128, 4), ratio)
        expected = to_tokens(rows, vocabulary)[40 // ratio : 60 // ratio]
        found = encode(windows.cut(notes, Draw(40, shift), 20), 20, 4, vocabulary, ratio=ratio)
        assert np.array_equal(found, expected)
    assert table == song(0)


def test_a_short_song_is_filled_with_empty_rows():
    table = song(0, bars=2)
    found = encode(windows.cut(table.notes, Draw(0, 0), 50), 50, 4)
    assert np.array_equal(found, to_tokens(to_rows(table.notes, 50, 4)))
