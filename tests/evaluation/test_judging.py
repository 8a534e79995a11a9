"""Folders of samples beside songs: what is judged, and what is left out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from m4m_jax.errors import M4MError
from m4m_jax.evaluation.judging import Setting, judge
from m4m_jax.evaluation.pairing import Folder, Views
from m4m_jax.evaluation.scoring import Parts, on_clock_of, score_sample, score_truth
from m4m_jax.evaluation.summary import summarize
from m4m_jax.evaluation.table import lacking
from m4m_jax.music import NoteTable, write_midi
from tests.evaluation.music import chords, part

MELODY = part([(k * 8, 8, pitch) for k, pitch in enumerate((64, 65, 67, 60))], 32, name="melody")
VIEWS = Views("track-0", "track-1", "chord")


@pytest.fixture
def songs(tmp_path):
    """Two songs, C F G C under a melody; one whose chords are missing; one that is no MIDI file."""
    place = tmp_path / "truth"
    place.mkdir()
    for name in ("a", "b"):
        write_midi(NoteTable.concat([MELODY, chords("CFGC")]), place / f"{name}.mid")
    write_midi(MELODY, place / "lone.mid")
    (place / "torn.mid").write_bytes(b"MThd")
    return Folder(place)


def samples(tmp_path, name: str, **written: str) -> Folder:
    """A folder of samples: file -> chords."""
    place = tmp_path / name
    place.mkdir()
    for file, names in written.items():
        write_midi(NoteTable.concat([MELODY, chords(names)]), place / f"{file}.mid")
    return Folder(place)


def test_systems_side_by_side(tmp_path, songs):
    one = samples(tmp_path, "one", a_1="CFGC", a_2="CCGC", b_1="CFGG")
    two = samples(tmp_path, "two", a="aaaa", lone="CFGC", stranger="C", torn_1="C")
    judged = judge(Setting("melody-to-chord", songs, {"one": one, "two": two}, VIEWS))
    assert [song.name for song in judged.songs] == ["a", "b", "lone", "torn"]
    found = judged.summary("one")["majmin"]
    assert found["mean"] == pytest.approx((0.875 + 0.75) / 2)
    assert (found["songs"], found["samples"]) == (2, 3)
    assert judged.summary("two")["majmin"]["mean"] == 0
    assert judged.truth_summary()["chord_tone_ratio"]["mean"] == 1
    assert judged.summary("two")["chord_tone_ratio"]["songs"] == 3
    # The truth of `lone` has no chords, `torn` no truth at all: their samples are judged alone.
    assert not judged.songs[2].truth
    assert "majmin" not in judged.songs[2].systems["two"][0].figures
    assert "cc" in judged.songs[3].systems["two"][0].figures
    reasons = {item.what.rpartition("/")[2]: item.reason for item in judged.left_out}
    assert set(reasons) == {"b", "lone", "torn", "stranger.mid"}
    assert reasons["stranger.mid"] == "no song has this name"
    assert reasons["b"] == "no sample of this song by two"
    report = json.loads(json.dumps(judged.as_json(), allow_nan=False))
    assert report["systems"]["one"]["majmin"]["samples"] == 3
    assert report["songs"][0]["systems"]["one"][1]["file"].endswith("a_2.mid")


def test_no_truth(tmp_path):
    two = samples(tmp_path, "two", a_1="CFGC", a_2="CFGC")
    (two.path / "b.mid").write_bytes(b"no music")
    two = Folder(two.path)
    judged = judge(Setting("melody-to-chord", None, {"two": two}, VIEWS))
    assert [len(song.systems["two"]) for song in judged.songs] == [2]
    assert judged.summary("two")["chord_tone_ratio"]["mean"] == 1
    assert "majmin" not in judged.summary("two")
    assert "not a MIDI file" in judged.left_out[0].reason
    assert judged.as_json()["truth"] == {}


def test_nothing_left_is_an_error(tmp_path, songs):
    two = samples(tmp_path, "two", other="C")
    with pytest.raises(M4MError, match=r"nothing can be judged, 5 left out: .*other\.mid: no song"):
        judge(Setting("melody-to-chord", songs, {"two": two}, VIEWS))


def test_a_sample_is_judged_on_its_songs_clock():
    truth = chords("CFGC").replace(
        tempos=np.array([[0.0, 60.0]]), meters=np.array([[0.0, 3.0, 4.0]])
    )
    song = Parts(MELODY, truth)
    # Half as long: what is missing is silence.
    written = on_clock_of(chords("CF"), truth)
    assert (written.tempos.tolist(), written.meters.tolist()) == ([[0, 60]], [[0, 3, 4]])
    found = score_sample("melody-to-chord", written, song)
    assert found["majmin"] == 0.5
    assert found["note_density"] == 6 / 32
    assert found["empty_steps"] == 0.5
    assert score_truth("melody-to-chord", song)["empty_steps"] == 0
    assert score_truth("melody-to-chord", Parts(MELODY, None)) == {}


def test_a_prompt_is_not_judged():
    song = Parts(MELODY, chords("CFGC"))
    assert score_sample("melody-to-chord", chords("CFaC"), song)["majmin"] == 0.75
    assert score_sample("melody-to-chord", chords("CFaC"), song, skip=16)["majmin"] == 0.5
    # Half of the first chord is given.
    assert score_sample("melody-to-chord", chords("aFGC"), song, skip=4)["majmin"] == 24 / 28


def test_onsets_of_a_prompt_are_not_judged():
    """A cymbal that rings into what is judged begins nothing there."""
    own = part([(0, 32, 49), (16, 1, 36), (32, 1, 36)], 48, drum=True)
    other = part([(0, 1, 49), (16, 1, 36), (32, 1, 36)], 48, drum=True)
    found = score_sample("others-to-drums", other, Parts(None, own), skip=16)
    assert (found["drum_f1"], found["groove_agreement"]) == (1, 1)
    assert "cymbals_f1" not in found
    beats = part([(k, 9, 42) for k in range(0, 48, 2)] + [(0, 20, 35), (32, 2, 35)], 48, drum=True)
    found = score_sample("analysis", own, Parts(None, beats), skip=16)
    assert found["downbeat_f"] == 0
    written = part([(k, 2, 42) for k in range(0, 48, 2)] + [(32, 2, 35)], 48, drum=True)
    found = score_sample("analysis", written, Parts(None, beats), skip=16)
    assert found["downbeat_f"] == 1


def test_what_is_past_a_songs_end_is_not_judged(tmp_path, songs):
    """Of CFGC, the last chord is late by half a bar and beyond."""
    one = samples(tmp_path, "one", a="CFGCaa", b="CFGC")
    heard = []

    def likelihood(written: NoteTable, reference: NoteTable | None) -> dict[str, float]:
        heard.append((written.length, len(written.notes)))
        return {"nll_token": 1.0}

    setting = Setting("melody-to-chord", songs, {"one": one}, VIEWS, likelihood=likelihood)
    judged = judge(setting)
    (sample,) = judged.songs[0].systems["one"]
    assert (sample.part.length, sample.past_end) == (32, 6)
    assert sample.figures == judged.songs[1].systems["one"][0].figures
    assert set(heard) == {(32, 12)}
    assert judged.notes[-1] == (
        "one: 6 notes of 1 samples begin past their songs' ends and are not judged"
    )
    # The last chord rings on as long as it was written.
    ringing = on_clock_of(part([(28, 8, 60), (32, 1, 60)], 40), MELODY)
    assert ringing.notes[:, :2].tolist() == [[28, 8]]


def test_samples_without_songs_have_their_own_references(tmp_path):
    """Three files of one stem, each with other chords and another tempo."""
    place = tmp_path / "three"
    place.mkdir()
    for number, (names, tempo) in enumerate((("CFGC", 60.0), ("FCCF", 90.0), ("a", 80.0)), 1):
        table = NoteTable.concat([chords(names), chords(names)])
        table = table.replace(tempos=np.array([[0.0, tempo]]))
        write_midi(table, place / f"song_{number}.mid")
    write_midi(NoteTable.concat([part([(0, 1, 60)], 8)] * 2), place / "song_4.mid")
    lone = chords("CFGC")
    write_midi(lone, place / "song_5.mid")
    views = Views("track-1", "track-0", "melody")
    judged = judge(Setting("chord-to-melody", None, {"three": Folder(place)}, views))
    (song,) = judged.songs
    ratios = [sample.figures.get("chord_tone_ratio") for sample in song.systems["three"]]
    assert ratios == [1, 1, 1, 1, None]
    tempos = [sample.part.tempos[0, 1] for sample in song.systems["three"][:3]]
    assert tempos == pytest.approx([60, 90, 80], abs=0.01)
    assert lacking(judged) == [
        f"no harmony figures for {place / 'song_5.mid'}: the file has no part 'track-1'"
    ]


def test_the_first_files_without_songs(tmp_path):
    two = samples(tmp_path, "two", a_1="CFGC", a_2="CFGC", b_1="CFGC", c_1="CFGC")
    judged = judge(Setting("melody-to-chord", None, {"two": two}, VIEWS, limit=2))
    assert [song.name for song in judged.songs] == ["a", "b"]


def test_a_file_of_two_songs_is_told(tmp_path):
    place = tmp_path / "truth"
    place.mkdir()
    for name in ("x", "x_1"):
        write_midi(NoteTable.concat([MELODY, chords("CFGC")]), place / f"{name}.mid")
    one = samples(tmp_path, "one", x_1="CFGC", x_2="CFGC")
    judged = judge(Setting("melody-to-chord", Folder(place), {"one": one}, VIEWS))
    line = f"{one.path / 'x_1.mid'}: taken for the song of that name, x_1, though x is a song, too"
    assert line in judged.notes


def test_what_is_left_out_is_named_once(tmp_path):
    two = samples(tmp_path, "two", a="CFGC")
    (two.path / "b.mid").write_bytes(b"no music")
    judged = judge(Setting("melody-to-chord", None, {"two": Folder(two.path)}, VIEWS))
    (item,) = judged.left_out
    assert item.what.endswith("b.mid")
    assert "b.mid" not in item.reason


def test_systems_without_a_sample_are_told_in_their_order(tmp_path, songs):
    names = [f"system{k}" for k in range(9, -1, -1)]
    systems = {name: samples(tmp_path, name, a="CFGC") for name in names}
    systems["all"] = samples(tmp_path, "all", b="CFGC")
    judged = judge(Setting("melody-to-chord", songs, systems, VIEWS))
    told = [item.reason.rpartition(" ")[2] for item in judged.left_out if item.what == "b"]
    assert told == names


@pytest.mark.parametrize(
    ("task", "figures"),
    [
        ("chord-to-melody", {"pcs", "mctd", "chord_tone_ratio", "coverage"}),
        ("others-to-drums", {"drum_f1", "kick_f1", "groove_agreement"}),
        ("analysis", {"root", "majmin", "sevenths", "beat_f", "downbeat_f"}),
        ("copy", {"note_density", "groove_similarity"}),
    ],
)
def test_each_task_has_its_figures(task, figures):
    beats = part([(k, 2, 42) for k in range(0, 32, 2)] + [(0, 2, 35)], 32, drum=True)
    whole = NoteTable.concat([beats, chords("CFGC")])
    assert figures <= set(score_sample(task, whole, Parts(MELODY, whole)))


def test_means_and_spread():
    songs = [[{"pcs": 1.0}, {"pcs": 3.0}], [{"pcs": 5.0}, {}], [{"pcs": 11.0}], [{}]]
    found = summarize(songs)["pcs"]
    assert found == {
        "mean": 6,
        "median": 5,
        "sd": pytest.approx(np.sqrt((16 + 1 + 25) / 2)),
        "within": pytest.approx(np.sqrt(2)),
        "songs": 3,
        "samples": 4,
    }
    alone = summarize([[{"pcs": 1.0}]])["pcs"]
    assert (alone["sd"], alone["within"]) == (None, None)


def test_what_songs_are_judged_without(tmp_path, songs):
    """A song's reference may be its sample's; where it is nowhere, there are no harmony figures."""
    one = samples(tmp_path, "one", a="CFGC", lone="CFGC")
    views = Views("track-2", "track-1", "chord")
    judged = judge(Setting("melody-to-chord", songs, {"one": one}, views))
    whole = NoteTable.concat([MELODY, chords("CFGC"), MELODY])
    write_midi(whole, one.path / "lone.mid")
    again = judge(Setting("melody-to-chord", songs, {"one": one}, views))
    expected = [("a", "no harmony figures"), ("lone", "no harmony figures"), ("lone", "no truth")]
    assert [item[:2] for item in judged.lacking] == expected
    assert lacking(judged) == [
        "no harmony figures for a: no part 'track-2' (it has track-0 (melody), track-1 (chords))",
        "no harmony figures for lone: no part 'track-2' (it has track-0 (melody))",
        "no truth for lone: no part 'track-1' (it has track-0 (melody))",
    ]
    assert again.lacking[1].what == "samples' own references are taken"
    assert again.summary("one")["pcs"]["songs"] == 1
    assert judge(Setting("copy", songs, {"one": one}, views)).lacking[0].what == "no reference"
