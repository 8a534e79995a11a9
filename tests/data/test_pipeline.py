from __future__ import annotations

import dataclasses
import pickle

import cloudpickle
import numpy as np
import pytest

from m4m_jax import data, datasets
from m4m_jax.data import pipeline, windows
from m4m_jax.data.windows import Draw
from m4m_jax.errors import M4MError
from m4m_jax.music import (
    PLAIN,
    VELOCITY,
    Compression,
    Task,
    compress_rows,
    get_task,
    shift_tokens,
    to_rows,
    to_tokens,
    write_midi,
)
from m4m_jax.music.keys import moved, to_common_key
from m4m_jax.music.labels import Label, beats_to_notes, chord_label, chords_to_notes
from m4m_jax.music.notes import NoteTable
from m4m_jax.music.parts import select
from m4m_jax.music.reduction import reduced, struck
from tests.datasets.music import song

PAIR = Task("pair", "", "track-1", "track-0", max_notes=4)
# 3, 11: too short for the window of 100 steps.
SONGS = [song(seed, bars=2 if seed in (3, 11) else 8 + seed % 3) for seed in range(21)]
USABLE = [index for index in range(21) if index not in (3, 11)]
OPTIONS = {"batch_size": 8, "window": 100, "seed": 5}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].dtype == other[key].dtype == np.int32
        assert np.array_equal(one[key], other[key]), key


def test_a_batch_holds_the_windows_that_it_names():
    batch = data.dataset(SONGS, PAIR, **OPTIONS)[3]
    assert {key: value.shape for key, value in batch.items()} == {
        "reference": (8, 100, 8),
        "target": (8, 100, 8),
        "component": (8,),
        "song": (8,),
        "start": (8,),
        "shift": (8,),
    }
    for b in range(8):
        where = Draw(int(batch["start"][b]), int(batch["shift"][b]))
        view = windows.view(SONGS[batch["song"][b]], PAIR)
        for key, rows in view._asdict().items():
            moved = shift_tokens(to_tokens(rows)[where.start : where.start + 100], where.shift)
            assert np.array_equal(batch[key][b], moved), key


def test_both_streams_move_together():
    for batch in (data.dataset(SONGS, PAIR, **OPTIONS)[k] for k in range(5)):
        for b, (index, shift) in enumerate(zip(batch["song"], batch["shift"], strict=True)):
            for key, track in (("reference", 1), ("target", 0)):
                seen = batch[key][b]
                pitches = set((seen[(seen >= 128) & (seen < PLAIN.sos)] % 128).tolist())
                notes = SONGS[index].notes
                own = set((notes[notes[:, 5] == track, 2] + shift).tolist())
                assert pitches
                assert pitches <= own


def test_a_language_model_has_no_reference():
    batch = data.dataset(SONGS, get_task("continuation"), **OPTIONS)[0]
    assert "reference" not in batch
    assert batch["target"].shape == (8, 100, 32)


def test_options_of_the_encoding():
    batch = data.dataset(SONGS, PAIR, max_notes=2, vocabulary=VELOCITY, **OPTIONS)[0]
    assert batch["target"].shape == (8, 100, 4)
    assert batch["target"].max() == VELOCITY.pad


def test_an_epoch_takes_one_window_of_every_usable_song():
    stream = data.dataset(SONGS, PAIR, **OPTIONS)
    order = np.concatenate([stream[k]["song"] for k in range(8)])[: 3 * len(USABLE)]
    epochs = order.reshape(3, len(USABLE))
    for epoch in epochs:
        assert sorted(epoch.tolist()) == USABLE
    assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize("limits", [(-5, 6), (-2, 0), (0, 0)])
def test_windows_begin_anywhere_and_move_within_limits(limits):
    options = {**OPTIONS, "window": 124, "pitch_shift": limits}
    stream = data.dataset(SONGS, PAIR, **options)
    batches = [stream[k] for k in range(150)]
    songs, starts, shifts = (
        np.concatenate([batch[key] for batch in batches]) for key in ("song", "start", "shift")
    )
    assert set(starts[songs == USABLE[0]].tolist()) == {0, 1, 2, 3, 4}
    assert set(shifts.tolist()) == set(range(limits[0], limits[1] + 1))


