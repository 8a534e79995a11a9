"""Figures of a part by itself, beside what one counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from m4m_jax.evaluation import general
from tests.evaluation.music import part


def test_figures_by_hand():
    # Bars of 2/4, 8 steps: onsets at 0 and 4; 0 and 2; 4.
    notes = [(0, 2, 60), (0, 4, 64), (4, 2, 62), (8, 1, 60), (10, 1, 61), (20, 8, 72)]
    found = general.figures(part(notes, 24, meter=(2, 4)))
    assert found["note_density"] == 6 / 24
    # 0..3, 4, 5, 8, 10, 20..23 sound: 12 of 24.
    assert found["empty_steps"] == 0.5
    # Twice two pitches, ten times one.
    assert found["polyphony"] == pytest.approx(14 / 12)
    assert found["pitch_range"] == 12
    # C 3, E 1, D 1, C sharp 1 of 6.
    assert found["pitch_class_entropy"] == pytest.approx(0.5 + 3 * np.log2(6) / 6)
    # C major has all but C sharp.
    assert found["scale_consistency"] == pytest.approx(5 / 6)
    # Of 8 positions bars 0 and 1 differ at two, 0 and 2 at one, 1 and 2 at three.
    assert found["groove_similarity"] == pytest.approx(1 - 6 / 24)


def test_only_bars_of_equal_length_are_paired():
    notes = [(0, 1, 60), (12, 1, 60), (24, 1, 60), (25, 1, 60)]
    # 3/4, 3/4, and then a bar of 5/4 that the end cuts off.
    song = part(notes, 40).replace(meters=np.array([[0, 3, 4], [24, 5, 4]], float))
    assert general.groove_similarity(song) == 1.0
    assert general.groove_similarity(part(notes[:2], 16)) is None


def test_drums_have_no_pitch():
    found = general.figures(part([(0, 1, 36), (8, 1, 38)], 32, drum=True))
    assert set(found) == {"note_density", "empty_steps", "polyphony", "groove_similarity"}


def test_a_part_without_notes():
    found = general.figures(part([], 32))
    assert found == {"note_density": 0.0, "empty_steps": 1.0}
    assert general.figures(part([], 0)) == {}


def test_what_rings_on_sounds_but_does_not_begin():
    # Of two bars of 4/4 after the first, the first has a note that was struck before.
    song = part([(0, 20, 61), (24, 4, 60), (40, 4, 60)], 48)
    found = general.figures(song, skip=16)
    assert found["note_density"] == 2 / 32
    assert found["empty_steps"] == 1 - 12 / 32
    assert found["pitch_range"] == 1
    assert found["pitch_class_entropy"] == 0
    assert found["groove_similarity"] == 1
    assert "groove_similarity" not in general.figures(song, skip=32)
