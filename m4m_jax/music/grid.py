"""The time grid: sixteenth notes, and the bins that durations fall into.

The grid and the bins are those of the paper "Versatile Symbolic Music-for-Music Modeling via
Function Alignment" (ISMIR 2025): four steps a quarter note, whatever the metre and the tempo.
"""

from __future__ import annotations

import numpy as np

STEPS_PER_QUARTER = 4

# A song longer than this is refused: its file is damaged or is no song.
MAX_STEPS = 100_000

# Length in steps of each duration bin.
DURATION_BINS = np.array(
    [
        *(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64),
        *(96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096),
    ],
    np.int32,
)
_MIDPOINTS = (DURATION_BINS[1:] + DURATION_BINS[:-1]) / 2


def ticks_to_steps(ticks: np.ndarray, ticks_per_quarter: int) -> np.ndarray:
    """MIDI ticks to fractional steps, float64.

    The factor is rounded to float64 before it is applied, as the published models' data was made:
    at 600, 840 or 1200 ticks a quarter note, exact arithmetic would put some notes a step aside.
    """
    return np.asarray(ticks) * (STEPS_PER_QUARTER / ticks_per_quarter)


def quantize(ticks: np.ndarray, ticks_per_quarter: int) -> np.ndarray:
    """MIDI ticks to the nearest step, halves to the even one, int64."""
    return np.rint(ticks_to_steps(ticks, ticks_per_quarter)).astype(np.int64)


def duration_to_bin(durations: np.ndarray) -> np.ndarray:
    """Nearest duration bin of lengths in steps, int32; ties go to the shorter bin, 0 to bin 0."""
    return np.searchsorted(_MIDPOINTS, durations, side="left").astype(np.int32)


def bin_to_duration(bins: np.ndarray) -> np.ndarray:
    """Length in steps of duration bins 0..23, int32."""
    return DURATION_BINS[bins]


def coarser_bin(bins: np.ndarray, ratio: int) -> np.ndarray:
    """Duration bins counted in units of `ratio` steps, a power of two; the shortest stays at 0.

    2 log2(ratio) lower, since every second bin doubles.
    """
    return np.maximum(np.asarray(bins, np.int64) - 2 * (ratio.bit_length() - 1), 0)
