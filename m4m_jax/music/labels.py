"""Chords and beats: as labels, and as notes.

Chord labels follow Harte et al., "Symbolic representation of musical chords: a proposed syntax for
text annotations" (ISMIR 2005): `C`, `A:min7/b3`, `G:sus4(b7)`, `F:maj(*3)`, `D:(1,5,9)`, `N` for no
chord and `X` for an unknown one. A `.lab` file has a line for each: start and end in seconds, and
the label. As notes, chords and beats are what the paper's analysis task writes.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from m4m_jax.errors import M4MError
from m4m_jax.files import atomic_path
from m4m_jax.music.grid import STEPS_PER_QUARTER
from m4m_jax.music.notes import DRUM_PROGRAM, DURATION, PITCH, PROGRAM, STEP, NoteTable, Track

NO_CHORD, UNKNOWN_CHORD = "N", "X"

EIGHTH, DOWNBEAT, MID_BAR = 42, 35, 38  # drums that stand for beats
_BEAT_STEPS = 2  # an eighth, and how long each of those drums lasts
_MID_BAR_STEP = 8

VELOCITY = 90
_LOWEST = 48  # the bass of a chord is in the octave from here on
_BEATS, _CHORDS = Track("beats", 0, is_drum=True), Track("chords", 0)

_DEFAULT_TEMPO = 120.0
_DEFAULT_METER = (0.0, 4.0, 4.0)

# How far labels may overlap, in seconds; annotators' tools round.
_OVERLAP = 0.01

_NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_SHORTHANDS = {
    name: tuple(degrees.split())
    for name, degrees in {
        "maj": "1 3 5",
        "min": "1 b3 5",
        "7": "1 3 5 b7",
        "maj7": "1 3 5 7",
        "min7": "1 b3 5 b7",
        "dim": "1 b3 b5",
        "aug": "1 3 #5",
        "sus4": "1 4 5",
        "sus2": "1 2 5",
        "hdim7": "1 b3 b5 b7",
        "dim7": "1 b3 b5 bb7",
        "minmaj7": "1 b3 5 7",
        "aug7": "1 3 #5 b7",
        "maj6": "1 3 5 6",
        "min6": "1 b3 5 6",
        "9": "1 3 5 b7 9",
        "maj9": "1 3 5 7 9",
        "min9": "1 b3 5 b7 9",
        "11": "1 3 5 b7 9 11",
        "maj11": "1 3 5 7 9 11",
        "min11": "1 b3 5 b7 9 11",
        "13": "1 3 5 b7 9 11 13",
        "maj13": "1 3 5 7 9 11 13",
        "min13": "1 b3 5 b7 9 11 13",
        "5": "1 5",
        "1": "1",
    }.items()
}
_LABEL = re.compile(
    r"([A-G](?:b*|#*))"  # root
    r"(?::(?!/|$)([a-z]*\d*)(?:\(([^()]*)\))?)?"  # shorthand and degrees
    r"(?:/([b#]*\d+))?"  # bass
)
_DEGREE = re.compile(r"(b*|#*)(1[0-3]|[1-9])")
_ROOTS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_DEGREES = ("1", "b2", "2", "b3", "3", "4", "b5", "5", "b6", "6", "b7", "7")


class Chord(NamedTuple):
    """A chord's tones, none of them twice.

    Attributes:
        root: pitch class, 0 for C.
        tones: semitones above the root, 0..11, ascending.
        bass: semitones above the root, 0..11; it need not be one of the tones.
    """

    root: int
    tones: tuple[int, ...]
    bass: int = 0


class Label(NamedTuple):
    """A labelled stretch of time: start and end in seconds, and what it is called."""

    start: float
    end: float
    text: str


def parse_chord(label: str) -> Chord | None:
    """Read a chord label; None for `N` and `X`.

    Raises:
        M4MError: it is no chord label.
    """
    if label in (NO_CHORD, UNKNOWN_CHORD):
        return None
    match = _LABEL.fullmatch(label)
    root, shorthand, degrees, bass = match.groups() if match else ("", None, None, None)
    if match is None or (shorthand and shorthand not in _SHORTHANDS):
        raise M4MError(f"no chord {label!r}; chords are written as C:min7/b3 (Harte's syntax)")
    given = _SHORTHANDS[shorthand] if shorthand else ("1",) if degrees else _SHORTHANDS["maj"]
    listed = [word.strip() for word in degrees.split(",")] if degrees else []
    added = {_semitones(d, label) for d in (*given, *listed) if not d.startswith("*")}
    removed = {_semitones(d[1:], label) for d in listed if d.startswith("*")}
    pitch_class = _NATURALS[root[0]] + root.count("#") - root.count("b")
    return Chord(
        pitch_class % 12,
        tuple(sorted(added - removed)),
        _semitones(bass, label) if bass else 0,
    )


def _semitones(degree: str, label: str) -> int:
    match = _DEGREE.fullmatch(degree)
    if match is None:
        raise M4MError(f"no chord {label!r}: {degree!r} is no degree such as 3, b7 or #11")
    accidentals, number = match.groups()
    steps = _MAJOR[(int(number) - 1) % 7]
    return (steps + accidentals.count("#") - accidentals.count("b")) % 12


_NAMED_TONES = {
    name: frozenset(_semitones(degree, name) for degree in degrees)
    for name, degrees in _SHORTHANDS.items()
    # mir_eval takes these two for labels and cannot score them.
    if name not in ("aug7", "maj11")
}


def chord_pitches(chord: Chord) -> list[int]:
    """Return a chord's MIDI pitches: its bass from 48 to 59, the other tones close above it."""
    bass = _LOWEST + (chord.root + chord.bass) % 12
    return sorted({bass, *(bass + (tone - chord.bass) % 12 for tone in chord.tones)})


