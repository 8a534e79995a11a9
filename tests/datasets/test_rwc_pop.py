from __future__ import annotations

import shutil

import numpy as np
import pytest

from m4m_jax import datasets
from m4m_jax.datasets.rwc_pop.rwc_pop_dataset_builder import read_song
from m4m_jax.errors import M4MError
from m4m_jax.music import get_task, read_midi, seconds_at, select, write_midi
from m4m_jax.music.labels import Label, notes_to_chords, write_lab
from tests.datasets.music import song

BARS = 8


def chords_of(table):
    """A chord a bar, on the song's clock."""
    at = seconds_at(table, np.arange(0, 16 * BARS + 1, 16)).tolist()
    texts = [("N", "C:maj", "A:min7/b3", "G:sus4(b7)")[k % 4] for k in range(BARS)]
    return [Label(at[k], at[k + 1], text) for k, text in enumerate(texts)]


def write_song(folder, seed, name):
    for sub in ("midi", "chords"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    table = song(seed, bars=BARS)
    write_midi(table, folder / "midi" / f"{name}.mid")
    write_lab(chords_of(table), folder / "chords" / f"{name}.lab")
    return table


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "rwc"
    for seed in range(4):
        write_song(folder, seed, f"RM-P00{seed}")
    return folder


def stored(data_dir):
    splits = {
        s: datasets.open_split("rwc_pop", s, data_dir) for s in ("train", "validation", "test")
    }
    return {
        found.song(i).name: (split, found.song(i))
        for split, found in splits.items()
        for i in range(len(found))
    }


def test_beats_and_chords_are_the_first_tracks(source, tmp_path):
    report = datasets.build("rwc_pop", source, tmp_path, workers=1)
    assert (report.kept, report.rejected, report.notices) == (4, {}, {})
    for seed in range(4):
        table = stored(tmp_path)[f"midi/RM-P00{seed}.mid"][1].table
        original = read_midi(source / "midi" / f"RM-P00{seed}.mid")
        assert [t.name for t in table.tracks] == ["beats", "chords", "part 0", "part 1"]
        assert [t.is_drum for t in table.tracks] == [True, False, False, False]
        music = table.notes[table.notes[:, 5] >= 2]
        assert np.array_equal(music - [0, 0, 0, 0, 0, 2], original.notes)
        for what in ("length", "off_grid"):
            assert getattr(table, what) == getattr(original, what)
        assert np.array_equal(table.tempos, original.tempos)
        assert np.array_equal(table.meters, original.meters)
        chords = notes_to_chords(select(table, "chords").notes, table)
        # On the same tones as A:min7/b3 and G:sus4(b7).
        assert [label.text for label in chords[:4]] == ["N", "C:maj", "C:maj6", "G:(1,4,5,b7)"]
        beats = select(table, "beats").notes
        assert beats[beats[:, 2] == 35, 0].tolist() == list(range(0, table.length, 16))


def test_parts_are_those_of_the_analysis_task(source, tmp_path):
    datasets.build("rwc_pop", source, tmp_path, workers=1)
    parts = datasets.info("rwc_pop", tmp_path).parts
    table = next(iter(stored(tmp_path).values()))[1].table
    task = get_task("analysis")
    assert select(table, "song", names=parts) == select(table, task.reference)
    labels = select(table, task.target)
    assert set(labels.notes[:, 5]) == {0, 1}


def test_a_song_has_one_split_with_and_without_its_labels(source, tmp_path):
    datasets.build("rwc_pop", source, tmp_path / "data", workers=1)
    datasets.build("midi_folder", source / "midi", tmp_path / "data", workers=1)
    for name, (split, found) in stored(tmp_path / "data").items():
        plain = read_midi(source / name)
        assert found.content == datasets.content_hash(plain)
        assert split == datasets.hash_split(found.content)
        assert plain in list(datasets.open_split("midi_folder", split, tmp_path / "data"))


def test_from_a_zip(source, tmp_path):
    datasets.build("rwc_pop", source, tmp_path / "folder", workers=1)
    path = shutil.make_archive(str(tmp_path / "songs"), "zip", source)
    datasets.build("rwc_pop", path, tmp_path / "zip", workers=1)
    assert stored(tmp_path / "zip") == stored(tmp_path / "folder")


def test_files_find_each_other_by_name(source, tmp_path):
    (source / "midi" / "RM-P003.mid").rename(source / "midi" / "rm-p003.SMF_SYNC.MID")
    assert datasets.build("rwc_pop", source, tmp_path, workers=1).kept == 4
    shutil.copy(source / "midi" / "RM-P001.mid", source / "RM-P001.midi")
    with pytest.raises(M4MError, match="have one name"):
        datasets.build("rwc_pop", source, tmp_path, workers=1)


def test_what_is_missing_or_cannot_be_read_is_listed(source, tmp_path):
    for number in range(4, 9):
        write_song(source, number, f"RM-P00{number}")
    chords = source / "chords"
    (source / "midi" / "RM-P004.mid").unlink()
    (chords / "RM-P005.lab").unlink()
    (chords / "RM-P006.lab").write_text("0 1 N\n1 2 H:maj\n")
    (chords / "RM-P007.lab").write_bytes(b"\xff\xfe")
    (chords / "RM-P008.lab").write_text("0 100 N\n")
    report = datasets.build("rwc_pop", source, tmp_path, workers=1)
    assert report.kept == 4
    assert report.rejected == {
        "missing": {"the MIDI file of chords/RM-P004.lab": "there is none of this name"},
        "no chords": {
            "midi/RM-P005.mid": "no .lab file of this name",
            "midi/RM-P008.mid": "chords/RM-P008.lab has no chord that sounds in the song",
        },
        "unreadable chords": {
            "midi/RM-P006.mid": "chords/RM-P006.lab: line 2: no chord 'H:maj'; chords are written"
            " as C:min7/b3 (Harte's syntax)",
            "midi/RM-P007.mid": "chords/RM-P007.lab: no text",
        },
    }


def test_what_is_to_know_of_chords_that_were_kept(source):
    table = read_midi(source / "midi" / "RM-P000.mid")
    beat = float(seconds_at(table, np.array([4]))[0])
    labels = [
        Label(0, 0.3 * beat, "C"),
        Label(0.3 * beat, 0.31 * beat, "D"),
        Label(0.31 * beat, 4.4 * beat, "X"),
        Label(4.4 * beat, 5 * beat, "E"),
        Label(1e3, 1e4, "F"),
    ]
    write_lab(labels, source / "chords" / "RM-P000.lab")
    name = "midi/RM-P000.mid"
    reading = read_song(str(source), {name: "chords/RM-P000.lab"}, name)
    assert set(reading.notices) == {
        "chords left out, shorter than a step",
        "chords left out, unknown",
        "chords left out, after the end of the song",
        "chords off the beat",
    }
    assert reading.notices["chords left out, after the end of the song"] == "F at 1000 s"


def test_nothing_to_build_from(source, tmp_path):
    shutil.rmtree(source / "chords")
    with pytest.raises(M4MError, match=r"no chord label file \(\.lab\)"):
        datasets.build("rwc_pop", source, tmp_path)
    with pytest.raises(M4MError, match="m4m data build rwc_pop --source DIR"):
        datasets.build("rwc_pop", None, tmp_path)
