"""Chords by themselves, and how far they agree with the song's own.

CHE, CC and CTD are those of Yeh et al., "Automatic melody harmonization with triad chords: a
comparative study" (Journal of New Music Research 50, 2021), section 4; agreement is that of
mir_eval (Raffel et al., ISMIR 2014).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import mir_eval
import numpy as np

from m4m_jax.evaluation.harmony import tonal_centroid
from m4m_jax.evaluation.sounding import class_roll, pitched
from m4m_jax.music.labels import NO_CHORD, Label, bar_lines, notes_to_chords
from m4m_jax.music.notes import NoteTable

_COMPARISONS = ("root", "majmin", "sevenths")


def figures(chords: NoteTable) -> dict[str, float]:
    """CHE, CC and CTD of a part of chords; those that nothing can be said of are left out."""
    sequence = half_bars(chords)
    found = {
        "che": histogram_entropy(sequence),
        "cc": float(len(np.unique(sequence, axis=0))) if len(sequence) else None,
        "ctd": tonal_distance(sequence),
    }
    return {name: value for name, value in found.items() if value is not None}


def half_bars(chords: NoteTable) -> np.ndarray:
    """The chord of each half bar, as its pitch classes: bool [k, 12], in the order of time.

    Of several in a half bar, that which sounds longest, or else the first. Half bars without any
    are left out.
    """
    lines = bar_lines(chords)
    bounds = np.union1d(lines, (lines[:-1] + lines[1:]) // 2)
    roll = class_roll(chords.notes, chords.length)
    code = roll @ (1 << np.arange(12))  # a number for each set of pitch classes
    slot = np.searchsorted(bounds, np.arange(chords.length), side="right")
    place, first, steps = np.unique(slot * 4096 + code, return_index=True, return_counts=True)
    some = place % 4096 > 0
    place, first, steps = place[some], first[some], steps[some]
    order = np.lexsort((first, -steps, place // 4096))
    _, best = np.unique(place[order] // 4096, return_index=True)
    return (place[order][best, None] % 4096 >> np.arange(12)) % 2 > 0


def histogram_entropy(sequence: np.ndarray) -> float | None:
    """CHE of Yeh et al.: the entropy, in nats, of which chords a sequence bool [k, 12] has."""
    if not len(sequence):
        return None
    _, count = np.unique(sequence, axis=0, return_counts=True)
    share = count / count.sum()
    return float(abs((share * np.log(share)).sum()))


def tonal_distance(sequence: np.ndarray) -> float | None:
    """CTD of Yeh et al.: the mean distance in tonal space of neighbours in a sequence [k, 12]."""
    if len(sequence) < 2:
        return None
    return float(np.linalg.norm(np.diff(tonal_centroid(sequence), axis=0), axis=1).mean())


def agreement(truth: NoteTable, written: NoteTable) -> dict[str, float]:
    """How much of the time two parts' chords agree: root, majmin and sevenths of mir_eval.

    Chords are named by their notes (`notes_to_chords`), drums aside, on the truth's clock. Each
    figure is weighted by duration and leaves out what it does not judge (majmin, a truth that is
    suspended, say); it is missing where nothing is left. Where one part has a chord and the other
    none, they disagree.
    """
    named = [notes_to_chords(pitched(t.notes), truth) for t in (truth, written)]
    return label_agreement(*named)


def label_agreement(truth: Sequence[Label], written: Sequence[Label]) -> dict[str, float]:
    """As `agreement`, of labels in seconds; those written are cut to the time of the truth's."""
    if not truth or truth[-1].end <= truth[0].start:
        return {}
    (times, names), (others, guesses) = (_split(labels) for labels in (truth, written))
    others, guesses = mir_eval.util.adjust_intervals(
        others, guesses, times.min(), times.max(), NO_CHORD, NO_CHORD
    )
    times, names, guesses = mir_eval.util.merge_labeled_intervals(times, names, others, guesses)
    seconds = mir_eval.util.intervals_to_durations(times)
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing can be judged, which is asked for below
        for name in _COMPARISONS:
            judged = getattr(mir_eval.chord, name)(names, guesses)
            if (judged >= 0).any():
                found[name] = float(mir_eval.chord.weighted_accuracy(judged, seconds))
    return found


def _split(labels: Sequence[Label]) -> tuple[np.ndarray, list[str]]:
    """Labels as mir_eval takes them: times float64 [n, 2] and names."""
    times = np.array([label[:2] for label in labels], float).reshape(-1, 2)
    return times, [label.text for label in labels]
