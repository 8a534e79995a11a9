from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m4m_jax.data.packing import unpack
from m4m_jax.models.system import System
from m4m_jax.music.simunote import PLAIN, VELOCITY, from_rows, from_tokens
from m4m_jax.sampling.sampler import (
    Sampling,
    draw,
    fold_keys,
    sample_keys,
    truncate,
    well_formed,
    write_window,
)
from m4m_jax.sampling.songs import empty_rows, fill, window_starts, write_song
from tests.models.conftest import random_rows
from tests.models.small import MICRO, packed, packed_logits, small_cross, small_lm, small_system

pytestmark = pytest.mark.usefixtures("quick_compile")

WINDOW, NOTES = 9, 3
GREEDY = Sampling(0.0)
FORM = well_formed(PLAIN)
REFERENCE = random_rows(50, 1, WINDOW, NOTES)


@pytest.fixture(scope="module")
def lm() -> System:
    return small_lm(3, MICRO)


@pytest.fixture(scope="module")
def cross() -> System:
    system = small_cross(3, MICRO)
    for link in system.links:
        link.gate[...] = jnp.full(1, 4.0)  # so that references count
    return system


@pytest.fixture(scope="module")
def pair() -> System:
    """A cross-attentive adapter whose reference is read by another language model."""
    return small_system("cross", 3, MICRO, dataclasses.replace(MICRO, width=48, layers=2, heads=3))


@pytest.fixture(scope="module")
def self_attentive() -> System:
    return small_system("self", 3, MICRO)


@pytest.fixture(scope="module")
def coco_mulla() -> System:
    return small_system("coco-mulla", 3, MICRO)


@pytest.fixture(scope="module")
def seq2seq() -> System:
    return small_system("seq2seq", 3, MICRO)


def logits_of(system: System, target: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
    """Logits [B, T, 2N, V] by the packed pass, which has no caches."""
    batch = packed(target, reference)
    return unpack(np.asarray(packed_logits(system, batch)), batch)


def write(
    system: System,
    *,
    samples=1,
    seed=0,
    prompt=None,
    stop=WINDOW,
    sampling=GREEDY,
    allowed=FORM,
    reference=REFERENCE,
) -> np.ndarray:
    """A window of rows [samples, stop, 2N] that the small systems write."""
    prompt = np.zeros((1, 0, 2 * NOTES), np.int32) if prompt is None else prompt
    linked = system.lm is not system
    return write_window(
        system,
        np.repeat(reference, samples, axis=0) if linked else None,
        np.repeat(prompt, samples, axis=0),
        stop,
        sample_keys(seed, samples),
        sampling,
        window=WINDOW,
        allowed=allowed,
    )


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("lm", 0),
        ("lm", 4),
        ("cross", 0),
        ("cross", 4),
        ("pair", 0),
        ("self_attentive", 4),
        ("coco_mulla", 4),
        ("seq2seq", 4),
    ],
)
def test_greedy_takes_the_likeliest_token_of_the_packed_pass(kind, given, request):
    """The caches of all stacks hold what a pass over the whole window computes."""
    system = request.getfixturevalue(kind)
    prompt = random_rows(9, 1, given, NOTES) if given else None
    rows = write(system, prompt=prompt)
    assert rows.shape == (1, WINDOW, 2 * NOTES)
    logits = logits_of(system, rows, None if kind == "lm" else REFERENCE)[0]
    places = np.where(FORM[np.arange(2 * NOTES) % 2], logits, -np.inf)
    best = places.max(axis=-1)
    chosen = np.take_along_axis(places, rows[0][..., None], axis=-1)[..., 0]
    real = rows[0] != PLAIN.pad
    real[:given] = False
    assert real[given:].any(axis=-1).all()
    # Ties aside, the written token is the likeliest one.
    np.testing.assert_allclose(chosen[real], best[real], atol=1e-4)
    runner_up = np.sort(places, axis=-1)[..., -2][real]
    clear = best[real] - runner_up > 1e-3
    assert clear.mean() > 0.8
    assert (places.argmax(axis=-1)[real] == rows[0][real])[clear].all()