@pytest.mark.parametrize(
    ("ratio", "window", "wanted"), [(1, 60, {0, 12, 24, 36, 52, 68}), (8, 56, {0, 24})]
)
@pytest.mark.parametrize("train", [True, False])
def test_windows_begin_on_bars_when_asked(ratio, window, wanted, train):
    songs = [song(0).replace(meters=np.array([[0, 3, 4], [36, 4, 4]], float))]
    task = dataclasses.replace(PAIR, compress=Compression(ratio, ratio))
    options = {**OPTIONS, "window": window, "starts": "bars", "train": train}
    stream = data.dataset(songs, task, **options, **({} if train else {"num_batches": 20}))
    assert set(np.concatenate([stream[k]["start"] for k in range(20)]).tolist()) == wanted


def test_a_song_that_begins_with_part_of_a_bar_is_heard_from_the_whole_bar():
    pickup = song(0).replace(meters=np.array([[0, 1, 4], [4, 4, 4]], float))
    batch = data.dataset([pickup], PAIR, **OPTIONS | {"starts": "bars"})[0]
    assert set(batch["start"].tolist()) == {-12, 4, 20}
    rows, moved = windows.view(pickup, PAIR).target, batch["shift"]
    for b in np.flatnonzero(batch["start"] == -12):
        silent = to_tokens(to_rows(pickup.notes[:0], 12, 4))
        begun = shift_tokens(to_tokens(rows[:88]), int(moved[b]))
        assert np.array_equal(batch["target"][b], np.concatenate([silent, begun]))


def test_the_seed_decides():
    first = data.dataset(SONGS, PAIR, **OPTIONS)
    again = data.dataset(SONGS, PAIR, **OPTIONS)
    other = data.dataset(SONGS, PAIR, **{**OPTIONS, "seed": 6})
    for k in (0, 7):
        assert_equal(first[k], again[k])
        assert not np.array_equal(first[k]["song"], other[k]["song"])


