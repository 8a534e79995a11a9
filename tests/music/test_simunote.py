from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4m_jax.errors import M4MError
from m4m_jax.music import (
    PLAIN,
    VELOCITY,
    compress_rows,
    from_rows,
    from_tokens,
    pitch_shift_range,
    shift_rows,
    shift_tokens,
    to_rows,
    to_tokens,
)
from m4m_jax.music.simunote import by_name, check_rows, encode
from tests.music.strategies import stored_rows, tables

EMPTY = [254, 255, 255, 255]
UNUSED = [255, 255, 255, 255]


def note(step, pitch, *, duration=1, program=0, velocity=64):
    return [step, duration, pitch, program, velocity, 0]


def rows_of(notes, length=1, max_notes=2, **options):
    return to_rows(np.array(notes, np.int32).reshape(-1, 6), length, max_notes, **options)


def multisets(rows, columns=(0, 1, 2)):
    """Each step's multiset of (program, pitch, bin)."""
    return [Counter(tuple(n[list(columns)].tolist()) for n in row if n[0] < 128) for row in rows]


def test_one_note():
    rows = rows_of([note(1, 60, duration=5, program=3, velocity=90)], length=3)
    assert rows.dtype == np.uint8
    assert rows.tolist() == [[EMPTY, UNUSED], [[3, 60, 3, 90], EMPTY], [EMPTY, UNUSED]]


def test_a_full_step_has_no_end_mark_and_keeps_the_first_notes():
    rows = rows_of([note(0, 62), note(0, 60), note(0, 64)])
    assert rows.tolist() == [[[0, 60, 0, 64], [0, 62, 0, 64]]]


def test_velocity_is_the_first_key():
    notes = [
        note(0, 60, velocity=90),
        note(0, 70, velocity=80, program=5),
        note(0, 50, velocity=90),
        note(0, 50, velocity=90, duration=0),
        note(0, 70, velocity=80, program=4),
        note(0, 50, velocity=90, duration=9),
    ]
    assert rows_of(notes, max_notes=6)[0].tolist() == [
        [4, 70, 0, 80],
        [5, 70, 0, 80],
        [0, 50, 0, 90],
        [0, 50, 0, 90],
        [0, 50, 5, 90],
        [0, 60, 0, 90],
    ]


def test_dedup_keeps_the_longest_bin_and_the_first_of_equal_ones():
    notes = [
        note(0, 60, duration=4, velocity=10),
        note(0, 60, duration=16, velocity=20),
        note(0, 60, duration=17, velocity=30),  # the same bin
        note(0, 60, duration=16, velocity=40, program=1),
        note(0, 61, velocity=50),
    ]
    assert rows_of(notes, max_notes=4, dedup=True)[0].tolist() == [
        [0, 60, 7, 20],
        [1, 60, 7, 40],
        [0, 61, 0, 50],
        EMPTY,
    ]


def test_dedup_comes_before_the_limit_of_a_step():
    notes = [note(0, 60), note(0, 60), note(0, 64)]
    assert rows_of(notes, dedup=True)[0].tolist() == [[0, 60, 0, 64], [0, 64, 0, 64]]


def test_notes_outside_the_steps_are_a_defect():
    with pytest.raises(ValueError, match="outside"):
        rows_of([note(1, 60)])


def test_tokens():
    rows = rows_of([note(0, 60, duration=2, program=5, velocity=100)], length=2)
    assert to_tokens(rows).tolist() == [[5, 128 * 2 + 60, 3329, 3330], [3329, 3330, 3330, 3330]]
    assert to_tokens(rows, VELOCITY).tolist() == [
        [5 + 128 * 12, 128 * 17 + 60, 5121, 5122],
        [5121, 5122, 5122, 5122],
    ]
    assert to_tokens(rows).dtype == np.int32
    assert from_tokens(to_tokens(rows), velocity=77).tolist() == [
        [[5, 60, 1, 77], EMPTY],
        [EMPTY, UNUSED],
    ]


def test_vocabularies():
    assert (PLAIN.sos, PLAIN.eos, PLAIN.pad, PLAIN.size) == (3328, 3329, 3330, 3331)
    assert (VELOCITY.sos, VELOCITY.eos, VELOCITY.pad, VELOCITY.size) == (5120, 5121, 5122, 5123)
    assert PLAIN.pitch_range == range(128, 3200)
    assert VELOCITY.pitch_range == range(2048, 5120)
    assert by_name("velocity") is VELOCITY
    with pytest.raises(M4MError, match="no vocabulary"):
        by_name("loud")


@given(stored_rows())
def test_decoding_and_encoding_keeps_the_notes_of_each_step(rows):
    T, N, _ = rows.shape
    once = to_rows(from_rows(rows).notes, T, N)
    assert multisets(once, (0, 1, 2, 3)) == multisets(rows, (0, 1, 2, 3))
    for vocabulary in (PLAIN, VELOCITY):
        table = from_rows(from_tokens(to_tokens(rows, vocabulary), vocabulary))
        again = to_rows(table.notes, T, N)
        assert multisets(again) == multisets(rows)
        tokens = to_tokens(again, vocabulary)
        second = to_rows(from_rows(from_tokens(tokens, vocabulary)).notes, T, N)
        assert (second == again).all()
        assert (to_tokens(second, vocabulary) == tokens).all()


@given(stored_rows(velocities=(100,)))
def test_equal_velocities_make_it_the_identity(rows):
    T, N, _ = rows.shape
    decoded = from_tokens(to_tokens(rows), velocity=100)
    assert (decoded == rows).all()
    assert (to_rows(from_rows(rows).notes, T, N) == rows).all()
    level = from_tokens(to_tokens(rows, VELOCITY), VELOCITY)
    assert (to_tokens(level, VELOCITY) == to_tokens(rows, VELOCITY)).all()