@pytest.mark.parametrize("kind", ["lm", "cross"])
def test_the_prompt_is_kept_and_read(kind, request):
    system = request.getfixturevalue(kind)
    outs = []
    for seed in (11, 12):
        prompt = random_rows(seed, 1, 4, NOTES)
        rows = write(system, samples=4, prompt=prompt, sampling=Sampling(1.0))
        assert (rows[:, :4] == prompt).all()
        outs.append(rows[:, 4:])
    assert not np.array_equal(*outs)


def test_what_is_written_depends_on_the_reference(cross):
    first = write(cross, samples=4, sampling=Sampling(1.0))
    other = write(cross, samples=4, sampling=Sampling(1.0), reference=random_rows(51, 1, WINDOW, 3))
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("kind", ["lm", "cross"])
def test_a_sample_does_not_depend_on_how_many_there_are(kind, request):
    system = request.getfixturevalue(kind)
    many = write(system, samples=4, sampling=Sampling(1.0))
    few = write(system, samples=2, sampling=Sampling(1.0))
    np.testing.assert_array_equal(many[:2], few)
    assert len(np.unique(many.reshape(4, -1), axis=0)) == 4


def test_seeds_differ_and_repeat(lm):
    one, again, other = (write(lm, seed=s, sampling=Sampling(1.0)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_temperature_zero_and_one_candidate_are_greedy(lm):
    greedy = write(lm, samples=2)
    np.testing.assert_array_equal(greedy[0], greedy[1])
    np.testing.assert_array_equal(write(lm, samples=2, seed=5), greedy)
    np.testing.assert_array_equal(write(lm, samples=2, sampling=Sampling(0.7, top_k=1)), greedy)
    tiny = write(lm, samples=2, sampling=Sampling(0.7, None, 1e-6))
    np.testing.assert_array_equal(tiny, greedy)


def test_rows_are_well_formed(lm):
    rows = write(lm, samples=4, sampling=Sampling(3.0))
    for sample in rows:
        table = from_rows(from_tokens(sample))
        assert table.length == WINDOW
        assert len(table.notes) > 5


def test_only_the_programs_asked_for(lm):
    programs = np.zeros(128, bool)
    programs[[4, 127]] = True
    rows = write(lm, samples=4, sampling=Sampling(2.0), allowed=well_formed(PLAIN, programs))
    tables = [from_rows(from_tokens(sample)) for sample in rows]
    assert {t.program for table in tables for t in table.tracks if not t.is_drum} == {4}
    assert any(t.is_drum for table in tables for t in table.tracks)


def test_without_the_constraint_any_token_may_come(lm):
    rows = write(lm, samples=4, sampling=Sampling(5.0), allowed=None)
    notes = rows[..., 0] != PLAIN.eos
    assert (rows[..., 0][notes] >= 128).any()


def test_stop_leaves_the_rest_unwritten(lm):
    whole = write(lm, sampling=Sampling(1.0))
    part = write(lm, stop=5, sampling=Sampling(1.0))
    np.testing.assert_array_equal(part, whole[:, :5])


@pytest.mark.parametrize("vocabulary", [PLAIN, VELOCITY])
def test_well_formed_places(vocabulary):
    allowed = well_formed(vocabulary)
    levels = 16 if vocabulary.velocity else 1
    assert allowed[0].sum() == 128 * levels + 1
    assert allowed[1].sum() == len(vocabulary.pitch_range)
    assert allowed[0, vocabulary.eos]
    assert not allowed[1, vocabulary.eos]
    assert not allowed[:, [vocabulary.sos, vocabulary.pad]].any()
    programs = np.arange(128) == 7
    assert well_formed(vocabulary, programs)[0].sum() == levels + 1


def shares(sampling: Sampling, logits) -> np.ndarray:
    """Shares of tokens among many draws."""
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = jax.jit(jax.vmap(lambda k: draw(k, jnp.asarray(logits), sampling)))(keys)
    return np.bincount(drawn, minlength=len(logits)) / len(keys)


WEIGHTS = np.array([0.05, 0.4, 0.25, 0.2, 0.1])


@pytest.mark.parametrize(
    ("sampling", "kept", "power"),
    [
        (Sampling(), [0, 1, 2, 3, 4], 1.0),
        (Sampling(0.5), [0, 1, 2, 3, 4], 2.0),
        (Sampling(top_k=2), [1, 2], 1.0),
        (Sampling(top_k=99), [0, 1, 2, 3, 4], 1.0),
        (Sampling(top_p=0.39), [1], 1.0),
        (Sampling(top_p=0.41), [1, 2], 1.0),
        (Sampling(top_p=0.86), [1, 2, 3, 4], 1.0),
        (Sampling(top_p=1.0), [0, 1, 2, 3, 4], 1.0),
        (Sampling(top_p=0.0), [1], 1.0),
        (Sampling(0.5, top_p=0.56), [1], 2.0),
        (Sampling(0.5, top_p=0.6), [1, 2], 2.0),
        # Of the three likeliest, the two that make up 0.7 of their sum.
        (Sampling(1.0, 3, 0.7), [1, 2], 1.0),
        (Sampling(1.0, 1, 0.7), [1], 1.0),
    ],
)
def test_draws_follow_what_is_left(sampling, kept, power):
    want = np.zeros(5)
    want[kept] = WEIGHTS[kept] ** power
    want /= want.sum()
    found = shares(sampling, np.log(WEIGHTS).astype(np.float32))
    assert (found[want == 0] == 0).all()
    np.testing.assert_allclose(found, want, atol=0.015)


def test_what_is_not_allowed_never_comes_back():
    logits = jnp.array([0.0, -jnp.inf, 1.0, -jnp.inf])
    for sampling in (Sampling(top_k=3), Sampling(top_p=0.999), Sampling(0.0)):
        assert (shares(sampling, logits)[[1, 3]] == 0).all()
    assert (truncate(logits, Sampling(top_k=1)) > -jnp.inf).tolist() == [False, False, True, False]


def test_numbers_may_be_traced():
    logits = jnp.log(jnp.asarray(WEIGHTS))
    many = jax.vmap(lambda k: truncate(logits, Sampling(1.0, k)))(jnp.arange(1, 4))
    assert np.isfinite(many).sum(axis=1).tolist() == [1, 2, 3]


# Songs, window by window.


def song(system: System, steps: int, *, prompt=None, sampling=GREEDY, samples=2) -> np.ndarray:
    reference = None if system.lm is system else random_rows(60, 1, steps, NOTES)[0]
    prompt = np.zeros((0, 2 * NOTES), np.int32) if prompt is None else prompt
    return write_song(
        system, reference, prompt, steps, sample_keys(0, samples), sampling, window=WINDOW,
        allowed=FORM,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["lm", "cross"])
def test_windows_go_on_from_the_end_of_the_one_before(kind, request):
    system = request.getfixturevalue(kind)
    steps = 2 * WINDOW + 2
    rows = song(system, steps)
    assert rows.shape == (2, steps, 2 * NOTES)
    reference = random_rows(60, 1, steps, NOTES)[0] if kind == "cross" else None
    # By hand: windows begin at 0 and 6, and the last where it ends with the song.
    want = np.zeros((1, 0, 2 * NOTES), np.int32)
    for start in (0, 6, 11):
        heard = None
        if reference is not None:
            heard = fill(reference[start : start + WINDOW], WINDOW, PLAIN)[None]
        got = write_window(
            system, heard, want[:, start:], min(WINDOW, steps - start), sample_keys(0, 1), GREEDY,
            window=WINDOW, allowed=FORM,
        )  # fmt: skip
        want = np.concatenate([want[:, :start], got], axis=1)
    np.testing.assert_array_equal(rows[:1], want)


def test_where_windows_begin():
    assert window_starts(9, 9) == [0]
    assert window_starts(10, 9) == [0, 1]
    assert window_starts(24, 9) == [0, 6, 12, 15]
    assert window_starts(24, 8, stride=4) == [0, 8, 16]
    # On bars of 4 steps, also where the song begins with half of one.
    assert window_starts(24, 9, starts=np.arange(0, 24, 4)) == [0, 4, 8, 12, 16]
    assert window_starts(22, 9, starts=np.arange(-2, 22, 4)) == [-2, 2, 6, 10, 14]
    assert window_starts(30, 9, starts=np.array([0, 20])) == [0, 6, 12, 18, 20, 21]


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 40), st.sampled_from([1, 2, 4]), st.data())
def test_windows_follow_each_other_to_the_end(steps, window, stride, data):
    window *= stride
    bars = data.draw(
        st.none() | st.sets(st.integers(1, steps)).map(lambda b: np.array(sorted({0, *b})))
    )
    found = window_starts(steps, window, stride, bars)
    ahead = np.diff(found)
    assert found[0] == 0
    assert all(start % stride == 0 for start in found)
    assert (ahead > 0).all()
    assert (ahead <= window).all()
    assert found[-1] + window >= steps
    assert all(start + window < steps for start in found[:-1])


