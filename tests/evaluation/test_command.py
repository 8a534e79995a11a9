"""`m4m evaluate`, as a user calls it."""

from __future__ import annotations

import json
import os
import re

import pytest
import rich.console

from m4m_jax.errors import M4MError
from m4m_jax.evaluation import command, table
from m4m_jax.evaluation.pairing import Folder
from m4m_jax.music import NoteTable, write_midi
from tests.evaluation.music import chords, part
from tests.test_cli import assert_one_line, m4m

MELODY = part([(k * 8, 8, pitch) for k, pitch in enumerate((64, 65, 67, 60))], 32, name="tune")


@pytest.fixture
def place(tmp_path):
    """Two songs, and what two systems wrote to them."""
    for folder, names in (("songs", ("CFGC", "CCGC")), ("one", ("CFGG", "aaaa"))):
        (tmp_path / folder).mkdir()
        for stem, text in zip(("a", "b"), names, strict=True):
            write_midi(NoteTable.concat([MELODY, chords(text)]), tmp_path / folder / f"{stem}.mid")
    (tmp_path / "two").mkdir()
    write_midi(chords("CFGC"), tmp_path / "two" / "a_1.mid")
    (tmp_path / "two" / "broken_1.mid").write_bytes(b"")
    return tmp_path


def test_folders_side_by_side(place):
    answer = m4m(
        *("evaluate", "melody-to-chord", "--generated", "one", "--generated", "other=two"),
        *("--target-part", "other=all", "--truth", "songs", "-o", "report"),
        cwd=place,
    )
    assert (answer.status, answer.err) == (0, "")
    row = next(line for line in answer.out.splitlines() if "majmin" in line)
    assert "0.375 ± 0.530 (0.375)" in row
    assert "1.000 ± - (1.000)" in row  # one song has no deviation
    lines = answer.out.splitlines()
    counts = next(line for line in lines if line.strip("│ ").startswith("songs "))
    assert re.findall(r"\d+", counts) == ["2", "2", "1"]
    warning = "other was judged on 1 of 2 songs; means are over different songs"
    below = next(k for k, line in enumerate(lines) if line.startswith("└")) + 1
    assert lines[below] == warning
    assert "left out: two/broken_1.mid: no song has this name" in answer.out
    report = json.loads((place / "report" / "report.json").read_text())
    assert report["systems"]["one"]["majmin"]["mean"] == 0.375
    assert report["settings"]["systems"] == {"one": "one", "other": "two"}
    assert report["truth"]["chord_tone_ratio"]["mean"] == 0.875
    assert report["notes"][0] == warning
    page = (place / "report" / "report.html").read_text()
    assert "<tr><td>songs</td><td>2</td><td>2</td><td>1</td><td></td></tr>" in page
    assert "1.000 ± -<br>" in page
    assert f"</table></div><p>{warning}</p>" in page


def test_no_warning_where_songs_are_the_same(place):
    judged = command.evaluate(
        "melody-to-chord", place / "report", None, [f"one={place / 'one'}", f"1={place / 'songs'}"]
    )
    assert judged.counts() == {"truth": 0, "one": 2, "1": 2}
    assert judged.uneven() is None
    assert not any("different songs" in note for note in judged.notes)


def test_a_part_that_songs_lack(place):
    three = NoteTable.concat([MELODY, chords("CCGC"), MELODY])
    write_midi(three, place / "songs" / "b.mid")
    given = ("melody-to-chord", "--generated", "one", "--truth", "songs", "-o", "report")
    answer = m4m("evaluate", *given, "--reference", "track-2", cwd=place)
    assert (answer.status, answer.err) == (0, "")
    assert (
        "no harmony figures for a: no part 'track-2' (it has track-0 (tune), track-1 (chords))"
        in answer.out.splitlines()
    )
    assert "left out" not in answer.out
    report = json.loads((place / "report" / "report.json").read_text())
    assert [item["song"] for item in report["lacking"]] == ["a"]
    assert report["left_out"] == []
    assert [("pcs" in song["truth"]) for song in report["songs"]] == [False, True]
    for option in ("--reference", "--target"):
        answer = m4m("evaluate", *given, "--target-part", "all", option, "track-9", cwd=place)
        words = f"{option} track-9: no song has it; a: no part 'track-9' (it has track-0 (tune), "
        assert_one_line(answer, words)


