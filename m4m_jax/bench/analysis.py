"""How well songs are analysed, by rules or by a model: `m4m bench analysis`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from etils import epath

from m4m_jax.analysis import Analysis, analyze
from m4m_jax.datasets.archives import files_in, read_file
from m4m_jax.datasets.rwc_pop.rwc_pop_dataset_builder import beat_distance
from m4m_jax.errors import M4MError
from m4m_jax.evaluation.analysis import figures
from m4m_jax.evaluation.chords import label_agreement
from m4m_jax.music.labels import Label, beats_to_notes, notes_to_chords, parse_lab
from m4m_jax.music.notes import STEP, NoteTable, parse_midi
from m4m_jax.music.parts import select

if TYPE_CHECKING:
    from m4m_jax.pretrained import Model

WORKS = ("meters-given", "meters-found")
_ON_BEAT = 0.1  # quarters that chord labels are from beats, at most, to count as on them
_BLOCKS = 0.5  # the least share of a chord track's onsets at which three notes or more begin


class Song(NamedTuple):
    """A song and its chords as annotated."""

    table: NoteTable
    chords: list[Label]


def measure(
    work: str | None = None,
    folder: epath.PathLike | None = None,
    *,
    model: epath.PathLike | None = None,
    bases: Sequence[epath.PathLike] = (),
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Compare the analyses of annotated songs with their annotations.

    The songs are MIDI files with chord labels of the same names in .lab files in or below the
    folder, or, where there are none, files of two tracks, music and block chords; what is analysed
    is the music alone.

    Args:
        work: `meters-given`, with the files' meters, or `meters-found`, with none; both when
            `None`.
        folder: of the songs.
        model: what analyses them, a directory as for `load`; the rules when `None`.
        bases: the model's own language models, as for `load`.
        say: told each row as text.

    Returns:
        A row for each kind of work and set of songs (all of them, and those whose labels are within
        a tenth of a quarter of the beats of the file on average): `work`, `songs`, `seconds` (for
        each song) and for each figure its `mean` and `median` over songs. Figures: mir_eval's root,
        majmin and sevenths, by duration, and F-measures of the file's own beats and downbeats.

    Raises:
        M4MError: no such work, no folder, no song with annotations in it, or no model of the task
            `analysis`. Songs without annotations are left out, and `say` is told how many.
    """
    if work not in (None, *WORKS):
        raise M4MError(f"no work {work!r} to measure; there are {', '.join(WORKS)}")
    if folder is None:
        raise M4MError("an analysis is measured on annotated songs; name their folder by --data")
    loaded = None
    if model is not None:
        from m4m_jax.pretrained import load  # heavy, and rules need no model

        loaded = load(model, bases or None)
    songs, left_out = _songs(epath.Path(folder))
    example = next((f"{name}: {reason}" for name, reason in left_out.items()), "")
    if not songs:
        raise M4MError(
            f"{folder}: none of {len(left_out)} songs has annotations, which are a .lab file of its"
            f" name, or a second track of block chords and no more tracks; such as {example}"
        )
    if left_out:
        say(f"left out: {len(left_out)} songs without annotations, such as {example}")
    on_beat = np.array([beat_distance(song.chords, song.table) < _ON_BEAT for song in songs])
    rows = []
    for kind in WORKS if work is None else (work,):
        start = time.perf_counter()
        found = [_analysed(song.table, kind, loaded) for song in songs]
        seconds = (time.perf_counter() - start) / len(songs)
        judged = [_judged(song, one) for song, one in zip(songs, found, strict=True)]
        for name, chosen in (("all", np.ones(len(songs), bool)), ("labels on beats", on_beat)):
            if chosen.any():
                of = [one for one, wanted in zip(judged, chosen, strict=True) if wanted]
                rows.append({"work": kind, "of": name, "songs": len(of), "seconds": seconds})
                rows[-1] |= _summary(of)
                say(_line(rows[-1]))
    return rows


def _songs(folder: epath.Path) -> tuple[list[Song], dict[str, str]]:
    """The annotated songs of a folder, and the other files: name -> why they are none."""
    names = files_in(folder, (".mid", ".midi", ".lab"), "MIDI file")
    labels = {_stem(name): name for name in names if name.lower().endswith(".lab")}
    songs, left_out = list[Song](), dict[str, str]()
    for name in names:
        if name in labels.values():
            continue
        try:
            songs.append(_song(os.fspath(folder), name, labels))
        except M4MError as error:
            left_out[name] = str(error).removeprefix(f"{name}: ")
    return songs, left_out


def _song(place: str, name: str, labels: Mapping[str, str]) -> Song:
    """A song with the labels of its name, or, where there are none at all, of its second track.

    Raises:
        M4MError: it cannot be read, or has no annotations.
    """
    if labels and _stem(name) not in labels:
        raise M4MError("there is no .lab file of its name")
    table = parse_midi(read_file(place, name), name)
    if labels:
        label = labels[_stem(name)]
        return Song(table, parse_lab(read_file(place, label).decode(errors="replace"), label))
    if len(table.tracks) != 2:
        raise M4MError(f"it has {len(table.tracks)} tracks, and no .lab file")
    chords = select(table, "track-1")
    starts = np.unique(chords.notes[:, STEP], return_counts=True)[1]
    if chords.tracks[1].is_drum or (starts >= 3).mean() < _BLOCKS:
        raise M4MError("its second track has no block chords, and there is no .lab file")
    return Song(select(table, "track-0"), notes_to_chords(chords.notes, table))


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].partition(".")[0].lower()


def _analysed(song: NoteTable, work: str, model: Model | None) -> Analysis:
    given = work == "meters-given"
    return analyze(song if given else song.replace(meters=song.meters[:0]), model)


def _judged(song: Song, found: Analysis) -> dict[str, float]:
    beats = figures(beats_to_notes(song.table), found.beat_notes)
    return label_agreement(song.chords, found.chords) | beats


def _summary(judged: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """The mean and median of each figure over the songs that have it."""
    summary = {}
    for name in dict.fromkeys(name for one in judged for name in one):
        values = np.array([one[name] for one in judged if name in one])
        summary[name] = {"mean": float(values.mean()), "median": float(np.median(values))}
    return summary


def _line(row: dict[str, Any]) -> str:
    told = ", ".join(
        f"{name} {value['mean']:.3f} ({value['median']:.3f})"
        for name, value in row.items()
        if isinstance(value, dict)
    )
    return (
        f"{row['work']}, {row['of']}, {row['songs']} songs, mean (median): {told};"
        f" {row['seconds']:.3f} s a song"
    )
