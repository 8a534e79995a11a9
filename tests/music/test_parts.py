import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4m_jax.errors import M4MError
from m4m_jax.music import NoteTable, Track, select
from tests.music.strategies import tables


def song(*onsets, drums=(), names=None):
    """A track for each list of onsets; `drums` are the numbers of drum tracks."""
    names = names or [""] * len(onsets)
    tracks = tuple(Track(names[k], k, k in drums) for k in range(len(onsets)))
    rows = [
        [step, 1, 60, tracks[k].note_program, 64, k]
        for k, steps in enumerate(onsets)
        for step in steps
    ]
    return NoteTable(np.array(rows, np.int32).reshape(-1, 6), tracks, 64)


FOUR = song([0, 4], [1], [2], [3], drums=(2,), names=["Lead", "lead ", "Kit", ""])


@pytest.mark.parametrize(
    ("selector", "tracks"),
    [
        ("all", {0, 1, 2, 3}),
        ("track-0", {0}),
        ("track-2", {2}),
        ("upto-1", {0, 1}),
        ("upto-0", {0}),
        ("from-2", {2, 3}),
        ("from-0", {0, 1, 2, 3}),
        ("notrack-1", {0, 2, 3}),
        ("drum", {2}),
        ("nondrum", {0, 1, 3}),
        ("empty", set()),
        ("LEAD", {0, 1}),
        ("kit", {2}),
    ],
)
def test_selectors(selector, tracks):
    part = select(FOUR, selector)
    assert set(part.notes[:, 5].tolist()) == tracks
    assert part.tracks == FOUR.tracks
    assert part.length == FOUR.length
    wanted = np.isin(FOUR.notes[:, 5], list(tracks))
    assert (part.notes == FOUR.notes[wanted]).all()


def test_names_that_a_data_set_defines_go_first():
    names = {"lead": "track-2", "all but one": "notrack-0", "track-1": "track-3"}
    assert set(select(FOUR, "lead", names=names).notes[:, 5]) == {2}
    assert set(select(FOUR, "all but one", names=names).notes[:, 5]) == {1, 2, 3}
    assert set(select(FOUR, "track-1", names=names).notes[:, 5]) == {3}


@pytest.mark.parametrize("selector", ["track-4", "upto-4", "from-4", "notrack-9"])
def test_no_such_track(selector):
    with pytest.raises(M4MError, match=f"no part '{selector}'; .*track-0 .Lead., .*track-2") as e:
        select(FOUR, selector)
    assert "\n" not in str(e.value)
    assert "drums" in str(e.value)


@pytest.mark.parametrize("selector", ["", "tracks-0", "track--1", "track-", "melody", "random-2"])
def test_no_such_selector(selector):
    with pytest.raises(M4MError, match=r"no part .*choose from bass, all, track-K.*track-3"):
        select(FOUR, selector, names={"bass": "track-1"})


def test_a_track_without_a_name_has_none():
    with pytest.raises(M4MError, match="no part ' '"):
        select(FOUR, " ")


def test_a_song_without_drums_has_an_empty_drum_part():
    assert len(select(song([0], [1]), "drum").notes) == 0


@given(tables(), st.integers(0, 100))
def test_random_parts_complement_each_other(table, seed):
    if len(np.unique(table.notes[:, 5])) < 2:
        with pytest.raises(M4MError, match="two tracks with notes"):
            select(table, "random-0", seed=seed)
        return
    one, two = (select(table, f"random-{k}", seed=seed).notes for k in (0, 1))
    assert len(one)
    assert len(two)
    assert not set(one[:, 5]) & set(two[:, 5])
    assert len(one) + len(two) == len(table.notes)
    again = select(table, "random-0", seed=seed).notes
    assert (again == one).all()


def test_random_parts_vary_with_the_seed():
    splits = {tuple(select(FOUR, "random-0", seed=s).notes[:, 5].tolist()) for s in range(200)}
    assert len(splits) == 2**4 - 2


def test_random_parts_are_drawn_from_the_songs_notes():
    splits = []
    for shift in range(60):
        table = FOUR.replace(notes=FOUR.notes + np.array([0, 0, shift, 0, 0, 0], np.int32))
        one, two = (select(table, f"random-{k}").notes[:, 5].tolist() for k in (0, 1))
        assert sorted(one + two) == FOUR.notes[:, 5].tolist()
        splits.append(tuple(one))
    assert len(set(splits)) > 8


QUARTERS = [0, 4, 8, 12]
DENSE = [0, 1, 2, 3]


def test_density():
    # Shares of onsets on quarter notes: 1, 1/4, 3/4, 4/5.
    table = song(QUARTERS, DENSE, [0, 4, 8, 9], [0, 4, 8, 12, 13])
    assert set(select(table, "sparse").notes[:, 5]) == {0, 3}
    assert set(select(table, "dense").notes[:, 5]) == {1, 2}


@pytest.mark.parametrize(
    "onsets",
    [
        [QUARTERS],
        [QUARTERS, QUARTERS],
        [DENSE, DENSE],
        [DENSE, [0, 4, 8, 12, 13]],  # 0.8 is not above 0.8
        [QUARTERS, [0, 4, 8, 12, 16, 20, 24, 1, 2, 3]],  # 0.7 is not below 0.7
        [QUARTERS, []],
    ],
)
def test_songs_that_density_does_not_split(onsets):
    for selector in ("dense", "sparse"):
        with pytest.raises(M4MError, match="split by density"):
            select(song(*onsets), selector)


def test_long_lists_of_parts_are_cut_short():
    table = song(*[[0]] * 20)
    with pytest.raises(M4MError, match=r"track-6, \.\.\. track-19$"):
        select(table, "track-20")
