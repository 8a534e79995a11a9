from __future__ import annotations

import functools
import json
import re

import pytest

from m4m_jax.bench import data, songs
from m4m_jax.cli import _run


@pytest.fixture
def brief(monkeypatch):
    measure = data.measure
    monkeypatch.setattr(data, "SONGS", 12)
    brief = functools.partial(measure, seconds=0.1, workers=1)
    monkeypatch.setattr(data, "measure", brief)


def test_figures_are_printed_and_written(brief, tmp_path, capsys):
    assert _run(["bench", "data", "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    lines = capsys.readouterr().out.splitlines()[-len(rows) :]
    assert [row["unit"] for row in rows] == ["start", "file", "window", "window"]
    for row, line in zip(rows, lines, strict=True):
        assert row["data"] == "made up"
        assert row["ours_s"] > 0
        assert row["per_second"] == pytest.approx(1 / row["ours_s"])
        assert line.startswith(f"{row['work']}: ")
        assert line.endswith(" (music: made up)")
    assert re.match(r"start a build, of one file: \d+\.\d\d s, 1 process \(music", lines[0])
    for row, line in zip(rows[1:], lines[1:], strict=True):
        assert f": {row['per_second']:.4g} {row['unit']}s a second, 1 process (" in line
        assert f"({row['count']} {row['unit']}s in " in line
    assert rows[1]["count"] == 12
    assert rows[1]["ours_bytes"] > 2**24


def test_music_of_ones_own(brief, tmp_path, capsys):
    songs.write(tmp_path / "songs", 12)
    assert _run(["bench", "data", "--data", str(tmp_path / "songs")]) == 0
    assert f"music: {tmp_path / 'songs'}" in capsys.readouterr().out
    assert _run(["bench", "data", "--data", str(tmp_path / "none")]) == 2
    assert _run(["bench", "data", "--work", "none"]) == 2
    assert _run(["bench", "data", "--json", str(tmp_path / "none" / "x.json")]) == 2


def test_work_that_the_music_has_no_parts_for(brief, tmp_path, capsys):
    songs.write(tmp_path / "songs", 12, songs.tune)
    assert _run(["bench", "data", "--data", str(tmp_path / "songs")]) == 0
    out = capsys.readouterr().out
    assert "pack windows, others-to-drums: left out: " in out
    assert "pack windows, continuation: " in out
    chosen = ["bench", "data", "--data", str(tmp_path / "songs"), "--work", "others-to-drums"]
    assert _run(chosen) == 2
