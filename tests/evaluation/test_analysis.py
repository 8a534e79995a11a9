"""Beats of an analysis, against what one counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from m4m_jax.evaluation import analysis
from m4m_jax.music import beats_to_notes
from tests.evaluation.music import part


def test_beats_are_every_second_eighth():
    song = part([(0, 1, 60)], 40).replace(meters=np.array([[0, 4, 4], [16, 3, 4]], float))
    notes = beats_to_notes(song).notes
    assert analysis.beat_steps(notes).tolist() == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36]
    assert analysis.downbeat_steps(notes).tolist() == [0, 16, 28]
    # A bar of five eighths: counted anew from each downbeat.
    odd = beats_to_notes(part([(0, 1, 60)], 20, meter=(5, 8))).notes
    assert analysis.beat_steps(odd).tolist() == [0, 4, 8, 10, 14, 18]


def test_beats_before_the_first_downbeat():
    hats = [(step, 2, 42) for step in range(2, 12, 2)]
    pickup = part([*hats, (8, 2, 35)], 12, drum=True)
    assert analysis.beat_steps(pickup.notes).tolist() == [4, 8]
    assert analysis.beat_steps(part(hats, 12, drum=True).notes).tolist() == [2, 6, 10]


def test_f_measures():
    song = part([(0, 1, 60)], 64)
    beats = beats_to_notes(song)
    assert analysis.figures(beats, beats) == {"beat_f": 1, "downbeat_f": 1}
    # Half as fast: 8 of 16 beats; the downbeats of every second bar, two of four.
    slow = part(
        [(s, 2, 42) for s in range(0, 64, 4)] + [(s, 2, 35) for s in (0, 32)], 64, drum=True
    )
    found = analysis.figures(beats, slow)
    assert found["beat_f"] == pytest.approx(2 * 8 / (16 + 8))
    assert found["downbeat_f"] == pytest.approx(2 * 2 / (4 + 2))


def test_no_beats():
    beats = beats_to_notes(part([(0, 1, 60)], 64))
    assert analysis.figures(beats, part([], 64)) == {"beat_f": 0, "downbeat_f": 0}
    assert analysis.figures(part([], 64), beats) == {}
