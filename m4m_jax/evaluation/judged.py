"""Everything that was judged, as `report.json` has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from m4m_jax.evaluation.pairing import Lacking, LeftOut
from m4m_jax.evaluation.scoring import Figures, Parts
from m4m_jax.evaluation.summary import Summary, summarize
from m4m_jax.music.notes import NoteTable


@dataclass(frozen=True)
class Sample:
    """A sample of a song: its file, its notes, its figures."""

    file: str
    part: NoteTable
    figures: Figures


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

    def counts(self) -> dict[str, int]:
        """How many songs stand behind each column: the truth's, then each system's."""
        of_systems = {
            system: sum(bool(song.systems.get(system)) for song in self.songs)
            for system in self.systems
        }
        return {"truth": sum(bool(song.truth) for song in self.songs), **of_systems}

    def uneven(self) -> str | None:
        """A warning where means are over different songs, else None; no truth at all is none."""
        total = len(self.songs)
        fewer = [f"{name} was judged on {n}" for name, n in self.counts().items() if 0 < n < total]
        if not fewer:
            return None
        return f"{', '.join(fewer)} of {total} songs; means are over different songs"

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
        system: [{"file": s.file, "figures": s.figures} for s in samples]
        for system, samples in song.systems.items()
    }
    return {"name": song.name, "truth": song.truth, "systems": systems}
