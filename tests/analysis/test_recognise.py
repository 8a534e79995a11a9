"""An analysis: by rules of real music, and as a model writes it."""

from __future__ import annotations

import numpy as np
import pytest

import m4m_jax
from m4m_jax.analysis import analyze
from m4m_jax.analysis.recognise import from_notes
from m4m_jax.datasets.bach_chorales.bach_chorales_dataset_builder import corpus_folder
from m4m_jax.datasets.bach_chorales.scores import read_score
from m4m_jax.errors import M4MError
from m4m_jax.music import NoteTable, beats_to_notes, notes_to_beats
from tests.analysis.music import blocks, play
from tests.analysis.small import small_model
from tests.compiling import quick_compile as quick_compile


def test_a_chorale():
    """Jesu, meine Freude: in E minor, with a major third at the end."""
    song = read_score(str(corpus_folder()), "bwv227.1.mxl").table
    found = analyze(song.replace(meters=song.meters[:0]))
    np.testing.assert_array_equal(found.song.meters, [[0, 4, 4]])
    texts = [label.text for label in found.chords]
    assert (texts[0], texts[-2:]) == ("E:min", ["B:7", "E:maj"])
    # Its phrases are sung twice, the first six bars being a repeat written out.
    assert texts[:4] == ["E:min", "B:min/b3", "C:maj", "A:min"] == texts[11:15]
    assert [label.start for label in found.chords[1:]] == [label.end for label in found.chords[:-1]]


def test_an_analysis_is_read_from_notes():
    song = play(["C:maj", "F:maj", "G:7", "C:maj"], 16, blocks, start=4)
    rules = analyze(song)
    written = NoteTable.concat([rules.beat_notes, rules.chord_notes])
    read = from_notes(song, written, "notes")
    assert read.chords == rules.chords
    # As notes, a pickup is a bar.
    assert read.beats.tolist() == rules.beats.tolist()
    assert read.numbers.tolist() == [1, *rules.numbers.tolist()[1:]]
    np.testing.assert_array_equal(read.song.meters, rules.song.meters)
    assert read.beat_notes == beats_to_notes(rules.song)


def test_nothing_written_is_no_chord_and_no_beat():
    song = play(["C:maj", "F:maj"], 16)
    read = from_notes(song, song.replace(notes=song.notes[:0], tracks=()), "notes")
    assert read.chords == [(0.0, 4.0, "N")]
    assert not len(read.beats)


@pytest.mark.usefixtures("quick_compile")
def test_a_model_writes_the_analysis(tmp_path):
    song = play(["C:maj", "F:maj"], 16)
    with_beats = small_model()
    found = analyze(song, with_beats)
    (_, written), *_ = m4m_jax.generate(with_beats, song, reference="all", temperature=0)
    assert found.chords == from_notes(song, written, "").chords
    assert (found.chords[0].start, found.chords[-1].end) == (0, 4)
    np.testing.assert_array_equal(found.beats, notes_to_beats(written.notes)[0])
    assert len(m4m_jax.write_analysis(found, tmp_path, "song")) == 5


def test_a_model_of_another_task():
    song = play(["C:maj", "F:maj"], 16)
    with pytest.raises(M4MError, match="trained for chord-to-melody, not for analysis"):
        analyze(song, small_model("chord-to-melody"))
