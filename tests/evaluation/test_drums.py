"""Drums beside the song's own, against what one counts by hand."""

from __future__ import annotations

import re

import pytest

from m4m_jax.evaluation import drums
from tests.evaluation.music import part


def kit(*hits: tuple[int, int], length: int = 32):
    return part([(step, 1, pitch) for step, pitch in hits], length, drum=True)


OWN = kit((0, 36), (0, 42), (8, 38), (16, 36), (24, 40), (24, 49))
# The kick is another drum, one snare is; a hat is late; the crash is missing, a tom is too many.
OTHER = kit((0, 35), (1, 42), (8, 38), (16, 36), (24, 38), (24, 45))


def test_onsets_drum_by_drum_and_in_groups():
    found = drums.figures(OWN, OTHER)
    assert found["drum_f1"] == pytest.approx(2 * 2 / 12)
    assert found["group_f1"] == pytest.approx(2 * 4 / 12)
    assert [found[f"{name}_f1"] for name in drums.GROUPS] == [1, 1, 0, 0, 0]
    by_drum = {35: 0, 36: 2 / 3, 38: 2 / 3, 40: 0, 42: 0, 45: 0, 49: 0}
    of_one = {name: f1 for name, f1 in found.items() if re.fullmatch(r"drum_\d+_f1", name)}
    assert of_one == {f"drum_{pitch}_f1": f1 for pitch, f1 in by_drum.items()}


def test_the_groove_bar_by_bar():
    # Bar 0 has another onset at step 1 of 16; bar 1 is alike.
    assert drums.groove_agreement(OWN, OTHER) == pytest.approx((15 / 16 + 1) / 2)
    assert drums.groove_agreement(OWN, kit((0, 36), length=8)) == pytest.approx(
        (15 / 16 + 14 / 16) / 2
    )


@pytest.mark.parametrize(
    ("group", "pitches"),
    [
        ("kick", (35, 36)),
        ("snare", (37, 38, 39, 40)),
        ("hats", (42, 44, 46)),
        ("toms", (41, 43, 45, 47, 48, 50)),
        ("cymbals", (49, 51, 52, 53, 55, 57, 59)),
    ],
)
def test_drums_of_a_group_are_one_drum(group, pitches):
    for pitch in pitches:
        found = drums.figures(kit((0, pitches[0])), kit((0, pitch)))
        assert (found["group_f1"], found[f"{group}_f1"]) == (1, 1), pitch
        assert found["drum_f1"] == (pitch == pitches[0])


def test_other_percussion_is_one_more_group():
    found = drums.figures(kit((0, 56), (4, 70)), kit((0, 70), (8, 36)))
    assert found["group_f1"] == 2 * 1 / 4
    assert drums.figures(kit((0, 56)), kit((0, 49)))["group_f1"] == 0


def test_several_hits_of_one_drum_count_once():
    assert drums.figures(kit((0, 36)), kit((0, 36), (0, 36)))["drum_f1"] == 1


def test_what_is_missing_on_both_sides_is_left_out():
    found = drums.figures(kit((0, 36)), kit())
    assert found["kick_f1"] == 0
    assert "toms_f1" not in found
    pitched = part([(0, 1, 36)], 32)
    assert drums.figures(kit((0, 36)), pitched)["drum_f1"] == 0
