from __future__ import annotations

import importlib.util
import json
import os
import pickle

import numpy as np
import pytest

from m4m_jax import datasets
from m4m_jax.cli import _run
from m4m_jax.datasets import midi_files, record, store
from m4m_jax.errors import M4MError
from m4m_jax.music import Track, read_midi, write_midi
from tests.datasets import faulty
from tests.datasets.music import song


def write_songs(folder, seeds, prefix="song"):
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        write_midi(song(seed), folder / f"{prefix}{seed:02}.mid")


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "source"
    write_songs(source / "a", range(12))
    write_songs(source / "b" / "c", range(12, 20))
    return source


def files_of(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def stored(name, data_dir):
    splits = {split: datasets.open_split(name, split, data_dir) for split in store.SPLITS}
    return {split: [s.song(i) for i in range(len(s))] for split, s in splits.items()}


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_every_song_is_stored_whole(folder, tmp_path):
    report = datasets.build("midi_folder/mine", folder, tmp_path / "data", workers=2)
    songs = stored("midi_folder/mine", tmp_path / "data")
    assert report.kept == report.files == 20
    assert report.splits == {split: len(found) for split, found in songs.items()}
    everything = {s.name: s for found in songs.values() for s in found}
    assert sorted(everything) == midi_files.midi_names(folder)
    for name, stored_song in everything.items():
        assert stored_song.table == read_midi(folder / name)
        assert stored_song.content == datasets.content_hash(stored_song.table)
    for split, found in songs.items():
        assert [s.name for s in found] == sorted(s.name for s in found)
        assert all(datasets.hash_split(s.content) == split for s in found)


def test_info(folder, tmp_path):
    report = datasets.build("midi_folder/mine", folder, tmp_path, workers=1)
    found = datasets.info("midi_folder/mine", tmp_path)
    assert (found.name, found.parts, found.source) == ("midi_folder/mine", {}, str(folder))
    assert found.splits == report.splits
    assert found.report == report
    assert json.loads((found.directory / "report.json").read_text())["kept"] == 20


def test_records_do_not_depend_on_the_workers(folder, tmp_path):
    datasets.build("midi_folder/mine", folder, tmp_path / "1", workers=1)
    datasets.build("midi_folder/mine", folder, tmp_path / "3", workers=3)
    one, three = (datasets.info("midi_folder/mine", tmp_path / n).directory for n in "13")
    assert files_of(one) == files_of(three)
    assert len(files_of(one)) >= 6


def test_bad_files_are_listed_with_their_reasons(folder, tmp_path):
    good = (folder / "a" / "song00.mid").read_bytes()
    bad = folder / "bad"
    bad.mkdir()
    (bad / "truncated.mid").write_bytes(good[: len(good) // 2])
    (bad / "text.MID").write_text("This is no music.")
    (bad / "empty.midi").write_bytes(b"")
    (bad / "copy.mid").write_bytes(good)
    (bad / "folder.mid").mkdir()
    (bad / "notes.txt").write_text("Not looked at.")
    (bad / ".hidden.mid").write_text("Not looked at.")
    write_midi(song(50, bars=2), bad / "short.mid")
    renamed = song(1)
    renamed = renamed.replace(tracks=tuple(Track("x", t.program) for t in renamed.tracks))
    write_midi(renamed, bad / "renamed.mid")
    report = datasets.build("midi_folder", folder, tmp_path / "data", workers=2)
    assert report.kept == 20
    assert report.files == 27
    reasons = {
        reason: {name.removeprefix("bad/") for name in files}
        for reason, files in report.rejected.items()
    }
    assert reasons == {
        "unreadable": {"truncated.mid", "text.MID", "empty.midi", "folder.mid"},
        "duplicate": {"copy.mid", "renamed.mid"},
        "too short": {"short.mid"},
    }
    assert report.rejected["duplicate"]["bad/copy.mid"].endswith("a/song00.mid")
    lines = report.summary()
    assert lines[0].startswith("midi_folder/default: 20 of 27 files kept")
    [unreadable] = [line for line in lines if "unreadable: 4" in line]
    assert "(such as bad/empty.midi: " in unreadable
    assert unreadable.count("bad/empty.midi") == 1


def test_names_that_no_terminal_can_show(tmp_path):
    source = tmp_path / "source"
    write_songs(source, [0])
    name = os.fsdecode(b"bad \xff\n name.mid")
    (source / name).write_bytes(b"no music")
    write_midi(song(1), source / f"good {name}")
    report = datasets.build("midi_folder", source, tmp_path / "data", workers=1)
    assert list(report.rejected["unreadable"]) == [name]
    assert all(line.isprintable() for line in report.summary())
    assert datasets.info("midi_folder", tmp_path / "data").report == report
    songs = stored("midi_folder", tmp_path / "data")
    assert f"good {name}" in {s.name for found in songs.values() for s in found}


def test_the_quality_filter_can_be_left_out(tmp_path):
    write_midi(song(0, bars=2), tmp_path / "short.mid")
    with pytest.raises(M4MError, match="too short"):
        datasets.build("midi_folder", tmp_path, tmp_path / "data", workers=1)
    report = datasets.build("midi_folder", tmp_path, tmp_path / "data", workers=1, quality=False)
    assert report.kept == 1


def test_a_parser_that_crashes_or_hangs_costs_only_its_file(folder, tmp_path, monkeypatch):
    from m4m_jax.datasets.midi_folder import midi_folder_dataset_builder as builder

    monkeypatch.setattr(builder, "read_midi_file", faulty.read)
    write_midi(song(60), folder / "aborts.mid")
    write_midi(song(61), folder / "hangs.mid")
    report = datasets.build("midi_folder", folder, tmp_path / "data", workers=2, time_limit=3)
    assert report.kept == 20
    assert report.rejected == {
        "crashed the parser": {"aborts.mid": "ended by SIGABRT"},
        "timed out": {"hangs.mid": "not done after 3 s"},
    }


def test_progress_reaches_the_end(folder, tmp_path):
    seen = []
    datasets.build("midi_folder", folder, tmp_path, workers=2, progress=lambda *a: seen.append(a))
    read = [(done, total) for done, total, stage in seen if stage == "files read"]
    written = [(done, total) for done, total, stage in seen if stage == "songs written"]
    assert seen == [(*r, "files read") for r in read] + [(*w, "songs written") for w in written]
    assert read == [(done, 20) for done in range(1, 21)]
    assert [done for done, _ in written] == sorted(done for done, _ in written)
    assert {total for _, total in written} == {20}
    assert written[-1] == (20, 20)


def test_building_again_replaces(folder, tmp_path):
    datasets.build("midi_folder", folder, tmp_path / "data", workers=1)
    write_songs(folder, [70])
    datasets.build("midi_folder", folder, tmp_path / "data", workers=1)
    assert sum(datasets.info("midi_folder", tmp_path / "data").splits.values()) == 21
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["midi_folder"]


def test_a_data_dir_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(M4MError, match="cannot be written") as error:
            datasets.build("midi_folder", folder, place, workers=1)
        assert one_line(error).startswith(f"{place}: ")
        assert one_line(error).endswith("give another --data-dir")


def test_a_build_that_fails_leaves_no_folder(folder, tmp_path):
    (tmp_path / "text.mid").write_text("no music")
    for source in (tmp_path / "missing", tmp_path / "text.mid"):
        with pytest.raises(M4MError):
            datasets.build("midi_folder", source, tmp_path / "new" / "data", workers=1)
        assert not (tmp_path / "new").exists()
    (tmp_path / "there").mkdir()
    with pytest.raises(M4MError):
        datasets.build("midi_folder", tmp_path / "missing", tmp_path / "there", workers=1)
    assert (tmp_path / "there").is_dir()


def test_the_report_is_named_where_files_are_left_out(folder, tmp_path, capsys):
    words = ["data", "build", "midi_folder", "--source", str(folder), "--workers", "1"]
    words += ["--data-dir", str(tmp_path / "data")]
    assert _run(words) == 0
    assert "report.json" not in capsys.readouterr().out
    (folder / "text.mid").write_text("no music")
    assert _run(words) == 0
    lines = capsys.readouterr().out.splitlines()[-3:]
    directory = tmp_path / "data" / "midi_folder" / "default" / "1.0.0"
    assert lines[0].startswith("  unreadable: 1 (such as text.mid: ")
    assert lines[1:] == [f"  all of these, by file: {directory / 'report.json'}", str(directory)]


def test_folders_side_by_side(folder, tmp_path):
    data = tmp_path / "data"
    datasets.build("midi_folder/a", folder / "a", data, workers=1)
    datasets.build("midi_folder/b", folder / "b", data, workers=1)
    assert sum(datasets.info("midi_folder/a", data).splits.values()) == 12
    assert sum(datasets.info("midi_folder/b", data).splits.values()) == 8
    with pytest.raises(M4MError, match="another --name") as error:
        datasets.build("midi_folder/a", folder / "b", data, workers=1)
    assert str(folder / "a") in one_line(error)


def test_one_song_makes_a_data_set_with_empty_splits(tmp_path):
    write_songs(tmp_path / "one", [0])
    datasets.build("midi_folder", tmp_path / "one", tmp_path / "data", workers=4)
    songs = stored("midi_folder", tmp_path / "data")
    assert sorted(len(found) for found in songs.values()) == [0, 0, 1]


def test_nothing_to_build_from(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "text.mid").write_text("no music")
    for source, wanted in {
        "missing": "no such folder",
        "empty": "no MIDI file",
        "bad": "none of 1 files can be used (unreadable: 1; such as text.mid:",
    }.items():
        with pytest.raises(M4MError) as error:
            datasets.build("midi_folder", tmp_path / source, tmp_path / "data", workers=1)
        assert wanted in one_line(error)
        assert str(tmp_path / source) in one_line(error)
    assert not datasets.is_built("midi_folder", tmp_path / "data")
    with pytest.raises(M4MError, match="--source DIR"):
        datasets.build("midi_folder", None, tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("midi_foldr", "did you mean midi_folder?"),
        ("midi_folder/", "letters, digits"),
        ("midi_folder/a/b", "letters, digits"),
        ("midi_folder/..", "letters, digits"),
        ("nottingham/mine", "takes no name"),
        ("los_angeles/first", "first_N, such as first_50000"),
        ("los_angeles/first_0", "first_N"),
        ("pop909_cl/mine", "after pop909_cl/ there can be analysis"),
        ("xyz", "there are bach_chorales, nottingham, midi_folder"),
    ],
)
def test_names(name, wanted, tmp_path):
    with pytest.raises(M4MError) as error:
        datasets.build(name, tmp_path, tmp_path / "data")
    assert wanted in one_line(error)


def test_not_built_yet_gives_the_command(tmp_path):
    with pytest.raises(M4MError) as error:
        datasets.open_split("midi_folder/mine", "train", tmp_path)
    command = f"m4m data build midi_folder --source DIR --name mine --data-dir {tmp_path}"
    assert command in one_line(error)
    with pytest.raises(M4MError, match=r"m4m data build bach_chorales --data-dir"):
        datasets.info("bach_chorales", tmp_path)


def test_unknown_split(folder, tmp_path):
    datasets.build("midi_folder", folder, tmp_path, workers=1)
    with pytest.raises(M4MError, match="train, validation, test"):
        datasets.open_split("midi_folder", "valid", tmp_path)


def test_another_record_version_is_refused_with_the_command(folder, tmp_path, monkeypatch):
    datasets.build("midi_folder/mine", folder, tmp_path / "data", workers=1)
    monkeypatch.setattr(record, "RECORD_VERSION", record.RECORD_VERSION + 1)
    with pytest.raises(M4MError, match="record version 1, and this is version 2") as error:
        datasets.open_split("midi_folder/mine", "train", tmp_path / "data")
    assert f"--source {folder} --name mine --data-dir {tmp_path / 'data'}" in one_line(error)
    assert not datasets.is_built("midi_folder/mine", tmp_path / "data")


def test_a_split_pickles_and_checks_its_indices(folder, tmp_path):
    datasets.build("midi_folder", folder, tmp_path, workers=1)
    train = datasets.open_split("midi_folder", "train", tmp_path)
    again = pickle.loads(pickle.dumps(train))
    assert list(again) == list(train)
    assert again.parts == train.parts
    assert train[np.int64(0)] == train.song(0).table
    for index in (-1, len(train)):
        with pytest.raises(IndexError):
            train[index]


def test_tfds_itself_can_build_and_read(folder, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    from m4m_jax.datasets.midi_folder.midi_folder_dataset_builder import Builder

    builder = Builder(config="mine", data_dir=tmp_path)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))
    assert datasets.info("midi_folder/mine", tmp_path).source == str(folder)
    source = tfds.data_source("midi_folder/mine", split="train", data_dir=tmp_path)
    assert source[0]["notes"].shape[1] == 6


def test_tensorflow_is_not_imported_and_the_console_is_left_alone(folder, tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from m4m_jax import datasets;"
        f"datasets.build('midi_folder', {str(folder)!r}, {str(tmp_path)!r}, workers=1);"
        f"datasets.open_split('midi_folder', 'train', {str(tmp_path)!r})[0];"
        "assert not {'tensorflow', 'jax'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_beam_is_an_extra(tmp_path, monkeypatch):
    write_midi(song(0), tmp_path / "song.mid")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(M4MError, match=r"pip install -e '\.\[beam\]'"):
        datasets.build("midi_folder", tmp_path, tmp_path / "data", runner="direct")
    assert not (tmp_path / "data").exists()
