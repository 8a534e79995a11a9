"""Compression: a stream at a coarser grid, so that a model reads or writes less of it.

A stream of ratio r (a power of two) keeps every r-th step of its rows, and the durations of their
notes are counted in r steps: a bin is 2 log2(r) lower, since every second bin doubles. Notes that
start on other steps are not seen. After the options of the paper "Versatile Symbolic
Music-for-Music Modeling via Function Alignment" (ISMIR 2025).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from m4m_jax.errors import M4MError
from m4m_jax.music import grid
from m4m_jax.music.notes import DURATION, STEP, NoteTable
from m4m_jax.music.simunote import END


@dataclass(frozen=True)
class Compression:
    """The ratios of a task's two streams, powers of two; 1 leaves a stream as it is."""

    reference: int = 1
    target: int = 1

    def __post_init__(self) -> None:
        for stream, ratio in (("reference", self.reference), ("target", self.target)):
            if ratio < 1 or ratio & (ratio - 1):
                raise M4MError(f"a compression of {ratio} for the {stream} is no power of two")

    @property
    def stride(self) -> int:
        """What windows start at multiples of, in steps of the song: the larger ratio."""
        return max(self.reference, self.target)


def compress_rows(rows: np.ndarray, ratio: int) -> np.ndarray:
    """Keep every r-th row, with durations in units of r steps; the shortest bin stays at 0.

    Args:
        rows: uint8 [T, N, 4], in the order of `to_rows`, which stays.
        ratio: r, a power of two.

    Returns:
        uint8 [ceil(T / r), N, 4].
    """
    kept = np.array(rows[::ratio])
    bins = kept[..., 2]
    kept[..., 2] = np.where(kept[..., 0] < END, grid.coarser_bin(bins, ratio), bins)
    return kept


def stretch(table: NoteTable, ratio: int, length: int) -> NoteTable:
    """Spread out again what was written at a coarser grid: steps and durations times r.

    Its rows, compressed by the same ratio, are those that the table was decoded from, if those were
    compressed ones.

    Args:
        table: Notes at the coarser grid.
        ratio: r, a power of two.
        length: Of the result, in steps: more than (table.length - 1) r.
    """
    notes = table.notes.copy()
    notes[:, [STEP, DURATION]] *= ratio
    return table.replace(notes=notes, length=length)
