"""What a task's parts are judged by: the figures of one sample, or of the truth."""

from __future__ import annotations

from typing import NamedTuple

from m4m_jax.evaluation import analysis, chords, drums, general, harmony
from m4m_jax.evaluation.sounding import from_step
from m4m_jax.music.notes import NoteTable

Figures = dict[str, float]

FAMILIES: dict[str, tuple[str, ...]] = {
    "chord-to-melody": ("melody",),
    "chord-to-song": ("melody",),
    "melody-to-chord": ("chords",),
    "harmonize": ("chords",),
    "song-to-chord": ("chords",),
    "others-to-drums": ("drums",),
    "analysis": ("analysis",),
}
"""What is judged beside the figures of all tasks, by task."""


def has_harmony(task: str) -> bool:
    """Whether a task's target and reference are judged as a melody and its chords."""
    return not {"melody", "chords"}.isdisjoint(FAMILIES.get(task, ()))


class Parts(NamedTuple):
    """A song's parts: what was given, and what stands in the song in the place of a sample."""

    reference: NoteTable | None
    truth: NoteTable | None

    def after(self, step: int) -> Parts:
        """The parts from a step on."""
        return Parts(*(None if table is None else from_step(table, step) for table in self))


def on_clock_of(written: NoteTable, song: NoteTable | None) -> NoteTable:
    """A sample on its song's tempos and meters, and at least as long: what is missing is silence.

    A file from elsewhere may have lost them, and bars and seconds are the song's.
    """
    if song is None:
        return written
    length = max(written.length, song.length)
    return written.replace(length=length, tempos=song.tempos, meters=song.meters)


def score(task: str, part: NoteTable, reference: NoteTable | None) -> Figures:
    """The figures of a target part by itself and with its reference."""
    found, families = general.figures(part), FAMILIES.get(task, ())
    if "chords" in families:
        found |= chords.figures(part)
        if reference is not None:
            found |= harmony.figures(reference, part)
    if "melody" in families and reference is not None:
        found |= harmony.figures(part, reference)
    return found


def compare(task: str, written: NoteTable, truth: NoteTable) -> Figures:
    """The figures of a sample beside the truth."""
    found: Figures = {}
    for family in FAMILIES.get(task, ()):
        if family in ("chords", "analysis"):
            found |= chords.agreement(truth, written)
        if family == "analysis":
            found |= analysis.figures(truth, written)
        if family == "drums":
            found |= drums.figures(truth, written)
    return found


def score_sample(task: str, written: NoteTable, song: Parts, skip: int = 0) -> Figures:
    """All figures of a sample.

    skip: steps at the beginning that are not judged, since the sample was given them as a prompt.
    """
    clock = song.truth if song.truth is not None else song.reference
    part, parts = from_step(on_clock_of(written, clock), skip), song.after(skip)
    found = score(task, part, parts.reference)
    return found if parts.truth is None else found | compare(task, part, parts.truth)


def score_truth(task: str, song: Parts, skip: int = 0) -> Figures:
    """The figures of a song's own part; none where it has none."""
    parts = song.after(skip)
    return {} if parts.truth is None else score(task, parts.truth, parts.reference)
