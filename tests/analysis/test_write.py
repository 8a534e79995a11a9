"""The files of an analysis, read by the libraries that others read them with."""

from __future__ import annotations

import jams
import matplotlib.image
import mir_eval
import numpy as np
import pytest

import m4m_jax
from m4m_jax import analysis
from m4m_jax.errors import M4MError
from m4m_jax.music import Track, read_lab, read_midi, write_midi
from tests.analysis.music import blocks, play

LABELS = ["C:maj", "F:maj", "G:maj", "A:min/b3"] * 2
NAMES = ["song.lab", "song.beats", "song.jams", "song.analysis.mid", "song.png"]


@pytest.fixture(scope="module")
def song():
    return play(LABELS, 16, blocks, start=4)


@pytest.fixture(scope="module")
def written(song, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "new"
    paths = m4m_jax.write_analysis(m4m_jax.analyze(song), folder, "song")
    assert [path.name for path in paths] == NAMES
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    return folder


def test_chords(song, written):
    intervals, labels = mir_eval.io.load_labeled_intervals(str(written / "song.lab"))
    assert labels == ["N", *LABELS]
    np.testing.assert_allclose(intervals[:, 0], [0, *(0.5 + 2 * k for k in range(8))])
    assert intervals[-1, 1] == song.length / 8
    assert read_lab(written / "song.lab") == m4m_jax.analyze(song).chords


def test_beats(written):
    times, numbers = mir_eval.io.load_labeled_events(str(written / "song.beats"))
    np.testing.assert_allclose(times, np.arange(33) / 2)
    assert numbers == ["4", *"1234" * 8]


def test_jams(written):
    read = jams.load(str(written / "song.jams"), validate=True, strict=True)
    intervals, labels = read.search(namespace="chord")[0].to_interval_values()
    wanted, names = mir_eval.io.load_labeled_intervals(str(written / "song.lab"))
    np.testing.assert_allclose(intervals, wanted)
    assert labels == names
    times, numbers = read.search(namespace="beat")[0].to_event_values()
    np.testing.assert_allclose(times, np.arange(33) / 2)
    assert numbers[:2] == [4, 1]
    assert read.file_metadata.duration == 16.5


def test_midi(song, written):
    table = read_midi(written / "song.analysis.mid")
    assert [track.name for track in table.tracks] == ["beats", "chords", "piano"]
    assert table.tracks[0].is_drum
    np.testing.assert_array_equal(table.notes[table.notes[:, 5] == 2][:, :3], song.notes[:, :3])
    np.testing.assert_array_equal(table.meters, [[0, 1, 4], [4, 4, 4]])
    beats = table.notes[table.notes[:, 5] == 0]
    assert beats[beats[:, 2] == 35, 0].tolist() == [0, *range(4, 132, 16)]
    assert beats[beats[:, 2] == 38, 0].tolist() == list(range(12, 132, 16))
    chords = table.notes[table.notes[:, 5] == 1]
    assert chords[chords[:, 0] == 4, 2].tolist() == [48, 52, 55]


def test_picture(written):
    height, width, _ = matplotlib.image.imread(written / "song.png").shape
    assert width > 4 * height > 200


def test_a_long_song_has_a_picture(tmp_path):
    long = play(LABELS * 75, 16)
    write_midi(long, tmp_path / "long.mid")
    analysis.write_analysis(analysis.analyze(long), tmp_path, "long")
    assert matplotlib.image.imread(tmp_path / "long.png").shape[0] < 2**14


def test_a_name_may_hold_dollars(song, tmp_path):
    m4m_jax.write_analysis(m4m_jax.analyze(song), tmp_path, r"a$\b$c")
    assert len(list(tmp_path.iterdir())) == 5


def test_all_files_or_none(song, tmp_path):
    slow = song.replace(tempos=np.array([[0.0, 1.0]]))  # too slow for a MIDI file
    with pytest.raises(M4MError, match="tempo"):
        m4m_jax.write_analysis(m4m_jax.analyze(slow), tmp_path / "out", "song")
    assert not (tmp_path / "out").exists()
    (tmp_path / "song.lab").mkdir()
    with pytest.raises(M4MError, match=r"song\.lab"):
        m4m_jax.write_analysis(m4m_jax.analyze(song), tmp_path, "song")
    assert [path.name for path in tmp_path.iterdir()] == ["song.lab"]


def test_the_song_may_have_drums(song, tmp_path):
    drums = song.notes[:4].copy()
    drums[:, 2:] = 36, 127, 80, 1
    drums[:, 0] = range(4, 68, 16)
    both = song.replace(
        notes=np.concatenate([song.notes, drums]), tracks=(*song.tracks, Track("kit", 0, True))
    )
    m4m_jax.write_analysis(m4m_jax.analyze(both), tmp_path, "both")
    table = read_midi(tmp_path / "both.analysis.mid")
    assert [track.name for track in table.tracks] == ["beats", "chords", "piano", "kit"]
