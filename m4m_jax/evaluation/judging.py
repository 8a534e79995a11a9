"""Judging samples: each is read, put beside its song and scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from m4m_jax.errors import M4MError
from m4m_jax.evaluation.judged import Judged, JudgedSong, Sample
from m4m_jax.evaluation.pairing import (
    NO_TRUTH,
    Folder,
    Lacking,
    LeftOut,
    Paired,
    Reasons,
    Source,
    Views,
    not_judged,
    pair,
)
from m4m_jax.evaluation.scoring import (
    Figures,
    Parts,
    has_harmony,
    on_clock_of,
    score_sample,
    score_truth,
)
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
        limit: so many songs are judged, the first; all by default.
        paired: system -> its files by songs, where that is known and not to be told from names.
        likelihood: adds figures under a model.
    """

    task: str
    songs: Source | None
    systems: Mapping[str, Folder]
    views: Views
    skip: int = 0
    steps: int | None = None
    limit: int | None = None
    paired: Mapping[str, Paired] = field(default_factory=dict)
    likelihood: Likelihood | None = None

    def read(self, source: Source, stem: str) -> NoteTable:
        """A song or a sample, as much of it as is judged; M4MError where it cannot be read."""
        table = source.read(stem)
        return table if self.steps is None else until_step(table, self.steps)

    def under_model(self, part: NoteTable, reference: NoteTable | None) -> Figures:
        """A part's figures under a model; none where there is none."""
        return {} if self.likelihood is None else dict(self.likelihood(part, reference))


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
    paired = _pair_all(setting, stems, judged)
    found = stems if stems is not None else sorted(set().union(*paired.values()))
    wanted = [stem for stem in found if only is None or stem in only][: setting.limit]
    for number, stem in enumerate(wanted):
        files = {system: songs[stem] for system, songs in paired.items() if stem in songs}
        for system in paired:
            if system not in files:
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
    uneven = judged.uneven()
    judged.notes[:0] = [uneven] if uneven else []
    judged.notes += judged.past_ends()
    return judged


def _pair_all(
    setting: Setting, stems: list[str] | None, judged: Judged
) -> dict[str, Mapping[str, list[str]]]:
    """Each system's files by songs; those without one, or that could be of two, are told."""
    found = {}
    for system, folder in setting.systems.items():
        paired = setting.paired.get(system) or pair(folder, stems)
        found[system] = paired.songs
        judged.left_out += paired.strangers
        if paired.ambiguous:
            first = paired.ambiguous[0]
            more = f" and {len(paired.ambiguous) - 1} more" if len(paired.ambiguous) > 1 else ""
            judged.notes.append(
                f"{folder.file(first)}{more}: taken for the song of that name, {first}, though"
                f" {first.rpartition('_')[0]} is a song, too"
            )
    return found


def _judge_song(
    setting: Setting, stem: str, files: Mapping[str, list[str]]
) -> tuple[JudgedSong, list[LeftOut], list[Lacking]]:
    """Judge all samples of a song; files: system -> their stems."""
    song, left_out = _read_song(setting, stem)
    parts, reasons = Parts(None, None), Reasons(None, None)
    if song is not None:
        parts, reasons = setting.views.song(song)
    systems: dict[str, list[Sample]] = {}
    for system, stems in files.items():
        found, failed = _judge_samples(setting, system, stems, song, parts)
        left_out += failed
        if found:
            systems[system] = found
    samples = [sample for found in systems.values() for sample in found]
    lacking = _lacking(setting, stem, parts, reasons, samples)
    truth: Figures = {}
    if parts.truth is not None:
        truth = score_truth(setting.task, parts, setting.skip)
        truth = setting.under_model(parts.truth, parts.reference) | truth
    return JudgedSong(stem, parts, truth, systems), left_out, lacking


def _lacking(
    setting: Setting, stem: str, parts: Parts, reasons: Reasons, samples: list[Sample]
) -> list[Lacking]:
    """What a song and its samples are judged without; reasons: why the song itself has it not."""
    wanted = setting.views.reference
    found = []
    if wanted is not None and parts.reference is None:
        without = "no harmony figures" if has_harmony(setting.task) else "no reference"
        bare = [sample.file for sample in samples if sample.reference is None]
        none = len(bare) == len(samples)
        if reasons.reference is not None:
            what = without if none else "samples' own references are taken"
            found.append(Lacking(stem, what, reasons.reference))
        if reasons.reference is None or not none:
            found += [Lacking(file, without, f"the file has no part {wanted!r}") for file in bare]
    if reasons.truth is not None:
        found.append(Lacking(stem, NO_TRUTH, reasons.truth))
    return found


def _read_song(setting: Setting, stem: str) -> tuple[NoteTable | None, list[LeftOut]]:
    """A song, None where there is none, and whether it was left out."""
    if setting.songs is None:
        return None, []
    try:
        return setting.read(setting.songs, stem), []
    except M4MError as error:
        return None, [not_judged(stem, error)]


def _judge_samples(
    setting: Setting, system: str, stems: list[str], song: NoteTable | None, parts: Parts
) -> tuple[list[Sample], list[LeftOut]]:
    """The samples of a song by a system, and those that cannot be read."""
    folder = setting.systems[system]
    found, failed = [], []
    for stem in stems:
        file = str(folder.file(stem))
        try:
            whole = setting.read(folder, stem)
            part = setting.views.sample(whole, system)
        except M4MError as error:
            failed.append(not_judged(file, error))
            continue
        own = None if parts.reference is not None else setting.views.given_in(whole)
        found.append(_judge_sample(setting, file, part, own, song, parts))
    return found, failed


def _judge_sample(
    setting: Setting,
    file: str,
    written: NoteTable,
    own: NoteTable | None,
    song: NoteTable | None,
    parts: Parts,
) -> Sample:
    """A sample beside its song; own: the reference in its file, where the song has none."""
    part = on_clock_of(written, song)
    if own is not None:
        own = on_clock_of(own, song)
        parts = parts._replace(reference=own)
    figures = setting.under_model(part, parts.reference)
    figures |= score_sample(setting.task, part, parts, setting.skip)
    return Sample(file, part, figures, own, len(written.notes) - len(part.notes))