def test_steps_before_a_song_are_silent(cross):
    """A window that begins before the song is one that begins with silence."""
    reference = random_rows(60, 1, WINDOW - 2, NOTES)[0]
    how = {"window": WINDOW, "allowed": FORM}
    prompt, keys = np.zeros((0, 2 * NOTES), np.int32), sample_keys(0, 1)
    starts = np.array([-2, 2])
    rows = write_song(
        cross, reference, prompt, WINDOW - 2, keys, Sampling(1.0), starts=starts, **how
    )
    silence = empty_rows(2, 2 * NOTES, PLAIN)
    want = write_window(
        cross, np.concatenate([silence, reference])[None], silence[None], WINDOW,
        fold_keys(keys, 0), Sampling(1.0), **how,
    )  # fmt: skip
    np.testing.assert_array_equal(rows, want[:, 2:])


def test_windows_draw_numbers_of_their_own(lm):
    rows = song(lm, 3 * WINDOW, sampling=Sampling(1.0), samples=3)
    assert len(np.unique(rows.reshape(3, -1), axis=0)) == 3
    # Were the draws of each window the same, rows would repeat at the windows' distance of six.
    assert not np.array_equal(rows[:, 9:15], rows[:, 15:21])


@pytest.mark.parametrize("steps", [1, 2, WINDOW - 1, WINDOW, WINDOW + 1])
def test_songs_of_any_length(cross, steps):
    rows = song(cross, steps)
    assert rows.shape == (2, steps, 2 * NOTES)
    for sample in rows:
        from_tokens(sample)
    np.testing.assert_array_equal(rows[0], rows[1])


def test_a_song_begins_with_its_prompt(lm):
    prompt = random_rows(8, 1, 7, NOTES)[0]
    rows = song(lm, 12, prompt=prompt)
    assert all(np.array_equal(sample[:7], prompt) for sample in rows)


def test_the_smallest_windows_come_to_an_end(lm):
    prompt = np.zeros((0, 2 * NOTES), np.int32)
    for window in (1, 2):
        rows = write_song(lm, None, prompt, 5, sample_keys(0, 1), GREEDY, window=window)
        assert rows.shape == (1, 5, 2 * NOTES)


def test_empty_rows_hold_no_notes():
    rows = empty_rows(3, 8, PLAIN)
    assert len(from_rows(from_tokens(rows)).notes) == 0
    song = random_rows(0, 1, 5, 4)[0]
    np.testing.assert_array_equal(fill(song, 7, PLAIN)[:5], song)
    assert len(from_rows(from_tokens(fill(song[:0], 7, PLAIN))).notes) == 0
