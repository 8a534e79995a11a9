import numpy as np

from m4m_jax.music import grid


def test_halves_round_to_even():
    assert grid.quantize(np.array([12, 36, 60, 84]), 96).tolist() == [0, 2, 2, 4]


def test_float_factor_differs_from_exact_arithmetic():
    ticks = np.arange(0, 200_000)
    for ticks_per_quarter in (600, 840, 1200):
        exact = np.rint(ticks * 4 / ticks_per_quarter)
        assert (grid.quantize(ticks, ticks_per_quarter) != exact).any()


def test_durations_go_to_the_nearest_bin_and_ties_to_the_shorter():
    durations = [0, 1, 2, 5, 7, 10, 11, 20, 21, 4096, 99_999]
    lengths = grid.bin_to_duration(grid.duration_to_bin(np.array(durations)))
    assert lengths.tolist() == [1, 1, 2, 4, 6, 8, 12, 16, 24, 4096, 4096]


def test_bins():
    bins = np.arange(24)
    assert (grid.duration_to_bin(grid.bin_to_duration(bins)) == bins).all()
    assert grid.DURATION_BINS[-1] == 4096
    assert len(grid.DURATION_BINS) == 24
