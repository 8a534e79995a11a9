from __future__ import annotations

import shutil

import numpy as np
import pytest

from m4m_jax import datasets
from m4m_jax.analysis import analyze
from m4m_jax.cli import _run
from m4m_jax.music import (
    NoteTable,
    Track,
    chords_to_notes,
    get_task,
    notes_to_beats,
    read_midi,
    select,
    write_midi,
)
from tests.analysis.music import play
from tests.datasets.music import song


def two_tracks(seed, name="chords"):
    table = song(seed)
    return table.replace(
        notes=table.notes * [1, 1, 1, 0, 1, 1], tracks=(Track("piano", 0), Track(name, 0))
    )


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "pop"
    folder.mkdir()
    for seed in range(6):
        write_midi(two_tracks(seed, ("chords", "MIDI 01")[seed % 2]), folder / f"00{seed}.mid")
    return folder


def stored(name, data_dir):
    splits = {s: datasets.open_split(name, s, data_dir) for s in ("train", "validation", "test")}
    return {
        found.song(i).name: (split, found.song(i))
        for split, found in splits.items()
        for i in range(len(found))
    }


def test_songs_are_the_files(source, tmp_path):
    datasets.build("pop909_cl", source, tmp_path, workers=1)
    for name, (_, found) in stored("pop909_cl", tmp_path).items():
        assert found.table == read_midi(source / name)
    assert datasets.info("pop909_cl", tmp_path).parts == {"song": "track-0", "chords": "track-1"}


@pytest.mark.parametrize("task", ["song-to-chord", "chord-to-song"])
def test_tasks_find_their_parts(source, tmp_path, task):
    datasets.build("pop909_cl", source, tmp_path, workers=1)
    parts = datasets.info("pop909_cl", tmp_path).parts
    table = read_midi(source / "000.mid")
    song_part, chords = (select(table, part, names=parts) for part in ("song", "chords"))
    pair = [
        select(table, s, names=parts) for s in (get_task(task).reference, get_task(task).target)
    ]
    assert pair == ([song_part, chords] if task == "song-to-chord" else [chords, song_part])


def test_songs_without_both_tracks_are_left_out(source, tmp_path):
    table = two_tracks(8)
    for number, name in ((0, "piano"), (1, "chords")):
        notes = table.notes[table.notes[:, 5] == number] * [1, 1, 1, 1, 1, 0]
        only = NoteTable(notes, (Track(name, 0),), table.length, table.tempos, table.meters)
        write_midi(only, source / f"10{number}.mid")
    report = datasets.build("pop909_cl", source, tmp_path, workers=1)
    assert report.rejected == {
        "no two tracks": {
            "100.mid": "its tracks are piano, not a song and its chords",
            "101.mid": "its tracks are chords, not a song and its chords",
        }
    }


def test_files_of_another_origin_are_left_out(source, tmp_path):
    for number, names in enumerate([("Piano", "Chords"), ("piano", "bass"), ("chords", "piano")]):
        table = two_tracks(10 + number)
        tracks = tuple(Track(name, 0) for name in names)
        write_midi(table.replace(tracks=tracks), source / f"20{number}.mid")
    report = datasets.build("pop909_cl", source, tmp_path, workers=1)
    told = "its tracks are {}, not piano and chords (or MIDI 01)"
    assert report.rejected == {
        "not of POP909-CL": {
            "201.mid": told.format("piano, bass"),
            "202.mid": told.format("chords, piano"),
        }
    }


def test_of_a_copy_of_the_source_the_processed_version_is_read(source, tmp_path):
    whole = tmp_path / "POP909-CL-Dataset"
    shutil.copytree(source, whole / "POP909_processed")
    shutil.copytree(source, whole / "POP909_chord_annotated")
    report = datasets.build("pop909_cl", whole, tmp_path, workers=1)
    assert (report.kept, report.files) == (6, 6)
    assert set(stored("pop909_cl", tmp_path)) == {f"POP909_processed/00{k}.mid" for k in range(6)}


def test_with_beats_it_is_laid_out_for_analysis(source, tmp_path):
    datasets.build("pop909_cl", source, tmp_path, workers=1)
    datasets.build("pop909_cl/analysis", source, tmp_path, workers=1)
    plain, analysis = (stored(name, tmp_path) for name in ("pop909_cl", "pop909_cl/analysis"))
    parts = datasets.info("pop909_cl/analysis", tmp_path).parts
    task = get_task("analysis")
    assert plain.keys() == analysis.keys()
    for name, (split, before) in plain.items():
        after = analysis[name][1].table
        assert (split, before.content) == (analysis[name][0], analysis[name][1].content)
        given, labels = select(after, task.reference), select(after, task.target)
        assert np.array_equal(given.notes[:, :5], select(before.table, "track-0").notes[:, :5])
        assert select(after, "song", names=parts) == given
        chords = select(after, "chords", names=parts).notes
        assert np.array_equal(chords[:, :5], select(before.table, "track-1").notes[:, :5])
        assert len(labels.notes) == len(chords) + len(select(after, "beats", names=parts).notes)
        assert after.length == before.table.length
        assert after.off_grid == before.table.off_grid


def test_beats_begin_where_the_chords_have_bars(tmp_path):
    """The file says 4/4 from its first step on; its music begins on the fourth beat."""
    music = play(["C:maj", "F:maj", "D:min", "G:maj"] * 4, 16, start=4, meter=(4, 4))
    chords, _ = chords_to_notes(analyze(music).chords, music)
    chords = chords.replace(tracks=(Track("chords", 0),))
    (tmp_path / "pop").mkdir()
    write_midi(NoteTable.concat([music, chords]), tmp_path / "pop" / "000.mid")
    datasets.build("pop909_cl/analysis", tmp_path / "pop", tmp_path, workers=1)
    ((_, found),) = stored("pop909_cl/analysis", tmp_path).values()
    beats, numbers = notes_to_beats(select(found.table, "track-0").notes)
    assert beats[numbers == 1].tolist() == [0, *range(4, 260, 16)]  # a pickup is a bar too
    assert found.table.meters.tolist() == [[0, 1, 4], [4, 4, 4]]


def test_a_task_that_wants_beats_is_pointed_to_them(source, tmp_path, capsys):
    datasets.build("pop909_cl", source, tmp_path, workers=1)
    wanted = f"m4m data build pop909_cl --source DIR --name analysis --data-dir {tmp_path}\n"
    for command in (["inspect", "pop909_cl"], ["pack", "pop909_cl", "window=48"]):
        assert _run(["data", *command, "--task", "analysis", "--data-dir", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert "no such part" in error
        assert error.endswith(f"; pop909_cl/analysis is laid out for it: {wanted}")
    assert _run(["data", "inspect", "pop909_cl", "--task", "copie", "--data-dir", str(tmp_path)])
    assert "analysis" not in capsys.readouterr().err