@pytest.mark.parametrize("hosts", [2, 4, 8])
@pytest.mark.parametrize("train", [True, False])
def test_the_hosts_batches_together_are_the_global_batch(hosts, train):
    options = {**OPTIONS, "train": train}
    whole = data.dataset(SONGS, PAIR, **options)
    shares = [data.dataset(SONGS, PAIR, host=h, hosts=hosts, **options) for h in range(hosts)]
    # Into the second epoch and the third.
    for k in range(8 if train else len(whole)):
        parts = [share[k] for share in shares]
        assert all(len(part["song"]) == 8 // hosts for part in parts)
        assert_equal({key: np.concatenate([p[key] for p in parts]) for key in parts[0]}, whole[k])
    assert {len(share) for share in shares} == {len(whole)}


def test_a_restored_iterator_goes_on_exactly():
    expected = [data.dataset(SONGS, PAIR, **OPTIONS)[k] for k in range(12)]
    iterator = data.batches(SONGS, PAIR, **OPTIONS)
    for k in range(5):
        assert_equal(next(iterator), expected[k])
    state = pickle.loads(pickle.dumps(iterator.get_state()))
    for k in range(5, 9):
        assert_equal(next(iterator), expected[k])
    other = data.batches(SONGS, PAIR, **OPTIONS)
    next(other)
    other.set_state(state)
    for k in range(5, 12):
        assert_equal(next(other), expected[k])


def test_the_state_is_the_step_on_any_number_of_hosts():
    iterator = data.batches(SONGS, PAIR, **OPTIONS)
    for _ in range(6):
        next(iterator)
    state = iterator.get_state()
    assert state == {"next_index": 6}
    halves = []
    for host in range(2):
        half = data.batches(SONGS, PAIR, host=host, hosts=2, **OPTIONS)
        half.set_state(state)
        halves.append(next(half))
    both = {key: np.concatenate([h[key] for h in halves]) for key in halves[0]}
    assert_equal(both, next(iterator))


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_threads_change_nothing(threads):
    stream = data.dataset(SONGS, PAIR, **OPTIONS)
    iterator = data.batches(SONGS, PAIR, start_step=2, threads=threads, **OPTIONS)
    for k in range(2, 10):
        assert_equal(next(iterator), stream[k])


def test_validation_is_the_same_every_time():
    options = {**OPTIONS, "train": False}
    first = list(data.batches(SONGS, PAIR, **options))
    again = list(data.batches(SONGS, PAIR, **options))
    assert len(first) == len(again) == 3  # 19 songs in batches of 8
    for one, other in zip(first, again, strict=True):
        assert_equal(one, other)
    assert {int(s) for batch in first for s in batch["song"]} == set(USABLE)
    assert not any(batch["shift"].any() for batch in first)
    assert len({int(s) for batch in first for s in batch["start"]}) > 5


def test_validation_of_a_given_number_of_batches():
    few = list(data.batches(SONGS, PAIR, train=False, num_batches=2, **OPTIONS))
    many = list(data.batches(SONGS, PAIR, train=False, num_batches=7, **OPTIONS))
    assert (len(few), len(many)) == (2, 7)
    for one, other in zip(few, many, strict=False):
        assert_equal(one, other)


@pytest.mark.parametrize(("reference", "target"), [(4, 1), (1, 2), (2, 4), (4, 4)])
def test_compressed_streams(reference, target):
    """The same windows as without, wherever they start at a step that both streams keep."""
    ratios = Compression(reference, target)
    task = dataclasses.replace(PAIR, compress=ratios)
    stream = data.dataset(SONGS, task, **OPTIONS)
    batches = [stream[k] for k in range(20)]
    assert batches[0]["reference"].shape == (8, 100 // reference, 8)
    assert batches[0]["target"].shape == (8, 100 // target, 8)
    starts = np.concatenate([batch["start"] for batch in batches])
    assert not (starts % ratios.stride).any()
    assert len(set(starts.tolist())) > 20 // ratios.stride
    for b in range(8):
        view = windows.view(SONGS[batches[0]["song"][b]], PAIR)
        start, shift = int(batches[0]["start"][b]), int(batches[0]["shift"][b])
        for key, ratio in (("reference", reference), ("target", target)):
            rows = getattr(view, key)[start : start + 100]
            expected = shift_tokens(to_tokens(compress_rows(rows, ratio)), shift)
            assert np.array_equal(batches[0][key][b], expected), key


def test_no_compression_changes_nothing():
    task = dataclasses.replace(PAIR, compress=Compression(1, 1))
    for k in range(3):
        assert_equal(
            data.dataset(SONGS, task, **OPTIONS)[k], data.dataset(SONGS, PAIR, **OPTIONS)[k]
        )


def test_short_songs_are_filled_up_when_asked():
    stream = data.dataset(SONGS, PAIR, pad_short=True, **OPTIONS)
    batches = [stream[k] for k in range(3)]
    seen = {int(s) for batch in batches for s in batch["song"]}
    assert {3, 11} <= seen
    for batch in batches:
        for b in np.flatnonzero(np.isin(batch["song"], (3, 11))):
            assert batch["start"][b] == 0
            assert (batch["target"][b, 32:, 0] == PLAIN.eos).all()
            assert (batch["target"][b, 32:, 1:] == PLAIN.pad).all()


def test_the_cache_is_bounded_and_changes_nothing():
    bounded = pipeline._Views(SONGS, PAIR, None, capacity=6_000)
    ample = pipeline._Views(SONGS, PAIR, None)
    for index in [0, 1, 2, 0, 4, 5, 0]:
        assert np.array_equal(bounded[index].target, ample[index].target)
        kept = list(bounded._kept.values())
        assert sum(song.nbytes for song in kept) == bounded._bytes <= 6_000
    assert 0 < len(bounded._kept) < len(ample._kept) == 5
    assert ample[0] is ample[0]


def test_the_stream_goes_to_worker_processes():
    stream = data.dataset(SONGS, PAIR, **OPTIONS)
    fresh = len(cloudpickle.dumps(stream))
    expected = [stream[k] for k in range(6)]
    sent = cloudpickle.dumps(stream)
    assert len(sent) < fresh + 5_000  # what is cached stays behind
    assert_equal(cloudpickle.loads(sent)[5], expected[5])


def test_songs_are_whole_and_usable():
    found = list(data.songs([*SONGS, song(30, tracks=1)], PAIR, min_steps=100))
    assert [index for index, _ in found] == USABLE
    for index, view in found:
        assert len(view.target) == len(view.reference) == SONGS[index].length


def test_what_has_been_found_usable_is_taken():
    usable = data.usable_songs(SONGS, PAIR, window=100)
    assert usable.left_out == {"too short": 2}
    given = data.dataset(SONGS, PAIR, usable=usable, **OPTIONS)
    assert_equal(given[1], data.dataset(SONGS, PAIR, **OPTIONS)[1])


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"hosts": 3}, "does not divide"),
        ({"host": 2, "hosts": 2}, "host 2"),
        ({"batch_size": 0}, "batch size"),
        ({"window": 0}, "window"),
        ({"seed": -1}, "seed"),
        ({"starts": "beats"}, "starts='beats' is not known; choose from anywhere, bars"),
        ({"window": 1000}, "no song"),
    ],
)
def test_options_that_do_not_fit(change, wanted):
    with pytest.raises(M4MError, match=wanted):
        data.dataset(SONGS, PAIR, **{**OPTIONS, **change})


