from __future__ import annotations

import pytest

from m4m_jax.errors import M4MError
from m4m_jax.evaluation.pairing import Folder, Split, Views, pair
from m4m_jax.music import NoteTable, write_midi
from tests.datasets.music import song
from tests.evaluation.music import chords, part
from tests.training.runs import build_data

SONG = part([(0, 4, 60)], 16)
VIEWS = Views("track-1", "track-0", "melody")


def folder(tmp_path, *names: str) -> Folder:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        write_midi(SONG, tmp_path / name)
    return Folder(tmp_path)


def test_samples_belong_to_the_song_of_their_stem(tmp_path):
    files = folder(tmp_path, "a_2.mid", "a_10.mid", "a.MID", "b_1.mid", "sub/a_1.midi", "c.mid")
    found, strangers, ambiguous = pair(files, ["a", "b_1", "sub/a"])
    assert not ambiguous
    assert found == {"a": ["a", "a_2", "a_10"], "b_1": ["b_1"], "sub/a": ["sub/a_1"]}
    assert [item.what for item in strangers] == [str(tmp_path / "c.mid")]
    assert files.file("a").name == "a.MID"


def test_a_song_may_be_called_as_anothers_sample(tmp_path):
    files = folder(tmp_path, "x_1.mid", "x_1_1.mid", "x_2.mid")
    found, strangers, ambiguous = pair(files, ["x", "x_1"])
    assert found == {"x": ["x_2"], "x_1": ["x_1", "x_1_1"]}
    assert not strangers
    assert ambiguous == ["x_1"]


def test_without_songs_files_are_grouped_by_their_stems(tmp_path):
    files = folder(tmp_path, "a_2.mid", "a_1.mid", "b.mid", "7.mid", "x_y.mid")
    found, strangers, _ = pair(files, None)
    assert found == {"a": ["a_1", "a_2"], "b": ["b"], "7": ["7"], "x_y": ["x_y"]}
    assert not strangers


def test_songs_of_a_data_set(tmp_path):
    songs = Split("midi_folder/made", "train", build_data(tmp_path))
    stems = songs.stems()
    assert stems == sorted(stems)
    assert songs.about == "midi_folder/made, train"
    for stem in stems:
        assert songs.read(stem).notes.tolist() == song(int(stem)).notes.tolist()
    with pytest.raises(M4MError, match="no split 'tests'"):
        Split("midi_folder/made", "tests", tmp_path / "data")


def test_parts_of_songs_and_samples():
    melody = part([(0, 4, 72)], 16, name="flute")
    parts, lacking = VIEWS.song(NoteTable.concat([melody, chords("CF")]))
    assert parts.truth is not None
    assert parts.truth.notes[:, 2].tolist() == [72]
    assert len(parts.reference.notes) == 6
    assert lacking == (None, None)
    parts, lacking = VIEWS.song(melody)
    assert parts.reference is None
    assert lacking == ("no part 'track-1' (it has track-0 (flute))", None)
    empty = melody.replace(notes=melody.notes[:0])
    assert "'track-0' is empty (it has track-0 (flute))" in VIEWS.song(empty)[1].truth


def test_what_generate_wrote_is_known_by_its_name():
    melody = part([(0, 4, 72)], 16, name="Melody")
    written = NoteTable.concat([chords("CF"), melody])
    assert VIEWS.sample(written, "ours").notes[:, 2].tolist() == [72]
    assert len(VIEWS.given_in(written).notes) == 6
    # From elsewhere: by the task's selectors, or as told.
    other = NoteTable.concat([melody.replace(tracks=chords("C").tracks), chords("CF")])
    assert VIEWS.sample(other, "theirs").notes[:, 2].tolist() == [72]
    assert len(VIEWS.given_in(other).notes) == 6
    told = Views("track-1", "track-0", "melody", of_samples={"theirs": "track-1"})
    assert len(told.sample(other, "theirs").notes) == 6
    assert told.given_in(part([(0, 1, 60)], 16)) is None
    with pytest.raises(M4MError, match="track-1"):
        told.sample(SONG, "theirs")


def test_a_model_may_have_written_nothing():
    views = Views("track-1", "track-0", "melody", ours=frozenset(["ours"]))
    assert not len(views.sample(chords("CF"), "ours").notes)
    assert len(views.sample(chords("CF"), "theirs").notes) == 6


def test_pitched_tracks_called_drums_are_not_drums():
    kit = part([(0, 1, 36)], 16, name="drums", drum=True)
    steel = part([(0, 1, 60)], 16, name="Drums")
    song = NoteTable.concat([steel, kit])
    views = Views("nondrum", "drum", "drums", ours=frozenset(["ours"]))
    assert views.sample(song, "ours").notes[:, 2].tolist() == [36]
    counted = Views("track-1", "track-0", "drums")
    assert counted.sample(song, "theirs").notes[:, 2].tolist() == [36]
    assert counted.given_in(song).notes[:, 2].tolist() == [60]


def test_drums_are_known_without_a_name():
    views = Views("nondrum", "drum", "drums")
    kit = [
        part([(0, 1, pitch)], 16, name=name, drum=True)
        for pitch, name in ((36, "drums"), (38, "perc"))
    ]
    song = NoteTable.concat([chords("C"), *kit])
    assert views.sample(song, "theirs").notes[:, 2].tolist() == [36, 38]
    assert len(views.given_in(song).notes) == 3
