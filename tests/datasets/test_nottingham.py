from __future__ import annotations

import json

import pytest

from m4m_jax import datasets
from m4m_jax.data import windows
from m4m_jax.datasets.nottingham import nottingham_dataset_builder
from m4m_jax.errors import M4MError
from m4m_jax.music import get_task, write_midi
from m4m_jax.music.notes import TRACK
from tests.datasets.music import song


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "nottingham"
    (folder / "MIDI").mkdir(parents=True)
    for number in range(8):
        write_midi(song(number), folder / "MIDI" / f"jigs{number}.mid")
    write_midi(song(9, bars=2), folder / "MIDI" / "jigs9.mid")
    lists = {"order": "by name", "train": ["jigs0", "jigs2", "jigs3"], "val": ["jigs1", "jigs5"]}
    (folder / "official_split.json").write_text(json.dumps(lists))
    return folder


def names(split, data_dir):
    songs = datasets.open_split("nottingham", split, data_dir)
    return [songs.song(i).name for i in range(len(songs))]


def test_the_split_goes_by_file_name(source, tmp_path):
    report = datasets.build("nottingham", source, tmp_path, workers=2)
    assert report.splits == {"train": 3, "validation": 2, "test": 3}
    assert names("train", tmp_path) == ["jigs0.mid", "jigs2.mid", "jigs3.mid"]
    assert names("validation", tmp_path) == ["jigs1.mid", "jigs5.mid"]
    assert names("test", tmp_path) == ["jigs4.mid", "jigs6.mid", "jigs7.mid"]
    assert report.rejected == {"too short": {"jigs9.mid": "no track has more than 20 notes"}}


def test_without_lists_the_split_goes_by_the_places_of_all_tunes(source, tmp_path, monkeypatch):
    """Of two tracks, and long enough; the parts alone, in folders of their own, do not count."""
    (source / "official_split.json").unlink()
    for number in range(10, 24):
        write_midi(song(number), source / "MIDI" / f"jigs{number}.mid")
    alone = song(30)
    melody = alone.replace(notes=alone.notes[alone.notes[:, TRACK] == 0], tracks=alone.tracks[:1])
    write_midi(melody, source / "MIDI" / "jigs11.mid")
    (source / "MIDI" / "melody").mkdir()
    write_midi(melody, source / "MIDI" / "melody" / "jigs1.mid")
    with pytest.raises(M4MError, match=r"MIDI: 23 tunes, .* among all 1034; .* official_split"):
        datasets.build("nottingham", source, tmp_path, workers=1)

    monkeypatch.setattr(nottingham_dataset_builder, "TUNES", 23)
    report = datasets.build("nottingham", source, tmp_path, workers=1)
    assert report.files == 23
    # 0 1 10 12 13 14 15 16 17 18 19 2 20 ...: without 11, of one track, and 9, too short
    assert names("validation", tmp_path) == ["jigs1.mid", "jigs2.mid"]
    assert names("test", tmp_path) == ["jigs0.mid", "jigs11.mid", "jigs19.mid", "jigs7.mid"]


def test_parts_have_names(source, tmp_path):
    datasets.build("nottingham", source, tmp_path, workers=1)
    train = datasets.open_split("nottingham", "train", tmp_path)
    assert train.parts == {"melody": "track-0", "chords": "track-1"}
    chords, melody = windows.parts(train[0], get_task("chord-to-melody"), train.parts)
    assert chords is not None
    assert chords.tolist() == [False, True]
    assert melody.tolist() == [True, False]


def test_duplicates_stay_where_the_official_split_puts_them(source, tmp_path):
    write_midi(song(1), source / "MIDI" / "reels1.mid")
    report = datasets.build("nottingham", source, tmp_path, workers=1)
    assert report.splits["test"] == 4
    assert report.notices == {"duplicate": {"reels1.mid": "has the same notes as jigs1.mid"}}
    assert any("duplicate" in line for line in report.summary())


def test_listed_tunes_that_are_not_there_are_reported(source, tmp_path):
    (source / "MIDI" / "jigs5.mid").unlink()
    report = datasets.build("nottingham", source, tmp_path, workers=1)
    assert report.rejected["missing"] == {"jigs5.mid": "listed in official_split.json"}
    assert report.files == 8


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("no JSON", "an object with lists train and val"),
        ('{"train": []}', "KeyError"),
        ('{"train": ["a"], "val": ["a"]}', "a is in both lists"),
    ],
)
def test_a_split_file_that_says_nothing_is_refused(source, tmp_path, text, wanted):
    (source / "official_split.json").write_text(text)
    with pytest.raises(M4MError) as error:
        datasets.build("nottingham", source, tmp_path, workers=1)
    assert wanted in str(error.value)
    assert "official_split.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_it_is_built_from_a_local_copy(tmp_path):
    command = rf"m4m data build nottingham --source DIR --data-dir {tmp_path}$"
    with pytest.raises(M4MError, match=command):
        datasets.build("nottingham", None, tmp_path)
    (tmp_path / "tunes.zip").write_bytes(b"PK")
    with pytest.raises(M4MError, match=r"tunes\.zip: .* the folder that holds MIDI$"):
        datasets.build("nottingham", tmp_path / "tunes.zip", tmp_path)
    with pytest.raises(M4MError, match="jukedeck"):
        datasets.build("nottingham", tmp_path / "missing", tmp_path)
    with pytest.raises(M4MError, match="MIDI"):
        datasets.build("nottingham", tmp_path, tmp_path)


def test_it_names_its_source_and_licence(source, tmp_path):
    datasets.build("nottingham", source, tmp_path, workers=1)
    directory = datasets.info("nottingham", tmp_path).directory
    text = (directory / "dataset_info.json").read_text()
    assert "https://github.com/jukedeck/nottingham-dataset" in text
    assert "GNU General Public License" in text
    assert "@misc{nottingham" in json.loads(text)["citation"]
