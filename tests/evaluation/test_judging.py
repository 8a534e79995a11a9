"""Folders of samples beside songs: what is judged, and what is left out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from m4m_jax.errors import M4MError
from m4m_jax.evaluation.judging import Setting, judge
from m4m_jax.evaluation.pairing import Folder, Views
from m4m_jax.evaluation.scoring import Parts, score_sample, score_truth
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
    found = score_sample("melody-to-chord", chords("CF"), song)
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
    found = summarize([[{"pcs": 1.0}, {"pcs": 3.0}], [{"pcs": 5.0}, {}], [{}]])["pcs"]
    assert found == {
        "mean": 3.5,
        "median": 3.5,
        "sd": pytest.approx(np.sqrt(4.5)),
        "within": pytest.approx(np.sqrt(2)),
        "songs": 2,
        "samples": 3,
    }
    assert summarize([[{"pcs": 1.0}]])["pcs"]["within"] is None


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
    assert again.lacking[1].what == "a sample's reference is taken"
    assert again.summary("one")["pcs"]["songs"] == 1
    assert judge(Setting("copy", songs, {"one": one}, views)).lacking[0].what == "no reference"
