"""The Nottingham folk tunes, as cleaned up by Jukedeck."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass

from etils import epath

from m4m_jax.datasets.builder import SongBuilder
from m4m_jax.datasets.ingest import Entry, Source
from m4m_jax.datasets.midi_files import midi_names, read_midi_file
from m4m_jax.errors import M4MError

SPLIT_FILE = "official_split.json"


@dataclass(frozen=True)
class _SplitByName:
    train: frozenset[str]
    validation: frozenset[str]

    def __call__(self, song: Entry) -> str:
        stem = song.name.rsplit(".", 1)[0]
        if stem in self.train:
            return "train"
        return "validation" if stem in self.validation else "test"


def _read_split(path: epath.Path) -> _SplitByName:
    try:
        lists = json.loads(path.read_text())
        split = _SplitByName(frozenset(lists["train"]), frozenset(lists["val"]))
    except FileNotFoundError as error:
        raise M4MError(
            f"{path}: not found; it names the tunes of the official split (lists train and val)"
        ) from error
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
A copy of https://github.com/jukedeck/nottingham-dataset (its folder MIDI), with official_split.json
beside MIDI: an object with the lists train and val of file names without .mid."""

    def source_files(self, folder: epath.Path | None) -> Source:
        """Return the files of `folder`/MIDI, split by `folder`/official_split.json."""
        assert folder is not None
        if folder.exists() and not folder.is_dir():
            raise M4MError(
                f"{folder}: nottingham is built from a folder, not from an archive; unpack it, and"
                f" give the folder that holds MIDI and {SPLIT_FILE}"
            )
        if not folder.is_dir():
            raise M4MError(f"{folder}: no such folder; give a copy of {self.HOMEPAGE}")
        midi = folder / "MIDI"
        names = midi_names(midi)
        split = _read_split(folder / SPLIT_FILE)
        here = {name.rsplit(".", 1)[0] for name in names}
        missing = (split.train | split.validation) - here
        return Source(
            os.fspath(folder),
            names,
            functools.partial(read_midi_file, os.fspath(midi), True),
            split,
            # The official split counts its few duplicates, so dropping them would change it.
            unique=False,
            missing={f"{stem}.mid": f"listed in {SPLIT_FILE}" for stem in missing},
        )
