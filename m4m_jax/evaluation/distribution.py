"""How far a set of samples is from the set of the songs: the Fréchet Music Distance."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from m4m_jax.evaluation.judged import Judged
from m4m_jax.music.notes import NoteTable, write_midi

PACKAGE = "frechet_music_distance"

Distance = Callable[[str, str], float]
"""Of two folders of MIDI files."""


def distances(judged: Judged, distance: Distance | None = None) -> tuple[dict[str, float], str]:
    """The Fréchet Music Distance of each system from the songs, lower being nearer.

    Retkowski, Stępniak and Modrzejewski, "Frechet Music Distance" (arXiv 2412.07948): the distance
    of two normal distributions, fitted to features of whole files from a pretrained network, CLaMP
    2. Each song and sample is a MIDI file of its reference and its part. Covariances are estimated
    with shrinkage, since sets are small.

    Args:
        judged: songs without a truth are left out.
        distance: that of two folders; the package frechet-music-distance, if it is installed.

    Returns:
        Distances by system, and why there are none (empty where there are).
    """
    songs = [song for song in judged.songs if song.parts.truth is not None]
    if distance is None and importlib.util.find_spec(PACKAGE) is None:
        return {}, "no Fréchet Music Distance: the package frechet-music-distance is not installed"
    if len(songs) < 2:
        return {}, "no Fréchet Music Distance: it needs two songs or more with a truth"
    sets = {"truth": [_files(song.parts.reference, song.parts.truth) for song in songs]}
    for system in judged.systems:
        sets[system] = [
            _files(song.parts.reference, sample.part)
            for song in songs
            for sample in song.systems.get(system, [])
        ]
    try:
        with tempfile.TemporaryDirectory() as folder:
            places = {name: _write(Path(folder) / name, tables) for name, tables in sets.items()}
            score = distance or _package_distance()
            return {s: float(score(places["truth"], places[s])) for s in judged.systems}, ""
    except Exception as error:  # of a package that fetches weights and runs a network
        reason = str(error).partition("\n")[0] or type(error).__name__
        return {}, f"no Fréchet Music Distance: frechet-music-distance failed ({reason})"


def _package_distance() -> Distance:
    from frechet_music_distance import FrechetMusicDistance

    metric = FrechetMusicDistance(
        feature_extractor="clamp2", gaussian_estimator="shrinkage", verbose=False
    )
    return metric.score


def _files(reference: NoteTable | None, part: NoteTable | None) -> NoteTable:
    tables = [table for table in (reference, part) if table is not None]
    return NoteTable.concat(tables)


def _write(folder: Path, tables: Sequence[NoteTable]) -> str:
    folder.mkdir(parents=True)
    for number, table in enumerate(tables):
        if len(table.notes):
            write_midi(table, folder / f"{number}.mid")
    return str(folder)
