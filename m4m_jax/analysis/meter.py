"""Bars and beats: as a song's meters have them, or found from its notes.

The bars of a song without a trustworthy map of meters are the path through bar positions that
collects the most accent on its downbeats, by dynamic programming: positions follow each other, and
a bar that ends early costs something. (Positions as the states of a bar model: Whiteley, Cemgil and
Godsill, "Bayesian modelling of temporal structure in musical audio", ISMIR 2006; harmonic change as
evidence: Papadopoulos and Peeters, "Joint estimation of chords and downbeats from an audio signal",
IEEE TASLP 2011.)
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from m4m_jax.analysis.evidence import accents, standard
from m4m_jax.music.grid import STEPS_PER_QUARTER
from m4m_jax.music.labels import meter_spans
from m4m_jax.music.notes import NoteTable

_COMMON, _TRIPLE = 16, 12  # steps of a bar of 4/4, and of 3/4 or 6/8
_LONGEST_BAR = 255  # steps; no meter of a file counts more
# In deviations of the accent on a downbeat.
_OFF_BEAT = 0.7  # against downbeats that are no multiple of a quarter from the file's beginning
_AS_GIVEN = 0.5  # for downbeats where the file's own meter has them
_SHORT_BAR = 10.0  # against a bar that ends early; a file's mean downbeat has about 2
_CHANGE_WEIGHT = 2.0


def find_meters(song: NoteTable, chord_starts: Iterable[int] = ()) -> np.ndarray:
    """A song's meters, float64 [k, 3] as in NoteTable.meters, found where the file tells little.

    A map of several meters is taken as it is, and so is one that begins later. One meter from the
    first step on may be what a program writes when nobody said anything: it gives the length of a
    bar, and bars begin where the notes say. Without any, the length is found, too: 4/4, 3/4 or 6/8.

    Args:
        song: its drums count too.
        chord_starts: steps at which chords are known to begin.
    """
    if len(song.meters) > 1 or (song.meters[:, 0] > 0).any() or not len(song.notes):
        return song.meters
    accent = accents(song)
    starts = [step for step in chord_starts if 0 <= step < song.length]
    if starts:
        begins = np.zeros(song.length)
        begins[starts] = 1
        accent = standard(accent + _CHANGE_WEIGHT * standard(begins))
    if len(song.meters):
        _, beats, unit = song.meters[0].tolist()
        bar, given = int(_bar(beats, unit)), _AS_GIVEN
    else:
        bar, given = _bar_length(accent), 0.0
        beats, unit = (4.0, 4.0) if bar == _COMMON else _triple(accent)
    if not 1 < bar <= song.length:
        return song.meters
    bias = np.where(np.arange(bar) % STEPS_PER_QUARTER == 0, 0.0, -_OFF_BEAT)
    bias[0] += given
    offset = int(np.argmax(_means(accent, bar) + bias)) % STEPS_PER_QUARTER
    downbeats = _downbeats(accent, bar, offset, given)
    return _as_meters(downbeats, bar, (beats, unit))


def _means(accent: np.ndarray, bar: int) -> np.ndarray:
    """Mean accent of each position of bars of one length from the first step on, [bar]."""
    return np.array([accent[position::bar].mean() for position in range(bar)])


def _bar_length(accent: np.ndarray) -> int:
    """4/4, or 3/4 where that explains the accents better by the number of bars that do."""
    if len(accent) < _COMMON:
        return _COMMON
    strength = {
        bar: _means(accent, bar).max() * np.sqrt(len(accent) / bar) for bar in (_COMMON, _TRIPLE)
    }
    return max(strength, key=lambda bar: strength[bar])


def _triple(accent: np.ndarray) -> tuple[float, float]:
    """3/4 or 6/8, by whether the beats of the one or the middle of the other are stronger."""
    means = _means(accent, _TRIPLE)
    means = np.roll(means, -int(means.argmax()))
    return (6.0, 8.0) if means[6] > max(means[4], means[8]) else (3.0, 4.0)


def _downbeats(accent: np.ndarray, bar: int, offset: int, given: float) -> np.ndarray:
    """The best path's downbeats, steps, ascending.

    States are positions in a bar of `bar` steps. Each leads to the next and the last to the first;
    so may, at a cost, any position on a quarter counted from the bar's beginning. The path begins
    at any position that puts downbeats `offset` steps after a quarter of the file.
    """
    here = np.arange(bar)
    score = np.where((-here - offset) % STEPS_PER_QUARTER == 0, 0.0, -np.inf)
    score[0] += accent[0]
    early = np.arange(STEPS_PER_QUARTER, bar, STEPS_PER_QUARTER) - 1
    gain = accent + np.where(np.arange(len(accent)) % bar == 0, given, 0.0)
    cut = np.full(len(accent), -1)  # [T]: the position that a bar begun here came from, if short
    history = [score]
    for step in range(1, len(accent)):
        best = early[score[early].argmax()] if len(early) else -1
        score = np.roll(score, 1)
        if best >= 0 and history[-1][best] - _SHORT_BAR > score[0]:
            score[0], cut[step] = history[-1][best] - _SHORT_BAR, best
        score[0] += gain[step]
        history.append(score)
    position, found = int(score.argmax()), []
    for step in range(len(accent) - 1, -1, -1):
        if position:
            position -= 1
            continue
        found.append(step)
        position = int(cut[step]) if cut[step] >= 0 else bar - 1
    return np.array(found[::-1], np.int64)


def _as_meters(downbeats: np.ndarray, bar: int, meter: tuple[float, float]) -> np.ndarray:
    """Bars as a map of meters: the pickup's, the song's own, and those of other lengths."""
    starts = downbeats if len(downbeats) and downbeats[0] == 0 else np.append(0, downbeats)
    lengths = np.diff(starts).tolist()
    meters = np.array([meter if n == bar else _meter(n) for n in (*lengths, bar)], np.float64)
    changed = np.append(True, (np.diff(meters, axis=0) != 0).any(axis=1))
    return np.column_stack([starts, meters])[changed]


def _meter(steps: int) -> tuple[float, float]:
    """The meter of a bar of so many sixteenths, in the longest unit that fits."""
    unit = next(u for u in (4, 8, 16) if steps * u % 16 == 0)
    return steps * unit / 16, float(unit)


def meters_of(downbeats: np.ndarray, song: NoteTable) -> np.ndarray:
    """The map of meters of bars that begin at given steps, float64 [k, 3].

    The commonest length is the song's meter. A bar of more than four times that length is one where
    downbeats were left out: it is divided. A song without two downbeats keeps the meters it has.
    """
    gaps = np.diff(downbeats)
    if not len(gaps):
        return song.meters
    bar = int(np.bincount(gaps).argmax())
    if bar > _LONGEST_BAR:
        return song.meters
    starts = np.unique(np.append(0, downbeats))
    filled = [
        np.arange(start, end, bar) if end - start > 4 * bar else [start]
        for start, end in zip(starts, np.append(starts[1:], song.length), strict=True)
    ]
    return _as_meters(np.concatenate(filled).astype(np.int64), bar, _meter(bar))


def beats_of(song: NoteTable) -> tuple[np.ndarray, np.ndarray]:
    """The beats of a song's meters: steps, ascending, and numbers in the bar, int64 [B] both.

    A beat is a meter's unit, or three of them in 6/8, 9/8 and 12/8. A first bar that is shorter
    than the next is a pickup, and its beats are counted back from its end.
    """
    spans = [span for span in meter_spans(song) if span[0] < span[3]]
    found = [_beats(*span) for span in spans]
    if len(spans) > 1:
        (_, count, unit, end), (_, next_count, next_unit, _) = spans[:2]
        whole = _bar(next_count, next_unit)
        if end == _bar(count, unit) < whole:
            steps, numbers = _beats(end - whole, next_count, next_unit, end)
            found[0] = steps[steps >= 0], numbers[steps >= 0]
    steps = np.rint(np.concatenate([steps for steps, _ in found])).astype(np.int64)
    steps, first = np.unique(steps, return_index=True)
    inside = steps < song.length
    return steps[inside], np.concatenate([numbers for _, numbers in found])[first][inside]


def _bar(count: float, unit: float) -> float:
    """Steps of a bar of a meter."""
    return count * 4 * STEPS_PER_QUARTER / unit


def _beats(start: float, count: float, unit: float, end: float) -> tuple[np.ndarray, np.ndarray]:
    """The beats of all bars of one meter: fractional steps and numbers in the bar, [B] both."""
    compound = unit >= 8 and count > 3 and count % 3 == 0
    in_bar = np.arange(count // 3 if compound else count)
    beat = _bar(3 if compound else 1, unit)
    bars = np.arange(start, end, _bar(count, unit))
    steps = (bars[:, None] + beat * in_bar).ravel()
    numbers = np.tile(in_bar + 1, len(bars)).astype(np.int64)
    return steps[steps < end], numbers[steps < end]
