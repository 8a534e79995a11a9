"""The Nottingham folk tunes, as cleaned up by Jukedeck."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from etils import epath

from m4m_jax.datasets.builder import SongBuilder
from m4m_jax.datasets.ingest import Entry, Source
from m4m_jax.datasets.midi_files import midi_names, read_midi_file
from m4m_jax.errors import M4MError

SPLIT_FILE = "official_split.json"
TUNES = 1034
"""How many there are in the collection."""


@dataclass(frozen=True)
class _SplitByName:
    train: frozenset[str]
    validation: frozenset[str]

    def __call__(self, song: Entry) -> str:
        stem = _stem(song.name)
        if stem in self.train:
            return "train"
        return "validation" if stem in self.validation else "test"


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0]


def _official_split(midi: epath.Path, names: Sequence[str]) -> _SplitByName:
    """The split that the published models were trained with, which goes by a tune's place.

    Of all tunes with two tracks that pass the quality filter, in the order of their names, every
    tenth is for test, from the first on, and the one after it for validation.
    """
    if len(names) != TUNES:
        raise M4MError(
            f"{midi}: {len(names)} tunes, and the split goes by their places among all {TUNES};"
            f" give all of them, or {SPLIT_FILE} beside MIDI, an object with lists train and val"
        )
    kept = [_stem(name) for name in names if _is_kept(os.fspath(midi), name)]
    validation = frozenset(kept[1::10])
    return _SplitByName(frozenset(kept) - frozenset(kept[::10]) - validation, validation)


def _is_kept(midi: str, name: str) -> bool:
    try:
        return len(read_midi_file(midi, True, name).table.tracks) == 2
    except M4MError:
        return False


def _read_split(path: epath.Path) -> _SplitByName:
    try:
        lists = json.loads(path.read_text())
        split = _SplitByName(frozenset(lists["train"]), frozenset(lists["val"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise M4MError(
            f"{path}: cannot be read as the official split, an object with lists train and val"
            f" ({type(error).__name__})"
        ) from error
    if both := sorted(split.train & split.validation):
        raise M4MError(f"{path}: {both[0]} is in both lists, train and val")
    return split


class Builder(SongBuilder):
    """Melodies (track 0) and chords (track 1), split by file name."""

    PARTS = {"melody": "track-0", "chords": "track-1"}  # noqa: RUF012
    HOMEPAGE = "https://github.com/jukedeck/nottingham-dataset"
    LICENSE = "GNU General Public License v3.0"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
A copy of https://github.com/jukedeck/nottingham-dataset. Where tunes are missing from its folder
MIDI, it takes official_split.json beside MIDI: an object with the lists train and val of file names
without .mid."""

    def source_files(self, folder: epath.Path | None) -> Source:
        """Return the files of `folder`/MIDI, split as the published models had them.

        `folder`/official_split.json tells the split, where there is one.
        """
        assert folder is not None
        if folder.exists() and not folder.is_dir():
            raise M4MError(
                f"{folder}: nottingham is built from a folder, not from an archive; unpack it, and"
                " give the folder that holds MIDI"
            )
        if not folder.is_dir():
            raise M4MError(f"{folder}: no such folder; give a copy of {self.HOMEPAGE}")
        midi = folder / "MIDI"
        # Folders in MIDI hold the melodies and the chords once more, by themselves.
        names = [name for name in midi_names(midi) if "/" not in name]
        lists = folder / SPLIT_FILE
        split = _read_split(lists) if lists.exists() else _official_split(midi, names)
        missing = (split.train | split.validation) - {_stem(name) for name in names}
        return Source(
            os.fspath(folder),
            names,
            functools.partial(read_midi_file, os.fspath(midi), True),
            split,
            # The official split counts its few duplicates, so dropping them would change it.
            unique=False,
            missing={f"{stem}.mid": f"listed in {SPLIT_FILE}" for stem in missing},
        )
