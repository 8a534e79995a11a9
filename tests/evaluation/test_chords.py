"""Chords by themselves and beside others, against what one counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from m4m_jax.evaluation import chords as module
from m4m_jax.evaluation.harmony import tonal_centroid
from m4m_jax.music import Label
from tests.evaluation.music import chords, part

C, F, G = (np.isin(np.arange(12), tones) for tones in ((0, 4, 7), (5, 9, 0), (7, 11, 2)))


def test_figures_by_hand():
    # Half bars of 4/4: C C F G.
    found = module.figures(chords("CCFG"))
    assert found["cc"] == 3
    assert found["che"] == pytest.approx(0.5 * np.log(2) + 2 * 0.25 * np.log(4))
    c, f, g = map(tonal_centroid, (C, F, G))
    steps = [0, np.linalg.norm(f - c), np.linalg.norm(g - f)]
    assert found["ctd"] == pytest.approx(np.mean(steps))


def test_the_chord_of_a_half_bar():
    # In 3/4 a half bar has 6 steps: C 6; F 2 and G 4; nothing; of C 3 and F 3 the first.
    changes = [("C", 0, 6), ("F", 6, 2), ("G", 8, 4), ("C", 18, 3), ("F", 21, 3)]
    triads = {"C": (60, 64, 67), "F": (65, 69, 72), "G": (67, 71, 74)}
    notes = [(start, length, p) for name, start, length in changes for p in triads[name]]
    found = module.half_bars(part(notes, 24, meter=(3, 4)))
    assert found.tolist() == [C.tolist(), G.tolist(), C.tolist()]


def test_inversions_are_one_chord():
    turned = part([(0, 8, 60), (0, 8, 64), (0, 8, 67), (8, 8, 52), (8, 8, 55), (8, 8, 60)], 16)
    assert module.figures(turned) == {"cc": 1.0, "che": 0.0, "ctd": 0.0}


def test_agreement_is_weighted_by_time():
    # C for 16 steps, F for 8, G for 8; written: C, then a minor and G.
    found = module.agreement(chords("CCFG"), chords("CCaG"))
    assert found == {"root": 0.75, "majmin": 0.75, "sevenths": 0.75}
    # The root of c minor is right.
    minor = part([(0, 32, p) for p in (60, 63, 67)], 32)
    assert module.agreement(chords("CCFG"), minor) == {"root": 0.5, "majmin": 0, "sevenths": 0}


def test_a_chord_against_none():
    assert module.agreement(chords("CC--"), chords("C---"))["majmin"] == 0.75
    assert module.agreement(chords("CC"), part([], 16))["root"] == 0
    # The truth's clock counts: what is written past its end is not asked for.
    assert module.agreement(chords("CC"), chords("CCF"))["root"] == 1


def test_what_cannot_be_judged_is_left_out():
    suspended = part([(0, 16, p) for p in (60, 65, 67)], 16)
    assert set(module.agreement(suspended, chords("CC"))) == {"root"}
    assert module.label_agreement([], [Label(0, 1, "C")]) == {}


def test_no_chords():
    assert module.figures(part([], 32)) == {}
    assert module.figures(chords("C", 1)) == {"cc": 1.0, "che": 0.0}
