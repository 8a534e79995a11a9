"""Figures of songs and samples, summed up: means and how far they spread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict

import numpy as np

from m4m_jax.evaluation.catalogue import METRICS
from m4m_jax.evaluation.scoring import Figures


class Summary(TypedDict):
    """One figure over songs, each song's value being the mean over its samples.

    mean, median, sd: over songs; sd is the standard deviation (n - 1), None for one song.
    within: the standard deviation over the samples of a song, the mean over songs that have
    several; None where none has.
    songs, samples: how many have the figure.
    """

    mean: float
    median: float
    sd: float | None
    within: float | None
    songs: int
    samples: int


def mean_and_deviation(found: Summary) -> str:
    """A figure in short, as tables have it; one song has no deviation."""
    return f"{found['mean']:.3f} ± " + ("-" if found["sd"] is None else f"{found['sd']:.3f}")


def fewer(found: Summary, songs: int) -> str:
    """Over how many songs a figure is, where that is fewer than its column's; else empty."""
    return f"{found['songs']} of {songs}" if found["songs"] < songs else ""


def summarize(songs: Iterable[Sequence[Figures]]) -> dict[str, Summary]:
    """The figures of songs, each with those of its samples, in the order of the catalogue.

    Those that are not in it, of single drums, come last.
    """
    listed = [list(samples) for samples in songs]
    there = {name for samples in listed for sample in samples for name in sample}
    found = {}
    for name in (*METRICS, *sorted(there - METRICS.keys())):
        values = [[sample[name] for sample in samples if name in sample] for samples in listed]
        values = [samples for samples in values if samples]
        if values:
            found[name] = _summary(values)
    return found


def _summary(values: list[list[float]]) -> Summary:
    means = [float(np.mean(samples)) for samples in values]
    spreads = [float(np.std(samples, ddof=1)) for samples in values if len(samples) > 1]
    return {
        "mean": float(np.mean(means)),
        "median": float(np.median(means)),
        "sd": float(np.std(means, ddof=1)) if len(means) > 1 else None,
        "within": float(np.mean(spreads)) if spreads else None,
        "songs": len(values),
        "samples": sum(map(len, values)),
    }