def test_only_the_beginning(place):
    songs = Folder(place / "songs")
    judged = command.evaluate(
        "melody-to-chord", place / "report", songs, [f"one={place / 'one'}"], steps=16, limit=1
    )
    assert [song.name for song in judged.songs] == ["a"]
    assert judged.summary("one")["majmin"]["mean"] == 1
    assert judged.summary("one")["note_density"]["mean"] == 6 / 16


def test_the_first_files_without_songs(place):
    given = [f"one={place / 'one'}"]
    judged = command.evaluate("melody-to-chord", place / "report", None, given, limit=1)
    assert [song.name for song in judged.songs] == ["a"]
    assert judged.settings["limit"] == 1


def test_a_name_that_is_no_text(place):
    """Of a file that belongs to no song: it is told in all three places."""
    source = place / "one" / "a.mid"
    try:
        with open(os.fsencode(place / "one") + b"/\xff_1.mid", "wb") as file:
            file.write(source.read_bytes())
    except OSError:
        pytest.skip("names are text here")
    given = ("melody-to-chord", "--generated", "one", "--truth", "songs", "-o", "report")
    answer = m4m("evaluate", *given, cwd=place)
    assert (answer.status, answer.err) == (0, "")
    line = "one/?_1.mid: no song has this name"
    assert f"left out: {line}" in answer.out
    assert line in (place / "report" / "report.html").read_text()
    report = json.loads((place / "report" / "report.json").read_text())
    assert report["left_out"][0]["what"] == "one/\udcff_1.mid"


def test_many_systems_are_told_apart(place, capsys, monkeypatch):
    names = [f"a-system-of-a-longer-name-{k}" for k in range(8)]
    given = [f"{name}={place / 'one'}" for name in names]
    songs = Folder(place / "songs")
    judged = command.evaluate("melody-to-chord", place / "report", songs, given)
    table.show(judged)
    printed = capsys.readouterr().out
    header = next(line for line in printed.splitlines() if "figure" in line and "┃" in line)
    assert [name in header for name in names] == [True] * 8
    assert "…" not in printed
    # Where there is no room, as on a terminal, names are folded and stay whole.
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(rich.console.Console, "is_terminal", True)
    table.show(judged)
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert len(next(line for line in printed.splitlines() if line.startswith("└"))) <= 100


def test_a_figure_over_fewer_songs_says_so(place):
    """What was written to one song has no pitches, and so no chords."""
    write_midi(part([(0, 1, 36)], 32, drum=True), place / "one" / "b.mid")
    songs = Folder(place / "songs")
    given = [f"one={place / 'one'}"]
    judged = command.evaluate(
        "melody-to-chord", place / "report", songs, given, target_part=["all"]
    )
    found, songs_of = judged.summary("one"), judged.counts()["one"]
    assert table.cell(found["cc"], songs_of).endswith(" 1 of 2")
    assert table.cell(found["note_density"], songs_of).endswith(")")


def test_what_systems_are_called(place, monkeypatch):
    monkeypatch.chdir(place / "one")
    assert list(command.named_folders([".", "=../two", "x=../two"])) == ["one", "two", "x"]
    (place / "truth").mkdir()
    with pytest.raises(M4MError, match="truth is taken"):
        command.named_folders([str(place / "truth")])


def test_mistakes(place):
    options = ("-o", "report", "--truth", "songs")
    assert_one_line(m4m("evaluate", "melody-to-cord", *options, cwd=place), "did you mean")
    assert_one_line(
        m4m("evaluate", "copy", *options, "--generated", "nowhere", cwd=place), "no such folder"
    )
    assert not (place / "report").exists()
    with pytest.raises(M4MError, match="give one of them"):
        command.source("songs", "nottingham", "test", None)
    with pytest.raises(M4MError, match="one is taken"):
        command.named_folders([str(place / "one"), f"one={place / 'two'}"])
    with pytest.raises(M4MError, match="no system three; there are one, two"):
        command.parts_of_samples(["three=all"], ["one", "two"])
    with pytest.raises(M4MError, match="of --generated folders; there are none"):
        command.parts_of_samples(["all"], [])
    with pytest.raises(M4MError, match="--model DIR or --generated NAME=DIR"):
        command.evaluate("copy", place / "report", None, [])
