"""Judging samples: each is read, put beside its song and scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from m4m_jax.errors import M4MError
from m4m_jax.evaluation.judged import Judged, JudgedSong, Sample
from m4m_jax.evaluation.pairing import (
    NO_TRUTH,
    Folder,
    Lacking,
    LeftOut,
    Reasons,
    Source,
    Views,
    pair,
)
from m4m_jax.evaluation.scoring import Figures, Parts, has_harmony, score_sample, score_truth
from m4m_jax.evaluation.sounding import until_step
from m4m_jax.music.notes import NoteTable

Likelihood = Callable[[NoteTable, NoteTable | None], Figures]
"""Figures of a target part under a model, given the reference."""


@dataclass(frozen=True)
class Setting:
    """What is judged, and how.

    Attributes:
        task: its name.
        songs: where the truth is; None where there is none.
        systems: name -> the folder of its samples.
        views: which parts are which.
        skip: steps at the beginning of a song that samples were given.
        steps: so much of each song is judged; all of it by default.
        likelihood: adds figures under a model.
    """

    task: str
    songs: Source | None
    systems: Mapping[str, Folder]
    views: Views
    skip: int = 0
    steps: int | None = None
    likelihood: Likelihood | None = None

    def read(self, source: Source, stem: str) -> NoteTable:
        """A song or a sample, as much of it as is judged; M4MError where it cannot be read."""
        table = source.read(stem)
        return table if self.steps is None else until_step(table, self.steps)


class _Read(NamedTuple):
    """A sample as read: its file, all that is in it, its target part."""

    file: str
    whole: NoteTable
    part: NoteTable


def judge(
    setting: Setting,
    only: Iterable[str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Judged:
    """Judge the samples of each system against the songs they belong to.

    only: the stems of songs to judge (default: all). What cannot be read or paired is left out, and
    listed.

    Raises:
        M4MError: nothing is left.
    """
    judged = Judged(setting.task, list(setting.systems))
    stems = None if setting.songs is None else setting.songs.stems()
    paired = {}
    for system, folder in setting.systems.items():
        paired[system], strangers = pair(folder, stems)
        judged.left_out += strangers
    found = stems if stems is not None else sorted(set().union(*paired.values()))
    wanted = [stem for stem in found if only is None or stem in only]
    for number, stem in enumerate(wanted):
        files = {system: songs[stem] for system, songs in paired.items() if stem in songs}
        for system in setting.systems.keys() - files.keys():
            judged.left_out.append(LeftOut(stem, f"no sample of this song by {system}"))
        if files:
            song, left_out, lacking = _judge_song(setting, stem, files)
            judged.left_out += left_out
            if song.systems:
                judged.songs.append(song)
                judged.lacking += lacking
        progress(number + 1, len(wanted))
    if not judged.songs:
        reasons = "; ".join(f"{item.what}: {item.reason}" for item in judged.left_out[:1])
        raise M4MError(f"nothing can be judged, {len(judged.left_out)} left out: {reasons}")
    if uneven := judged.uneven():
        judged.notes.append(uneven)
    return judged


def _judge_song(
    setting: Setting, stem: str, files: Mapping[str, list[str]]
) -> tuple[JudgedSong, list[LeftOut], list[Lacking]]:
    """Judge all samples of a song; files: system -> their stems."""
    parts, reasons, left_out = _read_song(setting, stem)
    read: dict[str, list[_Read]] = {}
    for system, stems in files.items():
        found, failed = _read_samples(setting, system, stems)
        left_out += failed
        if found:
            read[system] = found
    if parts.reference is None and read:
        first = next(iter(read.values()))[0].whole
        parts = parts._replace(reference=setting.views.given_in(first))
    lacking = _lacking(setting.task, stem, parts, reasons)

    def under_model(part: NoteTable, figures: Figures) -> Figures:
        judged = setting.likelihood
        return figures if judged is None else judged(part, parts.reference) | figures

    truth: Figures = {}
    if parts.truth is not None:
        truth = under_model(parts.truth, score_truth(setting.task, parts, setting.skip))
    systems = {}
    for system, samples in read.items():
        systems[system] = [
            Sample(
                one.file,
                one.part,
                under_model(one.part, score_sample(setting.task, one.part, parts, setting.skip)),
            )
            for one in samples
        ]
    return JudgedSong(stem, parts, truth, systems), left_out, lacking


def _lacking(task: str, stem: str, parts: Parts, reasons: Reasons) -> list[Lacking]:
    """What a song is judged without; parts: what it is judged with, reasons: what it had not."""
    found = []
    if reasons.reference is not None:
        if parts.reference is not None:
            what = "a sample's reference is taken"
        else:
            what = "no harmony figures" if has_harmony(task) else "no reference"
        found.append(Lacking(stem, what, reasons.reference))
    if reasons.truth is not None:
        found.append(Lacking(stem, NO_TRUTH, reasons.truth))
    return found


def _read_song(setting: Setting, stem: str) -> tuple[Parts, Reasons, list[LeftOut]]:
    """A song's parts, none where there is no song, why it lacks some, and whether it is read."""
    if setting.songs is None:
        return Parts(None, None), Reasons(None, None), []
    try:
        return *setting.views.song(setting.read(setting.songs, stem)), []
    except M4MError as error:
        return Parts(None, None), Reasons(None, None), [LeftOut(stem, str(error))]


def _read_samples(
    setting: Setting, system: str, stems: list[str]
) -> tuple[list[_Read], list[LeftOut]]:
    """The samples of a song by a system, and those that cannot be read."""
    folder = setting.systems[system]
    found, failed = [], []
    for stem in stems:
        file = str(folder.file(stem))
        try:
            whole = setting.read(folder, stem)
            found.append(_Read(file, whole, setting.views.sample(whole, system)))
        except M4MError as error:
            failed.append(LeftOut(file, str(error)))
    return found, failed