def name_chord(pitches: Iterable[int]) -> str:
    """Return a label of what sounds, in any octaves; `N` for nothing.

    The lowest pitch is the bass. Of several names for the same tones (C:maj6, A:min7/b3) that on
    the bass is taken, then the simpler; tones that have no name are listed as degrees over the
    bass. `parse_chord` gives the tones back.
    """
    sounding = sorted(set(pitches))
    if not sounding:
        return NO_CHORD
    bass = sounding[0] % 12
    classes = {pitch % 12 for pitch in sounding}
    for inverted in (False, True):
        roots = sorted(classes - {bass}) if inverted else [bass]
        for shorthand, tones in _NAMED_TONES.items():
            for root in roots:
                if {(c - root) % 12 for c in classes} == tones:
                    return chord_label(root, shorthand, (bass - root) % 12)
    degrees = ",".join(_DEGREES[d] for d in sorted((c - bass) % 12 for c in classes))
    return f"{_ROOTS[bass]}:({degrees})"


def chord_label(root: int, shorthand: str, bass: int = 0) -> str:
    """Write a chord's label; root: its pitch class, bass: semitones above the root, 0..11."""
    return f"{_ROOTS[root]}:{shorthand}" + (f"/{_DEGREES[bass]}" if bass else "")


def parse_lab(text: str, name: str) -> list[Label]:
    """Read the text of a `.lab` file of chords.

    Args:
        text: lines of start, end (seconds) and label, separated by blanks, in the order of time.
        name: what errors call it.

    Raises:
        M4MError: a line is no such line, its times overlap those before it, or its label is no
            chord; the message has the line's number.
    """
    labels: list[Label] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{name}: line {number}"
        words = line.split()
        try:
            start, end, label = float(words[0]), float(words[1]), words[2]
        except (ValueError, IndexError):
            raise M4MError(f"{where} is not a start, an end and a label: {line!r}") from None
        if len(words) > 3 or not (0 <= start <= end < math.inf):
            raise M4MError(f"{where} is not a start, an end and a label: {line!r}")
        if labels and start < labels[-1].end - _OVERLAP:
            raise M4MError(f"{where} begins before the line above it ends")
        try:
            parse_chord(label)
        except M4MError as error:
            raise M4MError(f"{where}: {error}") from None
        labels.append(Label(start, end, label))
    if not labels:
        raise M4MError(f"{name}: no labels in this file")
    return labels


def read_lab(path: epath.PathLike) -> list[Label]:
    """Read a `.lab` file of chords; see `parse_lab`.

    Raises:
        M4MError: it cannot be read, or as `parse_lab`.
    """
    try:
        text = epath.Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise M4MError(f"{os.fspath(path)}: cannot be read ({reason})") from error
    return parse_lab(text, os.fspath(path))


