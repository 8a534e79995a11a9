"""Four-voice scores to NoteTables, by music21."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np
from etils import epath

from m4m_jax.datasets.ingest import Reading, Rejected
from m4m_jax.music.grid import STEPS_PER_QUARTER
from m4m_jax.music.notes import NoteTable, Track

VOICES = ("Soprano", "Alto", "Tenor", "Bass")
VELOCITY = 80
PROGRAM = 52
DEFAULT_TEMPO = 100.0
# Roman-numeral analyses of some of the scores; they have no voices.
ANALYSIS_SUFFIX = ".rntxt"

# One note: onset, end (quarters, exact) and pitch.
_Note = tuple[Fraction, Fraction, int]


def read_score(folder: str, name: str) -> Reading:
    """Read one score of a folder.

    Raises:
        Rejected: "no four voices", when there is not exactly one part each whose name begins with
            Soprano, Alto, Tenor and Bass; "no notes", when a voice is empty.
    """
    if name.lower().endswith(ANALYSIS_SUFFIX):
        raise Rejected("no four voices", "a harmonic analysis, not a score")
    from music21 import converter

    # Without forceSource music21 keeps pickles of what it has parsed in the temporary folder.
    score = converter.parse(str(epath.Path(folder) / name), forceSource=True)
    voices = _voices(score)
    notices: Counter[str] = Counter()
    notes = [_merge_ties(_notes(voice, notices)) for voice in voices]
    if empty := [name for name, part in zip(VOICES, notes, strict=True) if not part]:
        raise Rejected("no notes", f"the part {empty[0]} has no notes")
    table = _table(notes, _tempo(score), _meters(voices[0]))
    return Reading(table, {kind: str(count) for kind, count in notices.items()})


def _voices(score: Any) -> list[Any]:
    """Return the parts Soprano, Alto, Tenor, Bass of a score."""
    parts = list(getattr(score, "parts", []))
    words = [((part.partName or "").split() or ["?"])[0] for part in parts]
    if any(words.count(voice) != 1 for voice in VOICES):
        names = ", ".join(" ".join((part.partName or "unnamed").split()) for part in parts)
        raise Rejected("no four voices", f"its parts are {names or 'none'}")
    return [parts[words.index(voice)] for voice in VOICES]


def _notes(part: Any, notices: Counter[str]) -> list[tuple[_Note, str | None]]:
    """Return a part's notes by onset, each with its kind of tie."""
    found = []
    for element in part.flatten().notes:
        if element.duration.isGrace:
            notices["grace notes left out"] += 1
            continue
        start = Fraction(element.offset)
        end = start + Fraction(element.quarterLength)
        for note in getattr(element, "notes", (element,)):
            tie = note.tie or element.tie
            found.append(((start, end, note.pitch.midi), tie.type if tie else None))
    return found


def _merge_ties(notes: Iterable[tuple[_Note, str | None]]) -> list[_Note]:
    """Join notes that are tied to the one before them, and sort by end."""
    done: list[_Note] = []
    # A note to be continued, by pitch and the time at which it has to be.
    held: dict[tuple[int, Fraction], Fraction] = {}
    for (start, end, pitch), tie in notes:
        if tie in ("stop", "continue"):
            start = held.pop((pitch, start), start)
        if tie in ("start", "continue"):
            held[pitch, end] = start
        else:
            done.append((start, end, pitch))
    # A tie that leads nowhere ends its note.
    done += [(start, end, pitch) for (pitch, end), start in held.items()]
    return sorted(done, key=lambda note: (note[1], note[0], note[2]))


def _tempo(score: Any) -> float:
    for mark in score.recurse().getElementsByClass("MetronomeMark"):
        if bpm := mark.getQuarterBPM():
            return float(bpm)
    return DEFAULT_TEMPO


def _meters(part: Any) -> list[tuple[float, int, int]]:
    """Return (step, numerator, denominator) wherever the bar's length or meter changes.

    A bar that is shorter or longer than its time signature, such as a pickup, gets a meter of its
    own length. The last bar keeps the signature: nothing comes after its bar line.
    """
    rows: list[tuple[float, int, int]] = []
    signature = (4, 4)
    measures = list(part.getElementsByClass("Measure"))
    for number, measure in enumerate(measures):
        if measure.timeSignature is not None:
            given = measure.timeSignature
            signature = (given.numerator, given.denominator)
        meter = signature
        if number + 1 < len(measures):
            quarters = Fraction(measures[number + 1].offset) - Fraction(measure.offset)
            if quarters != Fraction(4 * signature[0], signature[1]):
                meter = _meter_of(quarters, signature[1])
        if meter[0] and (not rows or rows[-1][1:] != meter):
            rows.append((float(measure.offset) * STEPS_PER_QUARTER, *meter))
    return rows


def _meter_of(quarters: Fraction, denominator: int) -> tuple[int, int]:
    """Return a bar's length as a meter of the given denominator, or of a finer one."""
    beats = quarters / 4 * denominator
    while beats.denominator != 1 and denominator < 64:
        beats, denominator = beats * 2, denominator * 2
    return int(beats), denominator


def _table(
    voices: list[list[_Note]], tempo: float, meters: list[tuple[float, int, int]]
) -> NoteTable:
    track = np.repeat(np.arange(len(voices)), [len(voice) for voice in voices])
    exact = np.array([note for voice in voices for note in voice], np.float64)
    exact[:, :2] *= STEPS_PER_QUARTER
    start, end = np.rint(exact[:, 0]), np.rint(exact[:, 1])
    length = int(np.floor(exact[:, 1].max()))
    columns = [
        start,
        end - start,
        exact[:, 2],
        np.full(len(exact), PROGRAM),
        np.full(len(exact), VELOCITY),
        track,
    ]
    notes = np.stack(columns, axis=1)[start < length].astype(np.int32)
    return NoteTable(
        notes=notes,
        tracks=tuple(Track(voice, PROGRAM) for voice in VOICES),
        length=length,
        tempos=np.array([[0.0, tempo]]),
        meters=np.array(meters, np.float64).reshape(-1, 3),
        off_grid=float((np.abs(exact[:, 0] - start) > 0.125).mean()),
    )
