from __future__ import annotations

import json

import pytest

from m4m_jax.bench import data
from m4m_jax.cli import _run
from m4m_jax.config import make_config
from m4m_jax.data import inspect
from m4m_jax.data.pipeline import Component, stream
from m4m_jax.music import get_task, write_midi


@pytest.fixture
def brief(monkeypatch):
    measure = data.measure
    monkeypatch.setattr(data, "SONGS", 12)
    monkeypatch.setattr(data, "measure", lambda folder: measure(folder, seconds=0.1, workers=1))


def test_figures_are_printed_and_written(brief, tmp_path, capsys):
    assert _run(["bench", "data", "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    lines = capsys.readouterr().out.splitlines()[-len(rows) :]
    assert [row["unit"] for row in rows] == ["start", "file", "window", "window"]
    for row, line in zip(rows, lines, strict=True):
        assert row["data"] == "made up"
        assert row["ours_s"] > 0
        assert row["per_second"] == pytest.approx(1 / row["ours_s"])
        assert line.startswith(f"{row['work']}: {row['per_second']:.4g} {row['unit']}s a second")
        assert "music: made up" in line
    assert rows[1]["count"] == 12
    assert rows[1]["ours_bytes"] > 2**24


def test_music_of_ones_own(brief, tmp_path, capsys):
    (tmp_path / "songs").mkdir()
    for seed in range(12):
        write_midi(data.made_up(seed), tmp_path / "songs" / f"{seed}.mid")
    assert _run(["bench", "data", "--data", str(tmp_path / "songs")]) == 0
    assert f"music: {tmp_path / 'songs'}" in capsys.readouterr().out
    assert _run(["bench", "data", "--data", str(tmp_path / "none")]) == 2
    assert _run(["bench", "data", "--json", str(tmp_path / "none" / "x.json")]) == 2


def test_songs_made_up_are_as_full_as_real_ones():
    """Shares of tokens that are not PAD as in large collections: .08 drums, .15 the others."""
    songs = [data.made_up(seed) for seed in range(8)]
    assert songs[0] == data.made_up(0)
    task = get_task("others-to-drums")
    config = make_config({"data": "x", "task": task.name}, "the test")
    found = inspect.packing_of(stream([Component(songs, task)]), config, batches=3)
    assert found.fill["target"] == pytest.approx(0.08, abs=0.02)
    assert found.fill["reference"] == pytest.approx(0.15, abs=0.03)
    assert found.distinct["target"] == pytest.approx(0.04, abs=0.02)
    assert found.distinct["reference"] == pytest.approx(0.33, abs=0.1)
