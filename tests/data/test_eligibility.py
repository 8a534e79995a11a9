from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from m4m_jax import datasets
from m4m_jax.data import eligibility, usable_songs
from m4m_jax.errors import M4MError
from m4m_jax.music import Compression, Task, write_midi
from tests.datasets.music import song

PAIR = Task("pair", "", "track-1", "track-0", max_notes=4)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "songs").mkdir()
    for seed in range(12):
        bars, tracks = (2 if seed == 3 else 8), (1 if seed == 5 else 2)
        write_midi(song(seed, bars=bars, tracks=tracks), folder / "songs" / f"{seed:02}.mid")
    datasets.build("midi_folder", folder / "songs", folder / "data", workers=1, quality=False)
    return folder / "data"


@pytest.fixture
def train(built):
    songs = datasets.open_split("midi_folder", "train", built)
    for path in kept(songs):
        path.unlink()
    return songs


def kept(songs):
    return sorted(Path(songs.directory).glob("usable-*"))


def not_looked_at(monkeypatch):
    """From now on, looking through songs is an error."""
    monkeypatch.setattr(eligibility, "survey", None)


def test_what_is_found_is_kept_beside_the_data_set(train, monkeypatch):
    first = usable_songs(train, PAIR, window=100)
    assert len(kept(train)) == 1
    not_looked_at(monkeypatch)
    again = usable_songs(train, PAIR, window=100)
    assert np.array_equal(first.indices, again.indices)
    assert first.left_out == again.left_out
    assert list(first.left_out) == list(again.left_out)


def test_one_file_serves_all_windows(train, monkeypatch):
    expected = {
        steps: eligibility.eligible(train, PAIR, min_steps=steps).indices.tolist()
        for steps in (1, 33, 128)
    }
    assert expected[1] != expected[33]
    usable_songs(train, PAIR, window=5)
    not_looked_at(monkeypatch)
    for steps, indices in expected.items():
        assert usable_songs(train, PAIR, window=steps).indices.tolist() == indices
    with pytest.raises(M4MError, match=r"no song of \d+ .*no such part: 1"):
        usable_songs(train, PAIR, window=129)


def test_each_view_has_a_file_of_its_own(train):
    other = dataclasses.replace(PAIR, target="from-0")
    coarse = dataclasses.replace(PAIR, compress=Compression(2, 1))
    for number, task in enumerate([PAIR, other, coarse], start=1):
        usable_songs(train, task, window=1)
        assert len(kept(train)) == number
    usable_songs(train, PAIR, names={"x": "track-0"}, window=1)
    usable_songs(train, dataclasses.replace(PAIR, name="another", max_notes=2), window=1)
    assert len(kept(train)) == 4
    usable_songs(train, dataclasses.replace(PAIR, harmony_by_quarter=True), window=1)
    assert len(kept(train)) == 5


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_file_that_cannot_be_read_is_made_anew(train, content):
    expected = usable_songs(train, PAIR, window=100)
    (path,) = kept(train)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] if content is None else content)
    assert np.array_equal(usable_songs(train, PAIR, window=100).indices, expected.indices)
    assert path.read_bytes() == whole


def test_no_damage_to_a_file_hurts(train, monkeypatch):
    """One bit of it, wherever it is."""
    expected = usable_songs(train, PAIR, window=100)
    (path,) = kept(train)
    whole, anew = path.read_bytes(), eligibility.survey(train, PAIR, train.parts)
    monkeypatch.setattr(eligibility, "survey", lambda *args: anew)
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        found = usable_songs(train, PAIR, window=100)
        assert np.array_equal(found.indices, expected.indices), place
        assert found.left_out == expected.left_out


def test_a_data_set_that_can_only_be_read_serves_too(train, monkeypatch):
    def refuse(path):
        raise M4MError("read-only")

    monkeypatch.setattr(eligibility, "atomic_path", refuse)
    assert len(usable_songs(train, PAIR, window=100).indices)
    assert not kept(train)


def test_a_file_of_songs_that_were_there_before_is_not_taken(train):
    """In a bucket it may have been left behind when the data set was built anew."""
    usable_songs(train, PAIR, window=1)
    path = Path(train.directory) / "metadata.json"
    before = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(before) | {"digest": "another"}))
        usable_songs(train, PAIR, window=1)
        assert len(kept(train)) == 2
    finally:
        path.write_text(before)


def test_a_data_set_that_is_built_anew_is_looked_through_again(tmp_path):
    (tmp_path / "songs").mkdir()
    found = []
    for first in (0, 100):
        for number in range(10):
            write_midi(song(first + number), tmp_path / "songs" / f"{number}.mid")
        datasets.build("midi_folder", tmp_path / "songs", tmp_path / "data", workers=1)
        songs = datasets.open_split("midi_folder", "train", tmp_path / "data")
        found.append(eligibility.find(songs, PAIR, songs.parts).notes.tolist())
        assert found[-1] == [len(table.notes) for table in songs]
    assert found[0] != found[1]


def test_a_long_look_is_shown(train, monkeypatch, capsys):
    usable_songs([song(0)] * 250, PAIR, window=1)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(eligibility, "_MANY", 250)
    usable_songs([song(0)] * 250, PAIR, window=1)
    assert "looking for songs to use 100/250" in capsys.readouterr().out


def test_songs_are_not_held():
    """One song at a time is in memory, whatever the number of them."""
    alive = set()

    class Source:
        parts = None

        def __len__(self):
            return 50

        def __getitem__(self, index):
            assert len(alive) <= 2
            table = song(index % 5)
            alive.add(index)
            import weakref

            weakref.finalize(table, alive.discard, index)
            return table

    assert len(usable_songs(Source(), PAIR, window=100).indices) == 50
