"""Songs made up are as full as real ones: shares of tokens that are not PAD, and of distinct rows.

The shares are those measured with batches of 8 windows on folk tunes and on a large collection.
"""

from __future__ import annotations

import pytest

from m4m_jax.bench import songs
from m4m_jax.config import make_config
from m4m_jax.data import inspect
from m4m_jax.data.pipeline import Component, stream
from m4m_jax.music import get_task, read_midi


def packing(name, made):
    task = get_task(name)
    config = make_config({"data": "x", "task": name}, "the test")
    return inspect.packing_of(stream([Component(made, task)]), config, batches=3)


def test_bands():
    found = packing("others-to-drums", [songs.band(seed) for seed in range(8)])
    assert found.fill["target"] == pytest.approx(0.08, abs=0.02)
    assert found.fill["reference"] == pytest.approx(0.15, abs=0.03)
    assert found.distinct["target"] == pytest.approx(0.04, abs=0.02)
    assert found.distinct["reference"] == pytest.approx(0.33, abs=0.1)


def test_tunes():
    found = packing("chord-to-melody", [songs.tune(seed) for seed in range(8)])
    assert found.fill["target"] == pytest.approx(0.10, abs=0.02)
    assert found.fill["reference"] == pytest.approx(0.09, abs=0.02)
    assert found.distinct["target"] == pytest.approx(0.02, abs=0.01)
    assert found.distinct["reference"] == pytest.approx(0.01, abs=0.005)


def test_what_is_written_is_what_is_made(tmp_path):
    songs.write(tmp_path / "songs", 2, songs.tune)
    for seed in range(2):
        read = read_midi(tmp_path / "songs" / f"{seed:03}.mid")
        assert read.notes.shape == songs.tune(seed).notes.shape
    assert songs.tune(0) == songs.tune(0) != songs.tune(1)
