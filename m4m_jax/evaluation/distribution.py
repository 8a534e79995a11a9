"""How far a set of samples is from the set of the songs: the Fréchet Music Distance."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from m4m_jax.evaluation.judged import Judged, JudgedSong
from m4m_jax.evaluation.sounding import from_step
from m4m_jax.music.notes import NoteTable, write_midi

PACKAGE = "frechet_music_distance"
_NAME = "Fréchet Music Distance"
_FEWEST = 2
"""Files that a distribution is fitted to."""

Distance = Callable[[str, str], float]
"""Of two folders of MIDI files."""


def distances(
    judged: Judged, distance: Distance | None = None, skip: int = 0
) -> tuple[dict[str, float], list[str]]:
    """The Fréchet Music Distance of each system from the songs, lower being nearer.

    Retkowski, Stępniak and Modrzejewski, "Frechet Music Distance" (arXiv 2412.07948): the distance
    of two normal distributions, fitted to features of whole files from a pretrained network, CLaMP
    2. Each song and sample is a MIDI file of its reference and its part. Covariances are estimated
    with shrinkage, since sets are small.

    Args:
        judged: songs without a truth are left out.
        distance: that of two folders; the package frechet-music-distance, if it is installed.
        skip: steps at the beginning that are not judged; what rings on from there is in the files.

    Returns:
        Distances by system, and remarks: why there are none, or of which system, and how many
        files without notes are not among them.
    """
    songs = [song for song in judged.songs if song.parts.truth is not None]
    if distance is None and importlib.util.find_spec(PACKAGE) is None:
        return {}, [f"no {_NAME}: the package frechet-music-distance is not installed"]
    if len(songs) < _FEWEST:
        return {}, [f"no {_NAME}: it needs two songs or more with a truth"]
    found, remarks = {}, []
    with tempfile.TemporaryDirectory() as folder:
        truth = Path(folder) / "truth"
        _write(truth, [_joined(song.parts.reference, song.parts.truth, skip) for song in songs])
        for number, system in enumerate(judged.systems):
            tables = _of_system(songs, system, skip)
            place = Path(folder) / str(number)
            count = _write(place, tables)
            if silent := len(tables) - count:
                remarks.append(f"{_NAME}: {silent} samples of {system} have no notes")
            if count < _FEWEST:
                remarks.append(f"no {_NAME} of {system}: it needs two samples or more with notes")
                continue
            try:
                score = distance or _package_distance()
                found[system] = float(score(str(truth), str(place)))
            except Exception as error:  # of a package that fetches weights and runs a network
                reason = str(error).partition("\n")[0] or type(error).__name__
                remarks.append(f"no {_NAME} of {system}: frechet-music-distance failed ({reason})")
    return found, remarks


def _of_system(songs: Sequence[JudgedSong], system: str, skip: int) -> list[NoteTable]:
    """A system's samples with their references."""
    return [
        _joined(sample.reference or song.parts.reference, sample.part, skip)
        for song in songs
        for sample in song.systems.get(system, [])
    ]


def _package_distance() -> Distance:
    from frechet_music_distance import FrechetMusicDistance

    metric = FrechetMusicDistance(
        feature_extractor="clamp2", gaussian_estimator="shrinkage", verbose=False
    )
    return metric.score


def _joined(reference: NoteTable | None, part: NoteTable | None, skip: int) -> NoteTable:
    """What is judged of a reference and a part, in one table."""
    tables = [table for table in (reference, part) if table is not None]
    return from_step(NoteTable.concat(tables), skip)


def _write(folder: Path, tables: Sequence[NoteTable]) -> int:
    """Write the tables that have notes into a folder that is made; how many they are."""
    folder.mkdir(parents=True)
    kept = [table for table in tables if len(table.notes)]
    for number, table in enumerate(kept):
        write_midi(table, folder / f"{number}.mid")
    return len(kept)
