"""What a task's parts are judged by: the figures of one sample, or of the truth."""

from __future__ import annotations

from typing import NamedTuple

from m4m_jax.evaluation import analysis, chords, drums, general, harmony
from m4m_jax.evaluation.sounding import begun_from, from_step
from m4m_jax.music.notes import STEP, NoteTable

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


def on_clock_of(written: NoteTable, song: NoteTable | None) -> NoteTable:
    """A sample on its song's tempos and meters, and as long as it; itself where there is no song.

    A file from elsewhere may have lost them, and bars and seconds are the song's. What is missing
    is silence; notes that begin past the song's end are left out.
    """
    if song is None:
        return written
    return written.replace(
        notes=written.notes[written.notes[:, STEP] < song.length],
        length=song.length,
        tempos=song.tempos,
        meters=song.meters,
    )


def score(task: str, part: NoteTable, reference: NoteTable | None, skip: int = 0) -> Figures:
    """The figures of a target part by itself and with its reference.

    skip: steps at the beginning that are not judged.
    """
    found, families = general.figures(part, skip), FAMILIES.get(task, ())
    if "chords" in families:
        found |= chords.figures(from_step(part, skip))
        if reference is not None:
            found |= harmony.figures(reference, part, skip)
    if "melody" in families and reference is not None:
        found |= harmony.figures(part, reference, skip)
    return found


def compare(task: str, written: NoteTable, truth: NoteTable, skip: int = 0) -> Figures:
    """The figures of a sample beside the truth; skip: as for `score`."""
    found: Figures = {}
    begun = begun_from(truth, skip), begun_from(written, skip)
    for family in FAMILIES.get(task, ()):
        if family in ("chords", "analysis"):
            found |= chords.agreement(from_step(truth, skip), from_step(written, skip))
        if family == "analysis":
            found |= analysis.figures(*begun)
        if family == "drums":
            found |= drums.figures(*begun)
    return found


def score_sample(task: str, written: NoteTable, song: Parts, skip: int = 0) -> Figures:
    """All figures of a sample that is on its song's clock.

    skip: steps at the beginning that are not judged, since the sample was given them as a prompt.
    """
    found = score(task, written, song.reference, skip)
    return found if song.truth is None else found | compare(task, written, song.truth, skip)


def score_truth(task: str, song: Parts, skip: int = 0) -> Figures:
    """The figures of a song's own part; none where it has none."""
    return {} if song.truth is None else score(task, song.truth, song.reference, skip)