def test_a_window_must_hold_whole_compressed_steps():
    task = dataclasses.replace(PAIR, compress=Compression(target=8))
    with pytest.raises(M4MError, match="window of 100 steps is no multiple of the compression 8"):
        data.dataset(SONGS, task, **OPTIONS)


def test_from_files_to_batches(tmp_path):
    for number, table in enumerate(SONGS):
        write_midi(table, tmp_path / f"{number:02}.mid")
    datasets.build("midi_folder", tmp_path, tmp_path / "data", workers=1, quality=False)
    train = datasets.open_split("midi_folder", "train", tmp_path / "data")
    tables = list(train)
    stored = data.dataset(train, PAIR, **OPTIONS)
    direct = data.dataset(tables, PAIR, **OPTIONS)
    for k in range(4):
        assert_equal(stored[k], direct[k])


def windows_of(batches) -> list[tuple[int, ...]]:
    """What was read, in order: component, song, start, shift."""
    columns = (np.concatenate([b[k] for b in batches]) for k in IDENTITY)
    return list(zip(*(column.tolist() for column in columns), strict=True))


IDENTITY = ("component", "song", "start", "shift")


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 2), (2, 1)])
def test_no_window_is_repeated_or_lost_on_another_number_of_hosts(before, after):
    """Three batches on some hosts, then stopped; the rest of two epochs on others.

    With as many threads as hosts.
    """

    def read(hosts, position, steps):
        options = OPTIONS | {"hosts": hosts, "threads": hosts}
        shares = [data.batches(SONGS, PAIR, host=h, **options) for h in range(hosts)]
        for share in shares:
            share.set_state(position)
        found = [next(share) for _ in range(steps) for share in shares]
        (state,) = {str(share.get_state()): share.get_state() for share in shares}.values()
        return windows_of(found), state

    first, position = read(before, {"next_index": 0}, 3)
    rest, _ = read(after, position, 2)
    whole, _ = read(1, {"next_index": 0}, 5)
    assert first + rest == whole
    epochs = [[window[1] for window in whole[k : k + len(USABLE)]] for k in (0, len(USABLE))]
    assert [sorted(epoch) for epoch in epochs] == [USABLE, sorted(epochs[1])]
    assert len(set(epochs[1])) == len(epochs[1])
    assert len(set(whole)) == len(whole)


DRUMS = [song(seed, tracks=3, bars=9) for seed in range(100, 107)]
OTHER = Task("other", "", "track-2", "from-1", max_notes=2)
MIXED = [data.Component(SONGS, PAIR, 2.0), data.Component(DRUMS, OTHER, 1.0)]


def test_a_mixture_of_one_is_the_data_set_itself():
    one = data.mixture([data.Component(SONGS, PAIR, 7.0)], **OPTIONS)
    for k in (0, 5):
        assert_equal(one[k], data.dataset(SONGS, PAIR, **OPTIONS)[k])


