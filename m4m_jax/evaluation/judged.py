"""Everything that was judged, as `report.json` has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from m4m_jax.evaluation.pairing import Lacking, LeftOut
from m4m_jax.evaluation.scoring import Figures, Parts
from m4m_jax.evaluation.summary import Summary, summarize
from m4m_jax.music.notes import NoteTable

TRUTH = "truth"
"""What the songs' own parts are called among the systems."""


def printable(text: str) -> str:
    """A text without what a file's name may have and no encoding: bytes that are not UTF-8."""
    return text.encode(errors="replace").decode()


@dataclass(frozen=True)
class Sample:
    """A sample of a song.

    Attributes:
        file: where it is.
        part: its notes, on the song's clock.
        figures: what was found.
        reference: the reference in its file, where the song has none.
        past_end: how many notes begin past the song's end; they are not in `part`.
    """

    file: str
    part: NoteTable
    figures: Figures
    reference: NoteTable | None = None
    past_end: int = 0


@dataclass(frozen=True)
class JudgedSong:
    """A song: its parts, the figures of its own part, and the samples of each system."""

    name: str
    parts: Parts
    truth: Figures
    systems: dict[str, list[Sample]]


@dataclass
class Judged:
    """Songs that were judged for a task, and what was left out.

    Attributes:
        task: its name.
        systems: the names of the systems, in the order given.
        settings: how it was done, as JSON has it.
        songs: those that have a sample.
        left_out: what was not judged.
        lacking: what songs were judged without.
        notes: what else there is to say, a line each.
        distances: the Fréchet Music Distance of each system from the songs, where there is one.
    """

    task: str
    systems: list[str]
    settings: dict[str, Any] = field(default_factory=dict)
    songs: list[JudgedSong] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    lacking: list[Lacking] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    distances: dict[str, float] = field(default_factory=dict)

    def truth_summary(self) -> dict[str, Summary]:
        """The figures of the songs' own parts, summed up."""
        return summarize([song.truth] if song.truth else [] for song in self.songs)

    def summary(self, system: str) -> dict[str, Summary]:
        """A system's figures, summed up."""
        return summarize(
            [sample.figures for sample in song.systems.get(system, ())] for song in self.songs
        )

    def summaries(self) -> dict[str, dict[str, Summary]]:
        """All of a table's columns: the truth's figures, then each system's."""
        return {TRUTH: self.truth_summary()} | {name: self.summary(name) for name in self.systems}

    def counts(self) -> dict[str, int]:
        """How many songs stand behind each column: the truth's, then each system's."""
        of_systems = {
            system: sum(bool(song.systems.get(system)) for song in self.songs)
            for system in self.systems
        }
        return {TRUTH: sum(bool(song.truth) for song in self.songs), **of_systems}

    def uneven(self) -> str | None:
        """A warning where means are over different songs, else None; no truth at all is none."""
        total = len(self.songs)
        fewer = [f"{name} was judged on {n}" for name, n in self.counts().items() if 0 < n < total]
        if not fewer:
            return None
        return f"{', '.join(fewer)} of {total} songs; means are over different songs"

    def past_ends(self) -> list[str]:
        """For each system that wrote past the ends of songs, how much."""
        found = []
        for system in self.systems:
            counts = [s.past_end for song in self.songs for s in song.systems.get(system, ())]
            if notes := sum(counts):
                samples = sum(count > 0 for count in counts)
                found.append(
                    f"{system}: {notes} notes of {samples} samples begin past their songs' ends"
                    " and are not judged"
                )
        return found

    def as_json(self) -> dict[str, Any]:
        """What `report.json` holds."""
        return {
            "task": self.task,
            "settings": self.settings,
            "truth": self.truth_summary(),
            "systems": {system: self.summary(system) for system in self.systems},
            "frechet_music_distance": self.distances,
            "songs": [_song_json(song) for song in self.songs],
            "left_out": [item._asdict() for item in self.left_out],
            "lacking": [item._asdict() for item in self.lacking],
            "notes": self.notes,
        }


def _song_json(song: JudgedSong) -> dict[str, Any]:
    systems = {
        system: [{"file": s.file, "figures": s.figures, "past_end": s.past_end} for s in samples]
        for system, samples in song.systems.items()
    }
    return {"name": song.name, "truth": song.truth, "systems": systems}
