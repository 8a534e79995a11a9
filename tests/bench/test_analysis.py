"""How well songs are analysed, on songs whose chords are known."""

from __future__ import annotations

import json

import pytest

from m4m_jax import pretrained
from m4m_jax.analysis import analyze
from m4m_jax.bench.analysis import measure
from m4m_jax.cli import _run
from m4m_jax.errors import M4MError
from m4m_jax.evaluation.chords import label_agreement
from m4m_jax.music import (
    Label,
    NoteTable,
    Track,
    chords_to_notes,
    read_lab,
    read_midi,
    write_lab,
    write_midi,
)
from tests.analysis.music import play
from tests.analysis.small import small_base, small_model
from tests.compiling import quick_compile as quick_compile
from tests.datasets.music import song

LABELS = ["C:maj", "F:maj", "D:min7", "G:7"] * 2


@pytest.fixture
def labelled(tmp_path):
    """A song of whose eight chords two are labelled with other roots, and one without labels."""
    (tmp_path / "chords").mkdir()
    write_midi(play(LABELS, 16, meter=(4, 4)), tmp_path / "song.mid")
    write_midi(play(LABELS, 16), tmp_path / "other.mid")
    wrong = [*LABELS[:6], "E:min7", "A:7"]
    labels = [Label(2 * k, 2 * k + 2, text) for k, text in enumerate(wrong)]
    write_lab(labels, tmp_path / "chords" / "song.lab")
    return tmp_path


def test_rows_are_told_and_written(labelled, tmp_path, capsys):
    file = tmp_path / "rows.json"
    assert _run(["bench", "analysis", "--data", str(labelled), "--json", str(file)]) == 0
    assert capsys.readouterr().out.count("root 0.750 (0.750)") == 4
    rows = json.loads(file.read_text())
    assert [(row["work"], row["of"]) for row in rows] == [
        (work, of) for work in ("meters-given", "meters-found") for of in ("all", "labels on beats")
    ]


def test_the_figures(labelled):
    given, _, found, _ = measure(folder=labelled, say=lambda line: None)
    for row in (given, found):
        assert row["songs"] == 1
        for name, value in {"root": 0.75, "majmin": 0.75, "sevenths": 0.75}.items():
            assert row[name] == {"mean": pytest.approx(value), "median": pytest.approx(value)}
        assert row["beat_f"]["mean"] == row["downbeat_f"]["mean"] == 1


def test_songs_of_two_tracks(tmp_path):
    music = play(LABELS, 16, meter=(4, 4))
    labels = [Label(2 * k, 2 * k + 2, text) for k, text in enumerate(LABELS)]
    chords, _ = chords_to_notes(labels, music)
    both = NoteTable.concat([music, chords.replace(tracks=(Track("chords", 0),))])
    write_midi(both, tmp_path / "song.mid")
    (row, _) = measure("meters-found", tmp_path, say=lambda line: None)
    assert row["sevenths"]["mean"] == 1


@pytest.mark.usefixtures("quick_compile")
def test_a_model_in_the_place_of_the_rules(labelled, tmp_path):
    model = small_model()
    pretrained.save(small_base(), tmp_path / "base")
    pretrained.save(model, tmp_path / "adapter")
    (row, _) = measure("meters-given", labelled, model=tmp_path / "adapter", say=lambda line: None)
    found = analyze(read_midi(labelled / "song.mid"), model)
    expected = label_agreement(read_lab(labelled / "chords" / "song.lab"), found.chords)
    assert {name: row[name]["mean"] for name in expected} == pytest.approx(expected)


def test_mistakes(tmp_path):
    with pytest.raises(M4MError, match="meters-given, meters-found"):
        measure("speed", tmp_path)
    with pytest.raises(M4MError, match="--data"):
        measure()


def test_songs_without_annotations(tmp_path, labelled):
    """They are left out, and told; where there are no others, it is said what is needed."""
    lines: list[str] = []
    measure("meters-given", labelled, say=lines.append)
    assert "1 songs without annotations, such as other.mid: there is no .lab file" in lines[0]

    for name, told in (
        ("one", "it has 1 tracks"),
        ("two", "its second track has no block chords"),
        ("none", "not a MIDI file"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        if name == "none":
            (folder / "song.mid").write_text("x")
        else:
            write_midi(play(LABELS, 16) if name == "one" else song(0), folder / "song.mid")
        with pytest.raises(
            M4MError, match=f"none of 1 songs has .* block chords .*{told}"
        ) as error:
            measure(folder=folder)
        assert "\n" not in str(error.value)
