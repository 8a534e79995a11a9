"""Four-voice MusicXML scores to NoteTables.

music21 has a parser of its own, which takes ten times as long; all that is wanted here are the
notes, bars and tempo of four parts (MusicXML 4.0, w3.org/2021/06/musicxml40).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import zip_longest
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
from etils import epath

from m4m_jax.datasets.ingest import Reading, Rejected
from m4m_jax.errors import M4MError
from m4m_jax.music.grid import STEPS_PER_QUARTER
from m4m_jax.music.notes import NoteTable, Track

VOICES = ("Soprano", "Alto", "Tenor", "Bass")
VELOCITY = 80
PROGRAM = 52
DEFAULT_TEMPO = 100.0
# What else lies among the scores, and has no voices by name.
NO_VOICES = {
    ".rntxt": "a harmonic analysis, not a score",
    ".krn": "a Humdrum file, whose parts have no names",
}

_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


class _Note(NamedTuple):
    """A written note; times in quarters, exact."""

    start: Fraction
    end: Fraction
    pitch: int
    tied_before: bool = False
    tied_after: bool = False


@dataclass
class _Bar:
    """One measure of one part; times in quarters from its beginning."""

    length: Fraction = Fraction(0)
    notes: list[_Note] = field(default_factory=list)
    grace_notes: int = 0
    meter: tuple[int, int] | None = None


def read_score(folder: str, name: str) -> Reading:
    """Read one score of a folder, as text (.xml, .musicxml) or zipped (.mxl).

    Raises:
        M4MError: the file is not MusicXML that goes part by part.
        Rejected: "no four voices", when there is not exactly one part each whose name begins with
            Soprano, Alto, Tenor and Bass; "no notes", when a voice is empty.
    """
    for suffix, what in NO_VOICES.items():
        if name.lower().endswith(suffix):
            raise Rejected("no four voices", what)
    score = _parse(epath.Path(folder) / name, name)
    bars = list(zip_longest(*(_bars(part) for part in _voices(score)), fillvalue=_Bar()))
    # A bar lasts as long as its longest voice, so that the voices stay together.
    lengths = [max(bar.length for bar in row) for row in bars]
    starts = [sum(lengths[:k], Fraction(0)) for k in range(len(lengths))]
    voices = [
        _merge_ties(_at(bar, start) for bar, start in zip(part, starts, strict=True))
        for part in zip(*bars, strict=True)
    ]
    if empty := [voice for voice, notes in zip(VOICES, voices, strict=True) if not notes]:
        raise Rejected("no notes", f"the part {empty[0]} has no notes")
    grace_notes = sum(bar.grace_notes for row in bars for bar in row)
    meters = _meters([row[0].meter for row in bars], starts, lengths)
    return Reading(
        _table(voices, _tempo(score), meters),
        {"grace notes left out": str(grace_notes)} if grace_notes else {},
    )


def _parse(path: epath.Path, name: str) -> Element:
    try:
        data = path.read_bytes()
        if name.lower().endswith(".mxl"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                container = ElementTree.fromstring(archive.read("META-INF/container.xml"))
                root_file = container.find(".//{*}rootfile")
                data = archive.read("" if root_file is None else root_file.attrib["full-path"])
        score = ElementTree.fromstring(data)
    except (OSError, KeyError, zipfile.BadZipFile, ElementTree.ParseError) as error:
        raise M4MError(f"{name}: cannot be read as MusicXML ({error})") from error
    if score.tag != "score-partwise":
        raise M4MError(f"{name}: not a MusicXML score that goes part by part, but {score.tag}")
    return score


def _voices(score: Element) -> list[Element]:
    """Return the parts Soprano, Alto, Tenor, Bass of a score."""
    names = {
        part.get("id"): " ".join(part.findtext("part-name", "").split())
        for part in score.iterfind("part-list/score-part")
    }
    parts = score.findall("part")
    words = [[*names.get(part.get("id"), "").split(), ""][0] for part in parts]
    if any(words.count(voice) != 1 for voice in VOICES):
        listed = ", ".join(name or "unnamed" for name in names.values())
        raise Rejected("no four voices", f"its parts are {listed or 'none'}")
    return [parts[words.index(voice)] for voice in VOICES]


def _bars(part: Element) -> Iterator[_Bar]:
    divisions = 1
    for measure in part.iterfind("measure"):
        bar = _Bar()
        now = previous = Fraction(0)
        for element in measure:
            if element.tag == "attributes":
                divisions = int(element.findtext("divisions", str(divisions)))
                if beats := element.findtext("time/beats"):
                    # A sum of beats, such as 3+2, is as long as its sum.
                    count = sum(int(term) for term in beats.split("+"))
                    bar.meter = (count, int(element.findtext("time/beat-type", "4")))
                continue
            if element.tag == "note" and element.find("grace") is not None:
                bar.grace_notes += 1
                continue
            duration = Fraction(element.findtext("duration", "0")) / divisions
            if element.tag == "backup":
                now -= duration
            elif element.tag == "forward":
                now += duration
            elif element.tag == "note":
                # A note of a chord begins with the note before it.
                start = previous if element.find("chord") is not None else now
                previous, now = start, start + duration
                bar.notes.extend(_note(element, start, now))
            bar.length = max(bar.length, now)
        yield bar


def _note(element: Element, start: Fraction, end: Fraction) -> Iterator[_Note]:
    pitch = element.find("pitch")
    if pitch is None:  # a rest
        return
    number = (
        12 * (int(pitch.findtext("octave", "4")) + 1)
        + _SEMITONES[pitch.findtext("step", "C")]
        + round(float(pitch.findtext("alter", "0")))
    )
    ties = {tie.get("type") for tie in element.iterfind("tie")}
    yield _Note(start, end, number, "stop" in ties, "start" in ties)


def _at(bar: _Bar, start: Fraction) -> list[_Note]:
    return [n._replace(start=n.start + start, end=n.end + start) for n in bar.notes]


def _merge_ties(bars: Iterable[list[_Note]]) -> list[tuple[Fraction, Fraction, int]]:
    """Join notes that are tied to the one before them; return (start, end, pitch), sorted by end.

    A tie joins notes of one pitch that follow each other; one that leads nowhere does nothing.
    """
    done: list[tuple[Fraction, Fraction, int]] = []
    # The start of what is to be continued, by its pitch and the time when.
    held: dict[tuple[int, Fraction], Fraction] = {}
    for note in (note for bar in bars for note in bar):
        start = note.start
        if note.tied_before:
            start = held.pop((note.pitch, note.start), start)
        if note.tied_after:
            held[note.pitch, note.end] = start
        else:
            done.append((start, note.end, note.pitch))
    done += [(start, end, pitch) for (pitch, end), start in held.items()]
    return sorted(done, key=lambda note: (note[1], note[0], note[2]))


def _tempo(score: Element) -> float:
    for sound in score.iter("sound"):
        if bpm := float(sound.get("tempo", 0)):
            return bpm
    return DEFAULT_TEMPO


def _meters(
    signatures: list[tuple[int, int] | None], starts: list[Fraction], lengths: list[Fraction]
) -> list[tuple[float, int, int]]:
    """Return (step, numerator, denominator) wherever the bars change.

    A bar that is shorter or longer than its time signature, such as a pickup, has a meter of its
    own length. The last bar keeps the signature: nothing comes after its bar line.
    """
    rows: list[tuple[float, int, int]] = []
    signature = (4, 4)
    for number, (given, start, length) in enumerate(zip(signatures, starts, lengths, strict=True)):
        signature = given or signature
        meter = signature
        if number + 1 < len(starts) and length != Fraction(4 * signature[0], signature[1]):
            meter = _meter_of(length, signature[1])
        if meter[0] and (not rows or rows[-1][1:] != meter):
            rows.append((float(start * STEPS_PER_QUARTER), *meter))
    return rows


def _meter_of(quarters: Fraction, denominator: int) -> tuple[int, int]:
    """Return a bar's length as a meter of the given denominator, or of a finer one."""
    beats = quarters / 4 * denominator
    while beats.denominator != 1 and denominator < 64:
        beats, denominator = beats * 2, denominator * 2
    return int(beats), denominator


def _table(
    voices: list[list[tuple[Fraction, Fraction, int]]],
    tempo: float,
    meters: list[tuple[float, int, int]],
) -> NoteTable:
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
        np.repeat(np.arange(len(voices)), [len(voice) for voice in voices]),
    ]
    return NoteTable(
        notes=np.stack(columns, axis=1)[start < length].astype(np.int32),
        tracks=tuple(Track(voice, PROGRAM) for voice in VOICES),
        length=length,
        tempos=np.array([[0.0, tempo]]),
        meters=np.array(meters, np.float64).reshape(-1, 3),
        off_grid=float((np.abs(exact[:, 0] - start) > 0.125).mean()),
    )
