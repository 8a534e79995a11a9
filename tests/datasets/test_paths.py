"""Data sets where libraries without etils cannot open files."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from etils import epath

from m4m_jax import datasets
from m4m_jax.config import make_config
from m4m_jax.data import dataset, eligibility, usable_songs
from m4m_jax.data.inspect import inspect
from m4m_jax.datasets.records import local_folder, read_records, write_records
from m4m_jax.errors import M4MError
from m4m_jax.music import get_task, midi_bytes
from tests import remote
from tests.datasets.music import song

NAME = "midi_folder/mine"


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    (tmp_path / "buckets").mkdir()
    monkeypatch.setenv(remote.FOLDER, os.fspath(tmp_path / "buckets"))
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / "cache"))
    # Whoever takes a name in the bucket for a local one leaves traces here.
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield epath.Path("bucket://music")
    assert not list((tmp_path / "here").iterdir())


@pytest.fixture
def source(bucket):
    folder = bucket / "songs"
    for seed in range(40):
        (folder / f"{seed % 3}" / f"song{seed:02}.mid").write_bytes(midi_bytes(song(seed)))
    (folder / "damaged.mid").write_bytes(b"MThd")
    return folder


@pytest.fixture
def local(source, tmp_path):
    folder = tmp_path / "songs"
    for path in source.glob("*/*.mid"):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / path.parent.name / path.name).write_bytes(path.read_bytes())
    (folder / "damaged.mid").write_bytes(b"MThd")
    return folder


def shards_of(data_dir):
    directory = datasets.info(NAME, data_dir).directory
    return {p.name: p.read_bytes() for p in directory.iterdir() if ".array_record" in p.name}


def songs_of(data_dir):
    splits = [datasets.open_split(NAME, split, data_dir) for split in ("train", "validation")]
    return [split.song(i) for split in splits for i in range(len(split))]


@pytest.mark.parametrize("where", ["source", "data", "both"])
def test_a_data_set_in_a_bucket(bucket, source, local, tmp_path, where):
    files = local if where == "data" else source
    data = tmp_path / "data" if where == "source" else bucket / "data"
    report = datasets.build(NAME, files, data, workers=2)
    plain = datasets.build(NAME, local, tmp_path / "plain", workers=2)
    assert (report.rejected, report.splits) == (plain.rejected, plain.splits)
    assert shards_of(data) == shards_of(tmp_path / "plain")
    assert songs_of(data) == songs_of(tmp_path / "plain")
    assert datasets.info(NAME, data).report == report
    assert datasets.is_built(NAME, data)
    assert [path.name for path in data.iterdir()] == ["midi_folder"]


def test_windows_of_a_data_set_in_a_bucket(bucket, source, tmp_path, monkeypatch):
    """They are those of the songs; what was found usable is kept in the bucket too."""
    datasets.build(NAME, source, bucket / "data", workers=1)
    train = datasets.open_split(NAME, "train", bucket / "data")
    task = get_task("chord-to-melody")
    options = {"batch_size": 4, "window": 100, "seed": 3}
    tables = list(train)
    stored, direct = (dataset(songs, task, **options) for songs in (train, tables))
    for k in range(4):
        for key, values in direct[k].items():
            assert np.array_equal(stored[k][key], values), key
    directory = datasets.info(NAME, bucket / "data").directory
    assert len(list(directory.glob("usable-*.npz"))) == 1
    monkeypatch.setattr(eligibility, "survey", None)
    assert usable_songs(train, task, window=100).left_out == {}
    fields = {"data": NAME, "task": task.name, "window": 100, "batch": 4}
    lines = inspect(make_config(fields, "the test"), bucket / "data")
    assert lines[0].startswith(f"{NAME}: 40 songs")


def test_it_is_replaced_and_read_anew(bucket, source):
    data = bucket / "data"
    before = datasets.build(NAME, source, data, workers=1)
    train = datasets.open_split(NAME, "train", data)
    assert len(pickle.loads(pickle.dumps(train))) == len(train)
    (source / "0" / "song00.mid").unlink()
    (source / "0" / "song99.mid").write_bytes(midi_bytes(song(99)))
    after = datasets.build(NAME, source, data, workers=1)
    assert after.kept == before.kept == 40
    names = {stored.name for stored in songs_of(data)}
    assert "0/song99.mid" in names or after.splits["test"] > before.splits["test"]
    assert "0/song00.mid" not in names


def test_a_build_that_stops_goes_on(bucket, source):
    data = bucket / "data"

    def stop(done, *_):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        datasets.build(NAME, source, data, workers=1, progress=stop)
    assert not datasets.is_built(NAME, data)
    seen = []
    datasets.build(NAME, source, data, workers=1, progress=lambda done, *_: seen.append(done))
    assert seen[0] > 20
    datasets.build(NAME, source, bucket / "other", workers=1)
    assert shards_of(data) == shards_of(bucket / "other")


def test_one_that_is_copied_half_is_none(bucket, source, monkeypatch):
    data = bucket / "data"
    copied = []

    def fail(self, dst, overwrite=False):
        if len(copied) == 3:
            raise OSError(5, "Input/output error")
        copied.append(copy(self, dst))

    copy = remote.BucketPath.copy
    with monkeypatch.context() as patch:
        patch.setattr(remote.BucketPath, "copy", fail)
        with pytest.raises(M4MError, match="Input/output error"):
            datasets.build(NAME, source, data, workers=1)
    assert not datasets.is_built(NAME, data)
    with pytest.raises(M4MError, match="has not been built"):
        datasets.open_split(NAME, "train", data)
    datasets.build(NAME, source, data, workers=1)
    assert datasets.is_built(NAME, data)


def test_records_anywhere(bucket, tmp_path):
    for folder in (bucket, tmp_path):
        path = folder / "records"
        with write_records(path) as write:
            for k in range(5):
                write(bytes([k]))
        assert list(read_records(path, [4, 0])) == [b"\x04", b"\x00"]
        with pytest.raises(ZeroDivisionError), write_records(folder / "half") as write:
            write(bytes([1 // 0]))
        assert not epath.Path(folder / "half").exists()
        with pytest.raises(OSError, match="No such file"):
            list(read_records(folder / "nowhere", [0]))


def test_a_copy_is_made_once(bucket, tmp_path):
    for name in ("a", "metadata.json"):
        (bucket / "set" / name).write_bytes(name.encode())
    copy = local_folder(bucket / "set")
    assert (epath.Path(copy) / "a").read_bytes() == b"a"
    (bucket / "set" / "a").unlink()
    assert local_folder(bucket / "set") == copy
    assert local_folder(tmp_path) == os.fspath(tmp_path)
