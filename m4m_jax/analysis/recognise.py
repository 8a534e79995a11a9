"""Chords, beats and bars of a song: recognised by rules, or written by a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from m4m_jax.analysis.chords import recognise_chords
from m4m_jax.analysis.evidence import harmony
from m4m_jax.analysis.meter import beats_of, find_meters, meters_of
from m4m_jax.errors import M4MError
from m4m_jax.music.labels import (
    Label,
    beats_to_notes,
    chords_to_notes,
    notes_to_beats,
    notes_to_chords,
    seconds_at,
)
from m4m_jax.music.notes import DRUM_PROGRAM, PROGRAM, NoteTable
from m4m_jax.music.tasks import ANALYSIS

if TYPE_CHECKING:
    from m4m_jax.pretrained import Model


@dataclass(frozen=True)
class Analysis:
    """What was found in a song.

    Attributes:
        song: the song, its meters those that were found.
        chords: labels in seconds, from the song's beginning to its end; `N` where there is none.
        beats: steps, int64 [B], ascending.
        numbers: the beats' numbers in the bar, int64 [B]; 1 is a downbeat.
        beat_notes: the beats as notes, one track, as `beats_to_notes` writes them.
        chord_notes: the chords as notes, one track, as `chords_to_notes` writes them.
        method: what found them, in words.
    """

    song: NoteTable
    chords: list[Label]
    beats: np.ndarray
    numbers: np.ndarray
    beat_notes: NoteTable
    chord_notes: NoteTable
    method: str

    @property
    def beat_times(self) -> np.ndarray:
        """The beats in seconds, float64 [B]."""
        return seconds_at(self.song, self.beats)

    def as_table(self) -> NoteTable:
        """Beats (track 0), chords (track 1) and the song (from track 2 on)."""
        return NoteTable.concat([self.beat_notes, self.chord_notes, self.song])


def analyze(
    song: NoteTable,
    model: Model | None = None,
    *,
    name: str = "this song",
    temperature: float | None = None,
    seed: int = 0,
) -> Analysis:
    """Find the chords, beats and bars of a song.

    Without a model: by templates and dynamic programming (`m4m_jax.analysis.chords` and `.meter`),
    from the notes alone. With one that was trained for the task `analysis`, it writes them as
    notes, from which they are read.

    Args:
        song: all its tracks are read.
        model: as `m4m_jax.load` gives it.
        name: what errors call the song.
        temperature, seed: of the model's draws; by default it takes the likeliest token.

    Raises:
        M4MError: no notes but drums, or a model of another task.
    """
    if not (song.notes[:, PROGRAM] != DRUM_PROGRAM).any():
        raise M4MError(f"{name}: no notes that chords could be found in; all are drums")
    if model is None:
        return _by_rules(song)
    from m4m_jax.generation import generate  # heavy, and rules need no model

    written = generate(
        model, song, ANALYSIS, name=name, reference="all", temperature=temperature, seed=seed
    )
    return from_notes(song, written[0][1], f"a model of {model.card.system}")


def _by_rules(song: NoteTable) -> Analysis:
    song = song.replace(meters=find_meters(song))
    beats, numbers = beats_of(song)
    # What stands before the first beat of a pickup is one stretch too.
    at = np.unique(np.append(0, beats))
    spans = recognise_chords(harmony(song), at, np.append([0] * (len(at) - len(beats)), numbers))
    times = seconds_at(song, np.array([span[:2] for span in spans])).tolist()
    chords = [Label(start, end, span.text) for (start, end), span in zip(times, spans, strict=True)]
    notes, _ = chords_to_notes(chords, song)
    return Analysis(song, chords, beats, numbers, beats_to_notes(song), notes, "rules")


def from_notes(song: NoteTable, written: NoteTable, method: str) -> Analysis:
    """Read an analysis that was written as notes: drums are beats, all else is chords."""
    is_drum = written.notes[:, PROGRAM] == DRUM_PROGRAM
    beats, numbers = notes_to_beats(written.notes)
    song = song.replace(meters=meters_of(beats[numbers == 1], song))
    chords = notes_to_chords(written.notes[~is_drum], song)
    chord_notes, _ = chords_to_notes(chords, song)
    beat_notes = beats_to_notes(song)
    return Analysis(song, chords, beats, numbers, beat_notes, chord_notes, method)