def write_lab(labels: Iterable[Label], path: epath.PathLike) -> None:
    """Write a `.lab` file, with times in milliseconds. It appears whole or not at all.

    Raises:
        M4MError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{a:.3f}\t{b:.3f}\t{text}\n" for a, b, text in labels))


def steps_at(table: NoteTable, seconds: np.ndarray) -> np.ndarray:
    """Times in seconds [...] to steps, float64 [...], by a song's tempos; 120 before the first."""
    starts, times, lengths = _clock(table)
    seconds = np.asarray(seconds, np.float64)
    at = np.clip(np.searchsorted(times, seconds, side="right") - 1, 0, None)
    return starts[at] + (seconds - times[at]) / lengths[at]


def seconds_at(table: NoteTable, steps: np.ndarray) -> np.ndarray:
    """Steps [...] of a song to times in seconds, float64 [...]; the inverse of `steps_at`."""
    starts, times, lengths = _clock(table)
    steps = np.asarray(steps, np.float64)
    at = np.clip(np.searchsorted(starts, steps, side="right") - 1, 0, None)
    return times[at] + (steps - starts[at]) * lengths[at]


def _clock(table: NoteTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where tempos begin, in steps and in seconds, and the seconds of a step in each."""
    tempos = table.tempos
    if not len(tempos) or tempos[0, 0] > 0:
        tempos = np.concatenate([[[0.0, _DEFAULT_TEMPO]], tempos])
    lengths = 60 / STEPS_PER_QUARTER / tempos[:, 1]
    times = np.concatenate([[0.0], np.cumsum(np.diff(tempos[:, 0]) * lengths[:-1])])
    return tempos[:, 0], times, lengths


def chords_to_notes(
    labels: Sequence[Label], song: NoteTable
) -> tuple[NoteTable, dict[str, list[Label]]]:
    """Write chord labels on a song's clock as block chords on one track.

    A chord starts and ends at the nearest step, and ends with the song at the latest. Its notes are
    `chord_pitches`, of program 0 and velocity 90.

    Args:
        labels: as `parse_lab` gives them.
        song: what they belong to.

    Returns:
        A table of one track, with the song's length, tempos and meters; and the chords that are not
        in it, by reason: `unknown` (X), `shorter than a step`, `after the end of the song`.

    Raises:
        M4MError: a label is no chord.
    """
    times = np.array([label[:2] for label in labels], np.float64).reshape(-1, 2)
    spans = np.rint(steps_at(song, times)).astype(np.int64)
    rows: list[tuple[int, int, int]] = []
    left_out: dict[str, list[Label]] = {}
    for label, (start, end) in zip(labels, spans.tolist(), strict=True):
        chord = parse_chord(label.text)
        if chord is None:
            reason = "unknown" if label.text == UNKNOWN_CHORD else None
        elif start >= song.length:
            reason = "after the end of the song"
        else:
            reason = "shorter than a step" if end <= start else None
        if reason:
            left_out.setdefault(reason, []).append(label)
        elif chord is not None:
            duration = min(end, song.length) - start
            rows += [(start, duration, pitch) for pitch in chord_pitches(chord)]
    return _track(np.array(rows, np.int32).reshape(-1, 3), _CHORDS, song), left_out


def notes_to_chords(notes: np.ndarray, song: NoteTable) -> list[Label]:
    """Name what sounds, wherever that changes, from the song's beginning to its end.

    Args:
        notes: int32 [n, 6], rows as a NoteTable has them, of block chords.
        song: gives length and tempos.
    """
    ends = np.minimum(notes[:, STEP] + notes[:, DURATION], song.length)
    bounds = np.unique(np.concatenate([[0, song.length], notes[:, STEP], ends]))
    starts, stops = bounds[:-1], bounds[1:]
    # [bounds - 1, n]: which notes sound between two bounds
    sounding = (notes[:, STEP] <= starts[:, None]) & (ends >= stops[:, None])
    names = [name_chord(notes[now, PITCH].tolist()) for now in sounding]
    new = np.array([k == 0 or names[k] != names[k - 1] for k in range(len(names))], bool)
    first = np.flatnonzero(new)
    times = seconds_at(song, np.append(starts[first], song.length)).tolist()
    return [Label(times[k], times[k + 1], names[index]) for k, index in enumerate(first.tolist())]


def beats_to_notes(song: NoteTable) -> NoteTable:
    """Write a song's beats, as its meters have them, on one drum track.

    Pitch 42 on every eighth, counted from each bar line; 35 on each downbeat; 38 on step 8 of a bar
    of 4/4; each 2 steps long, of velocity 90. Before the first meter it is 4/4.

    Returns:
        A table of one track, with the song's length, tempos and meters.
    """
    found = [_bars(*span) for span in meter_spans(song)]
    onsets = np.concatenate([steps for steps, _ in found])
    pitches = np.concatenate([pitches for _, pitches in found])
    order = np.lexsort((pitches, onsets))
    steps = np.rint(onsets[order]).astype(np.int32)
    rows = np.stack([steps, np.full_like(steps, _BEAT_STEPS), pitches[order]], axis=1)
    return _track(rows[steps < song.length], _BEATS, song)


def bar_lines(song: NoteTable) -> np.ndarray:
    """Where a song's bars begin by its meters, and its end: int64 [bars + 1], steps, ascending."""
    beats = beats_to_notes(song).notes
    starts = beats[beats[:, PITCH] == DOWNBEAT, STEP]
    return np.unique(np.append(starts, song.length)).astype(np.int64)


def meter_spans(song: NoteTable) -> list[tuple[float, float, float, float]]:
    """A song's meters in order: where each begins, its beats and their unit, and where it ends.

    Before the first it is 4/4. Starts and ends are steps, and none is past the song's end.
    """
    meters = song.meters
    if not len(meters) or meters[0, 0] > 0:
        meters = np.concatenate([[_DEFAULT_METER], meters])
    ends = np.append(meters[1:, 0], song.length)
    spans = np.column_stack([meters, ends]).clip(max=[song.length, np.inf, np.inf, song.length])
    return [(start, beats, unit, end) for start, beats, unit, end in spans.tolist()]


def _bars(start: float, beats: float, unit: float, end: float) -> tuple[np.ndarray, np.ndarray]:
    """The beats of all bars of one meter: steps, float64, and drums, int32."""
    length = beats * 4 * STEPS_PER_QUARTER / unit
    bars = np.arange(start, end, length)
    eighths = (bars[:, None] + np.arange(0, length, _BEAT_STEPS)).ravel()
    middles = bars + _MID_BAR_STEP if (beats, unit) == (4, 4) else bars[:0]
    steps = np.concatenate([bars, middles, eighths])
    drums = np.repeat([DOWNBEAT, MID_BAR, EIGHTH], [len(bars), len(middles), len(eighths)])
    return steps[steps < end], drums[steps < end].astype(np.int32)


def notes_to_beats(notes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read beats back from their notes: every second eighth, counted from each downbeat.

    Before the first downbeat they are counted back from it; without any, from the first eighth on.

    Args:
        notes: int32 [n, 6], rows as a NoteTable has them, as `beats_to_notes` writes them.

    Returns:
        The beats' steps, ascending, and their numbers in the bar, from 1 on, 0 for those before the
        first downbeat: int64 [B] both.
    """
    drums = notes[notes[:, PROGRAM] == DRUM_PROGRAM]
    bars = np.unique(drums[drums[:, PITCH] == DOWNBEAT, STEP]).astype(np.int64)
    eighths = np.union1d(drums[drums[:, PITCH] == EIGHTH, STEP], bars)
    if not len(bars):
        return eighths[::2], np.zeros(len(eighths[::2]), np.int64)
    # [eighths]: the downbeat that each is counted from
    bar = bars[(np.searchsorted(bars, eighths, side="right") - 1).clip(0)]
    count = np.arange(len(eighths)) - np.searchsorted(eighths, bar)
    on_beat = count % 2 == 0
    return eighths[on_beat], (count[on_beat] // 2 + 1).clip(0)


def _track(rows: np.ndarray, track: Track, song: NoteTable) -> NoteTable:
    """A table of one track out of rows of step, duration and pitch, int32 [n, 3]."""
    rows = rows[np.lexsort((rows[:, 2], rows[:, 0], rows[:, 0] + rows[:, 1]))]
    program = DRUM_PROGRAM if track.is_drum else track.program
    fixed = np.broadcast_to(np.array([program, VELOCITY, 0], np.int32), (len(rows), 3))
    return song.replace(
        notes=np.concatenate([rows, fixed], axis=1).astype(np.int32), tracks=(track,), off_grid=0.0
    )