def test_components_take_turns_by_weight():
    stream = data.mixture(MIXED, **OPTIONS)
    order = np.concatenate([stream[k]["component"] for k in range(30)])
    ahead = np.cumsum(order == 0) - np.arange(1, len(order) + 1) * 2 / 3
    assert np.abs(ahead).max() <= 1
    uneven = [data.Component(SONGS, PAIR, 1.0), data.Component(DRUMS, OTHER, 0.03)]
    stream = data.mixture(uneven, **OPTIONS)
    order = np.concatenate([stream[k]["component"] for k in range(60)])
    assert order.sum() == pytest.approx(480 * 0.03 / 1.03, abs=1)


def test_windows_of_a_mixture_are_those_of_their_task():
    """All with the N of the task that has most."""
    batch = data.mixture(MIXED, **OPTIONS)[4]
    assert batch["target"].shape == (8, 100, 8)
    for b in range(8):
        part = MIXED[batch["component"][b]]
        table = part.source[int(batch["song"][b])]
        view = windows.view(table, part.task, max_notes=4)
        start, shift = int(batch["start"][b]), int(batch["shift"][b])
        for key, rows in view._asdict().items():
            expected = shift_tokens(to_tokens(rows[start : start + 100]), shift)
            assert np.array_equal(batch[key][b], expected), key


def test_harmony_is_heard_in_windows_as_in_whole_songs():
    """What a window hears of a song that is moved is what it hears of the song in that key."""
    task = Task("t", "", "from-1", "track-0", max_notes=4, harmony_by_quarter=True)
    bands = [song(seed, tracks=4) for seed in range(6)]
    batch = data.dataset(bands, task, **OPTIONS)[2]
    for b in range(8):
        start, shift = int(batch["start"][b]), int(batch["shift"][b])
        band = bands[batch["song"][b]]
        moved = band.replace(notes=band.notes + np.array([0, 0, shift, 0, 0, 0], np.int32))
        for key, rows in windows.view(moved, task)._asdict().items():
            assert np.array_equal(batch[key][b], to_tokens(rows[start : start + 100])), key
    assert set(batch["shift"].tolist()) > {0}
    assert set(batch["reference"][..., ::2].ravel().tolist()) == {0, PLAIN.eos, PLAIN.pad}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("reference", "key_of"), [("track-1", 1), (None, 0)])
def test_windows_are_in_the_common_key(train, reference, key_of):
    """That of the reference, or of the target where there is none, and shifts are from there."""
    task = Task("t", "", reference, "track-0", max_notes=4, common_key=True)
    batch = data.dataset(SONGS, task, train=train, pitch_shift=(0, 2), **OPTIONS)[1]
    assert set(batch["shift"].tolist()) <= ({0, 1, 2} if train else {0})
    assert batch["shift"].any() == train
    keys = set()
    for b, (index, start, shift) in enumerate(
        zip(batch["song"], batch["start"], batch["shift"], strict=True)
    ):
        key = to_common_key(SONGS[index].notes[SONGS[index].notes[:, 5] == key_of])
        there = moved(moved(SONGS[index], key), int(shift))
        for name, rows in (
            windows.view(there, dataclasses.replace(task, common_key=False))._asdict().items()
        ):
            if rows is not None:
                assert np.array_equal(batch[name][b], to_tokens(rows[start : start + 100]))
        keys.add(key)
    assert len(keys) > 1


def test_chords_of_an_analysis_keep_their_octave():
    """In whatever key a song is, what is learned of it in the common key is the same."""
    task = dataclasses.replace(
        get_task("analysis"), common_key=True, harmony_by_quarter=True, max_notes=8
    )
    music = song(0, tracks=2)
    labels = [Label(k, k + 1.0, f"{root}:min7/b3") for k, root in enumerate(("C", "F", "Ab", "B"))]
    views = []
    for shift in range(-4, 5):
        there = [
            Label(one.start, one.end, chord_label((root + shift) % 12, "min7", 3))
            for one, root in zip(labels, (0, 5, 8, 11), strict=True)
        ]
        chords, _ = chords_to_notes(there, music)
        table = NoteTable.concat([beats_to_notes(music), chords, moved(music, shift)])
        views.append(windows.view(table, task))
    for found in views[1:]:
        for rows, expected in zip(found, views[0], strict=True):
            assert np.array_equal(rows, expected)
    bass = [row[row[:, 0] < 127, 1].min() for row in views[0].target if (row[:, 0] < 127).any()]
    assert 48 <= min(bass) <= max(bass) < 60


