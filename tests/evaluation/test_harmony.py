"""A melody and its chords, beside what one counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from m4m_jax.evaluation import harmony
from m4m_jax.evaluation.sounding import class_roll
from tests.evaluation.music import chords, part


def classes(*wanted: int) -> np.ndarray:
    return np.isin(np.arange(12), wanted)


def test_a_tones_place_in_tonal_space():
    centre = harmony.tonal_centroid(np.stack([classes(0), classes(7), classes()]))
    # C stands at angle 0 of each circle, G at 7 times 210, 270 and 120 degrees.
    half = np.sqrt(3) / 2
    np.testing.assert_allclose(centre[0], [0, 0, 0, 1, 1, 0.5], atol=1e-12)
    np.testing.assert_allclose(centre[1], [0.5, 1, half / 2, half, 0, -0.25], atol=1e-12)
    assert not centre[2].any()
    # A chord stands at the mean of its tones.
    triad = harmony.tonal_centroid(classes(0, 4, 7))
    tones = harmony.tonal_centroid(np.stack([classes(0), classes(4), classes(7)]))
    np.testing.assert_allclose(triad, tones.mean(axis=0))


def test_figures_by_hand():
    # Over C: E 4 steps, F 2 (to E), D 2 (to a rest, then A). Nothing under A. Over G: C 8 steps.
    melody = part([(0, 4, 64), (4, 2, 65), (6, 2, 62), (12, 4, 69), (16, 8, 60)], 24)
    found = harmony.figures(melody, chords("C-G"))
    assert found["chord_tone_ratio"] == 4 / 16
    assert found["coverage"] == 16 / 20
    # Chord tones: E. F is followed by D (3 below), D by A; C by nothing.
    assert found["ctnctr"] == 1 / 4
    # E over C E G: third 1, unison 1, sixth 1. F: fourth 0, minor second -1, seventh -1. D: second
    # -1, seventh -1, fifth 1. C over G B D: fourth 0, minor second -1, seventh -1.
    assert found["pcs"] == pytest.approx((4 * 1 - 2 * 2 / 3 - 2 / 3 - 8 * 2 / 3) / 16)
    # D is two semitones from a note that follows at once.
    assert harmony.figures(part([(0, 4, 62), (4, 4, 64)], 8), chords("C"))["ctnctr"] == 1.0


def test_the_distance_of_a_melody_from_its_chords():
    # C and then G, each against the single tone C.
    melody = part([(0, 6, 60), (6, 2, 67)], 8)
    sung, heard = class_roll(melody.notes, 8), class_roll(part([(0, 8, 48)], 8).notes, 8)
    half = np.sqrt(3) / 2
    apart = np.sqrt(0.5**2 + 1 + (half / 2) ** 2 + (1 - half) ** 2 + 1 + 0.75**2)
    assert harmony.melody_chord_distance(sung, heard) == pytest.approx(apart * 2 / 8)


def test_several_voices():
    # C and F sharp over C major: one of two tones, all the time.
    melody = part([(0, 8, 60), (0, 8, 66)], 8)
    found = harmony.figures(melody, chords("C"))
    assert found["chord_tone_ratio"] == 0.5
    assert found["ctnctr"] == 0.5
    # C: unison 1, E to C sixth 1, G to C fourth 0. F sharp: -1, -1 (second), -1 (seventh).
    assert found["pcs"] == pytest.approx((2 - 3) / 6)


def test_nothing_to_judge():
    assert harmony.figures(part([(0, 4, 60)], 8), chords("-")) == {"coverage": 0.0}
    assert harmony.figures(part([], 8), chords("C")) == {}
    # Drums are no melody.
    assert harmony.figures(part([(0, 4, 60)], 8, drum=True), chords("C")) == {}


def test_a_repeated_tone_is_near_what_follows_it():
    """D and D again, over C: the first is proper, the second is followed by nothing."""
    assert harmony.figures(part([(0, 4, 62), (4, 4, 62)], 8), chords("C"))["ctnctr"] == 1 / 2
    assert harmony.figures(part([(0, 4, 62)], 8), chords("C"))["ctnctr"] == 0


def test_what_rings_on_is_no_note_of_the_melody():
    melody = part([(0, 12, 66), (12, 4, 60)], 16)
    found = harmony.figures(melody, chords("CC"), skip=8)
    assert found["ctnctr"] == 1
    assert found["chord_tone_ratio"] == 0.5
