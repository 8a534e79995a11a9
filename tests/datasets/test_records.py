"""Data sets whose files were damaged after they were built."""

from __future__ import annotations

import pickle

import pytest

from m4m_jax import datasets
from m4m_jax.cli import _run
from m4m_jax.errors import M4MError
from m4m_jax.music import write_midi
from tests.datasets.music import song

NAME = "midi_folder/made"


@pytest.fixture
def built(tmp_path):
    (tmp_path / "songs").mkdir()
    for seed in range(12):
        write_midi(song(seed), tmp_path / "songs" / f"{seed}.mid")
    datasets.build(NAME, tmp_path / "songs", tmp_path / "data", workers=1)
    return tmp_path / "data"


def shard(built):
    (path,) = datasets.info(NAME, built).directory.glob("*-train.array_record*")
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def flip(path):
    data = bytearray(path.read_bytes())
    for place in range(70, len(data), 97):
        data[place] ^= 0xFF
    path.write_bytes(data)


def remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [cut, flip, remove])
def test_a_damaged_shard_is_told_in_one_line(built, damage, capsys):
    damage(shard(built))
    songs = datasets.open_split(NAME, "train", built)
    again = rf"remove it, and make it again with m4m data build .* --data-dir {built}$"
    with pytest.raises(M4MError, match=rf"damaged or missing .*; {again}"):
        [songs[k] for k in range(len(songs))]
    assert _run(["data", "inspect", NAME, "--data-dir", str(built)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(built) in line


def test_damaged_metadata_are_told_in_one_line(built):
    path = datasets.info(NAME, built).directory / "metadata.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(M4MError, match="make it again with m4m data build midi_folder --source"):
        datasets.info(NAME, built)


def test_songs_go_to_other_processes(built):
    songs = datasets.open_split(NAME, "train", built)
    again = pickle.loads(pickle.dumps(songs))
    assert [again[k] for k in range(len(again))] == [songs[k] for k in range(len(songs))]


def test_a_place_is_no_name(built, capsys):
    assert _run(["data", "inspect", f"{built}/{NAME}"]) == 2
    assert "where it lives is said with --data-dir" in capsys.readouterr().err