@given(stored_rows(), st.sampled_from([PLAIN, VELOCITY]))
def test_tokens_are_in_their_ranges(rows, vocabulary):
    tokens = to_tokens(rows, vocabulary)
    count = check_rows(rows)
    for step, used in zip(tokens.tolist(), count.tolist(), strict=True):
        assert all(t in vocabulary.program_range for t in step[: 2 * used : 2])
        assert all(t in vocabulary.pitch_range for t in step[1 : 2 * used : 2])
        rest = step[2 * used :]
        assert rest == [vocabulary.eos, *[vocabulary.pad] * (len(rest) - 1)][: len(rest)]
    assert tokens.shape == (len(rows), 2 * rows.shape[1])


@given(stored_rows())
def test_velocity_is_kept_to_its_level(rows):
    decoded = from_tokens(to_tokens(rows, VELOCITY), VELOCITY)
    used = rows[..., 0] < 128
    assert (decoded[used][:, 3] // 8 == rows[used][:, 3] // 8).all()
    assert (decoded[used][:, 3] > 0).all()


def test_no_steps():
    rows = rows_of([], length=0)
    assert rows.shape == (0, 2, 4)
    assert to_tokens(rows).shape == (0, 4)
    assert from_rows(rows).length == 0


GOOD = [[0, 60, 0, 64], EMPTY]


@pytest.mark.parametrize(
    "row",
    [
        [[0, 60, 0, 64], UNUSED],
        [EMPTY, [0, 60, 0, 64]],
        [EMPTY, EMPTY],
        [[128, 60, 0, 64], EMPTY],
        [[0, 128, 0, 64], EMPTY],
        [[0, 60, 24, 64], EMPTY],
        [[0, 60, 0, 128], EMPTY],
        [[254, 60, 255, 255], UNUSED],
        [EMPTY, [255, 255, 255, 0]],
    ],
)
@pytest.mark.parametrize("decode", [from_rows, to_tokens])
def test_malformed_rows(row, decode):
    with pytest.raises(M4MError, match="malformed row at step 1: slot"):
        decode(np.array([GOOD, row, row], np.uint8))


def test_malformed_shapes():
    with pytest.raises(M4MError, match="shape"):
        to_tokens(np.zeros((2, 3), np.uint8))
    with pytest.raises(M4MError, match="shape"):
        from_tokens(np.zeros((2, 3), np.int32))
    with pytest.raises(M4MError, match="velocity 0"):
        from_rows(np.array([[[0, 60, 0, 0]]], np.uint8))


@pytest.mark.parametrize(
    "step",
    [
        [60, 60, 3329, 3330],
        [0, 200, 0, 3329],
        [0, 3200, 3329, 3330],
        [0, 200, 3330, 3330],
        [3329, 3329, 3330, 3330],
        [3329, 3330, 0, 200],
        [0, 3329, 3330, 3330],
        [128, 200, 3329, 3330],
        [0, 200, 3329, 3328],
        [-1, 200, 3329, 3330],
        [3330, 3330, 3330, 3330],
    ],
)
def test_malformed_tokens(step):
    good = [0, 200, 3329, 3330]
    with pytest.raises(M4MError, match="malformed tokens at step 1"):
        from_tokens(np.array([good, step]))


def test_decoded_rows_have_a_track_per_program_and_drums():
    rows = rows_of([note(0, 60, program=127), note(1, 50, program=3, duration=8)], length=4)
    table = from_rows(rows, name="made up")
    assert [(t.name, t.program, t.is_drum) for t in table.tracks] == [
        ("made up", 3, False),
        ("made up", 0, True),
    ]
    assert table.notes.tolist() == [[1, 8, 50, 3, 64, 0], [0, 1, 60, 127, 64, 1]]
    assert table.length == 4


def test_pitch_shift_range():
    notes = np.array([note(0, 40), note(0, 90), note(0, 1, program=127)])
    assert pitch_shift_range(notes) == (-40, 37)
    assert pitch_shift_range(notes[2:]) == (0, 0)


@given(stored_rows(), st.integers(-10, 10), st.sampled_from([PLAIN, VELOCITY]))
def test_shifts_of_rows_and_tokens_agree(rows, semitones, vocabulary):
    pitched = (rows[..., 0] < 127) & (rows[..., 1] < 128)
    pitch = rows[pitched][:, 1].astype(int) + semitones
    if len(pitch) and not 0 <= pitch.min() <= pitch.max() <= 127:
        with pytest.raises(M4MError, match="out of the range"):
            shift_rows(rows, semitones)
        with pytest.raises(M4MError, match="out of the range"):
            shift_tokens(to_tokens(rows, vocabulary), semitones, vocabulary)
        return
    shifted = shift_rows(rows, semitones)
    assert (shifted[~pitched] == rows[~pitched]).all()
    assert (shifted[pitched][:, 1] == pitch).all()
    tokens = shift_tokens(to_tokens(rows, vocabulary), semitones, vocabulary)
    assert (tokens == to_tokens(shifted, vocabulary)).all()
    assert tokens.dtype == np.int32
    assert (shift_rows(shifted, -semitones) == rows).all()


@given(
    tables(),
    st.sampled_from([1, 2, 5]),
    st.booleans(),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([PLAIN, VELOCITY]),
)
def test_encoding_at_once_gives_the_tokens_of_the_rows(table, count, dedup, ratio, vocabulary):
    rows = compress_rows(to_rows(table.notes, table.length, count, dedup=dedup), ratio)
    found = encode(table.notes, table.length, count, vocabulary, dedup=dedup, ratio=ratio)
    assert np.array_equal(found, to_tokens(rows, vocabulary))
    assert found.dtype == np.int32