def test_where_only_harmony_is_read_chords_are_struck_on_each_quarter():
    """Those that are to be written; those that are given are read as harmony, too."""
    music = song(0, tracks=2)
    chords, _ = chords_to_notes([Label(0, 3, "C"), Label(3, 4, "G:7")], music)
    table = NoteTable.concat([beats_to_notes(music), chords, music])
    task = get_task("analysis")
    plain = windows.streams(table, task)[1]
    read, written = windows.streams(table, dataclasses.replace(task, harmony_by_quarter=True))
    assert np.array_equal(read, reduced(select(table, "from-2")).notes)
    assert np.array_equal(written, struck(select(table, "upto-1")).notes)
    pitched = written[:, 3] != 127
    assert pitched.sum() > (plain[:, 3] != 127).sum()
    assert written[pitched, 1].max() == 4
    given = Task("given", "", "track-1", "from-2", harmony_by_quarter=True, chords="reference")
    read, written = windows.streams(table, given)
    assert np.array_equal(read, reduced(select(table, "track-1")).notes)
    assert np.array_equal(written, select(table, "from-2").notes)


@pytest.mark.parametrize("names", [{}, {"chords": "track-1"}, {"chords": "track-7"}])
def test_a_language_model_reads_named_chords_in_their_octave(names):
    table = song(3, tracks=3)
    if not names:
        melody, chords, others = table.tracks
        chords = dataclasses.replace(chords, name="Chords")
        table = table.replace(tracks=(melody, chords, others))
    task = dataclasses.replace(get_task("continuation"), common_key=True)
    reference, target = windows.streams(table, task, names)
    assert reference is None
    key = to_common_key(table.notes)
    assert key
    chords = np.array([False, names != {"chords": "track-7"}, False])
    assert np.array_equal(target, moved(table, key, chords=chords).notes)
    assert chords.any() != np.array_equal(target, moved(table, key).notes)


def test_each_component_of_a_mixture_has_epochs_of_its_own():
    stream = data.mixture(MIXED, **OPTIONS)
    found = windows_of([stream[k] for k in range(8)])
    first, second = ([w[1] for w in found if w[0] == number] for number in range(2))
    assert sorted(first[: len(USABLE)]) == sorted(first[len(USABLE) : 2 * len(USABLE)]) == USABLE
    assert sorted(second[:7]) == sorted(second[7:14]) == list(range(7))


def test_two_tasks_on_the_same_songs_do_not_take_the_same_windows():
    twice = [data.Component(SONGS, PAIR), data.Component(SONGS, PAIR)]
    stream = data.mixture(twice, **OPTIONS)
    found = windows_of([stream[k] for k in range(8)])
    one, other = ([w[1:] for w in found if w[0] == number] for number in range(2))
    assert one != other
    assert [w[0] for w in one[:19]] != [w[0] for w in other[:19]]


@pytest.mark.parametrize("hosts", [2, 4])
def test_a_mixture_is_the_same_on_any_number_of_hosts_and_after_a_stop(hosts):
    whole = data.mixture(MIXED, **OPTIONS)
    shares = [data.mixture(MIXED, host=h, hosts=hosts, **OPTIONS) for h in range(hosts)]
    for k in (0, 3, 11):
        parts = [share[k] for share in shares]
        assert_equal({key: np.concatenate([p[key] for p in parts]) for key in parts[0]}, whole[k])
    iterator = iter(whole.to_iter_dataset())
    iterator.set_state({"next_index": 9})
    assert_equal(next(iterator), whole[9])


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        (get_task("continuation"), "pair has a reference, continuation has no reference"),
        (dataclasses.replace(PAIR, compress=Compression(2, 1)), "the same compression"),
    ],
)
def test_components_that_do_not_fit_each_other(task, wanted):
    with pytest.raises(M4MError, match=wanted):
        data.mixture([*MIXED, data.Component(SONGS, task)], **OPTIONS)
