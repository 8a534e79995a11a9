from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4m_jax.errors import M4MError
from m4m_jax.music import Compression, NoteTable, Track, compress_rows, from_rows, stretch, to_rows
from m4m_jax.music.grid import DURATION_BINS, bin_to_duration
from m4m_jax.music.simunote import END, check_rows
from tests.music.strategies import stored_rows

RATIOS = st.sampled_from([1, 2, 4, 8, 16])


def rows_of(*notes: tuple[int, int, int], length: int = 16) -> np.ndarray:
    """Rows of piano notes (step, duration, pitch)."""
    table = np.array([[s, d, p, 0, 90, 0] for s, d, p in notes], np.int32)
    return to_rows(table, length, 4)


def test_every_rth_step_with_durations_in_units_of_r():
    notes = rows_of((0, 8, 60), (1, 4, 61), (4, 12, 62), (4, 1, 63), (6, 4, 64), (8, 2, 65))
    half = rows_of((0, 4, 60), (2, 6, 62), (2, 1, 63), (3, 2, 64), (4, 1, 65), length=8)
    assert np.array_equal(compress_rows(notes, 2), half)
    quarter = rows_of((0, 2, 60), (1, 3, 62), (1, 1, 63), (2, 1, 65), length=4)
    assert np.array_equal(compress_rows(notes, 4), quarter)


@pytest.mark.parametrize("ratio", [2, 4, 8, 16, 32])
def test_a_bin_falls_by_two_for_each_doubling(ratio):
    notes = [(ratio * k, int(d), 60) for k, d in enumerate(DURATION_BINS)]
    rows = compress_rows(rows_of(*notes, length=ratio * len(notes)), ratio)
    bins = rows[:, 0, 2].astype(int)
    assert bins.tolist() == np.maximum(np.arange(24) - 2 * int(np.log2(ratio)), 0).tolist()
    long = np.flatnonzero(2 * ratio <= DURATION_BINS)
    assert (bin_to_duration(bins)[long] * ratio == DURATION_BINS[long]).all()


@given(stored_rows())
def test_a_ratio_of_one_changes_nothing(rows):
    assert np.array_equal(compress_rows(rows, 1), rows)
    table = from_rows(rows)
    assert stretch(table, 1, table.length) == table


@given(stored_rows(), RATIOS)
def test_compressed_rows_are_rows(rows, ratio):
    before, made = rows.copy(), compress_rows(rows, ratio)
    assert np.array_equal(rows, before)
    assert made.dtype == np.uint8
    assert made.shape == (-(-len(rows) // ratio), *rows.shape[1:])
    assert np.array_equal(check_rows(made), check_rows(rows)[::ratio])
    kept = rows[::ratio]
    assert np.array_equal(np.delete(made, 2, axis=-1), np.delete(kept, 2, axis=-1))
    # The order of `to_rows`: by velocity, program, pitch, bin.
    keys = made[..., [3, 0, 1, 2]].astype(np.int64) @ [1 << 24, 1 << 16, 1 << 8, 1]
    both = (made[:, 1:, 0] < END) & (made[:, :-1, 0] < END)
    assert (np.diff(keys, axis=1)[both] >= 0).all()


@given(stored_rows(), RATIOS, RATIOS)
def test_ratios_multiply(rows, first, second):
    twice = compress_rows(compress_rows(rows, first), second)
    assert np.array_equal(twice, compress_rows(rows, first * second))


@given(stored_rows(), RATIOS)
def test_stretching_undoes_compression_on_what_it_kept(rows, ratio):
    coarse = compress_rows(rows, ratio)
    table = stretch(from_rows(coarse), ratio, len(rows))
    assert table.length == len(rows)
    again = to_rows(table.notes, table.length, rows.shape[1])
    assert np.array_equal(compress_rows(again, ratio), coarse)
    on = np.arange(len(rows)) % ratio == 0
    assert not check_rows(again)[~on].any()


def test_stretched_notes_are_r_times_as_far_apart_and_as_long():
    notes = np.array([[0, 1, 60, 5, 80, 0], [3, 4096, 62, 5, 80, 0]], np.int32)
    table = NoteTable(notes, (Track("a", 5),), 4, np.array([[0.0, 90.0]]))
    wide = stretch(table, 4, 14)
    assert wide.notes[:, :2].tolist() == [[0, 4], [12, 4 * 4096]]
    assert (wide.notes[:, 2:] == notes[:, 2:]).all()
    assert (wide.length, wide.tracks) == (14, table.tracks)
    assert np.array_equal(wide.tempos, table.tempos)


@pytest.mark.parametrize("ratio", [0, -2, 3, 6])
def test_ratios_are_powers_of_two(ratio):
    with pytest.raises(M4MError, match=f"compression of {ratio} for the target is no power of two"):
        Compression(target=ratio)
    with pytest.raises(M4MError, match="for the reference"):
        Compression(reference=ratio)
    assert Compression(4, 8).stride == 8
    assert Compression(4, 1).stride == 4
    assert Compression() == Compression(1, 1)
