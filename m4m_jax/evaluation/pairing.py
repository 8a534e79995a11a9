"""Songs and samples: where they are, and which belong together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from etils import epath

from m4m_jax import datasets
from m4m_jax.datasets.folders import files_below
from m4m_jax.errors import M4MError
from m4m_jax.evaluation.scoring import Parts
from m4m_jax.files import absolute
from m4m_jax.music.notes import TRACK, NoteTable, read_midi
from m4m_jax.music.parts import NoSplitError, list_parts, select

_MIDI = (".mid", ".midi")
_NUMBERED = re.compile(r"(.+)_(\d+)")
_COUNTED = re.compile(r"(track|upto|from|notrack)-\d+")


NO_TRUTH = "no truth"


class LeftOut(NamedTuple):
    """What is not judged, and why."""

    what: str
    reason: str


def not_judged(what: str, error: M4MError) -> LeftOut:
    """What an error keeps from being judged; its reason does not name it again."""
    return LeftOut(what, str(error).removeprefix(f"{what}: "))


class Lacking(NamedTuple):
    """What a song is judged without ("no truth"), and why."""

    song: str
    what: str
    reason: str


class Reasons(NamedTuple):
    """Why a song has no reference, and no truth; None where it has, or where none is asked for."""

    reference: str | None
    truth: str | None


class Source(Protocol):
    """Where songs come from: a stem names each, which its samples' files begin with."""

    about: str
    parts: Mapping[str, str]

    def stems(self) -> list[str]:
        """The stems of all songs."""

    def read(self, stem: str) -> NoteTable:
        """The song of a stem.

        Raises:
            M4MError: it cannot be read.
        """


def without_suffix(name: str) -> str:
    """A file's name without `.mid` or `.midi`."""
    for suffix in _MIDI:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _by_stem(names: list[str]) -> dict[str, str]:
    """Names by their stems; where `a.mid` and `a.midi` share one, the later by its whole name."""
    found: dict[str, str] = {}
    for name in names:
        stem = without_suffix(name)
        found[name if stem in found else stem] = name
    return found


class Folder:
    """The MIDI files of a folder and those below it, by path within it without suffix."""

    def __init__(self, path: epath.PathLike):
        """Raises M4MError where there is no such folder, or no MIDI file in it."""
        self.path, self.about = epath.Path(path), str(absolute(path))
        self.parts: Mapping[str, str] = {}
        self._files = _by_stem(files_below(self.path, _MIDI, "MIDI file"))

    def stems(self) -> list[str]:
        """The stems of all files."""
        return list(self._files)

    def file(self, stem: str) -> epath.Path:
        """The file of a stem."""
        return self.path / self._files[stem]

    def read(self, stem: str) -> NoteTable:
        """The song of a stem."""
        return read_midi(self.file(stem))


class Split:
    """The songs of a split of a data set."""

    def __init__(self, name: str, split: str, data_dir: epath.PathLike | None):
        """Raises M4MError where there is no such split."""
        self._songs = datasets.open_split(name, split, data_dir)
        self.parts: Mapping[str, str] = self._songs.parts
        self.about = f"{name}, {split}"
        names = [self._songs.song(index).name for index in range(len(self._songs))]
        number = {song: index for index, song in enumerate(names)}
        self._numbers = {stem: number[song] for stem, song in _by_stem(names).items()}

    def stems(self) -> list[str]:
        """The names of all songs, without suffix."""
        return list(self._numbers)

    def read(self, stem: str) -> NoteTable:
        """The song of a stem."""
        return self._songs[self._numbers[stem]]


@dataclass(frozen=True)
class Views:
    """Which parts of songs are which.

    Attributes:
        reference: the selector of what is given; None where nothing is.
        target: the selector of what is to be written.
        written: the name of tracks that `m4m generate` writes for the task.
        names: the data set's names of parts.
        of_samples: system -> the selector of the target in its files, where that is another.
        ours: the systems whose files this package wrote.
    """

    reference: str | None
    target: str
    written: str
    names: Mapping[str, str] = field(default_factory=dict)
    of_samples: Mapping[str, str] = field(default_factory=dict)
    ours: frozenset[str] = frozenset()

    def song(self, song: NoteTable) -> tuple[Parts, Reasons]:
        """A song's parts, as far as it has them with notes, and why it has not."""
        reference, no_reference = self.part(song, self.reference)
        truth, no_truth = self.part(song, self.target)
        return Parts(reference, truth), Reasons(no_reference, no_truth)

    def part(self, song: NoteTable, part: str | None) -> tuple[NoteTable | None, str | None]:
        """A part of a song, or why there is none; neither where none is asked for."""
        if part is None:
            return None, None
        try:
            found = select(song, part, names=self.names)
        except NoSplitError as error:
            return None, str(error)
        except M4MError:
            return None, f"no part {part!r} (it has {list_parts(song)})"
        if part != "empty" and not len(found.notes):
            return None, f"the part {part!r} is empty (it has {list_parts(song)})"
        return found, None

    def sample(self, song: NoteTable, system: str) -> NoteTable:
        """The target part of a sample's file: it may be empty.

        It is found by the selector told for the system, or the songs' own. `m4m generate` puts the
        reference first, so where that selector counts tracks, those of the name that it gives are
        the part.

        Raises:
            M4MError: the file has no such part.
        """
        part = self.of_samples.get(system)
        named = _tracks_named(song, self.written)
        known = part is None and named.any() and _COUNTED.fullmatch(self.target)
        if known or system in self.ours:  # nothing may have been written
            return song.replace(notes=song.notes[named[song.notes[:, TRACK]]])
        return select(song, part or self.target, names=self.names)

    def given_in(self, song: NoteTable) -> NoteTable | None:
        """What a sample's file has of its reference: None where it has none."""
        if self.reference is None:
            return None
        written = _tracks_named(song, self.written)
        if written.any() and _COUNTED.fullmatch(self.reference):
            part = song.replace(notes=song.notes[~written[song.notes[:, TRACK]]])
        else:
            try:
                part = select(song, self.reference, names=self.names)
            except M4MError:
                return None
        return part if len(part.notes) else None


def _tracks_named(song: NoteTable, name: str) -> np.ndarray:
    """Which tracks have this name, in any case; as "drums", those of drums alone: bool [tracks]."""
    return np.array(
        [
            track.name.strip().casefold() == name and (track.is_drum or name != "drums")
            for track in song.tracks
        ],
        bool,
    )


class Paired(NamedTuple):
    """A system's files, by songs.

    Attributes:
        songs: a song's stem -> its samples' stems, in their order.
        strangers: the files without a song.
        ambiguous: the stems of files that could be another song's, too.
    """

    songs: Mapping[str, list[str]]
    strangers: Sequence[LeftOut] = ()
    ambiguous: Sequence[str] = ()


def pair(folder: Folder, songs: list[str] | None) -> Paired:
    """Pair a folder's files with songs.

    A file belongs to the song of its stem, or, as STEM_k, to that of STEM. songs: all stems; where
    there are none, files that share a stem up to `_k` are one song's.
    """
    known = None if songs is None else set(songs)
    found: dict[str, list[tuple[int, str]]] = {}
    strangers, ambiguous = [], []
    for stem in folder.stems():
        match = _NUMBERED.fullmatch(stem)
        if match and (known is None or (stem not in known and match[1] in known)):
            found.setdefault(match[1], []).append((int(match[2]), stem))
        elif known is None or stem in known:
            found.setdefault(stem, []).append((0, stem))
            if match and known and match[1] in known:
                ambiguous.append(stem)
        else:
            strangers.append(LeftOut(str(folder.file(stem)), "no song has this name"))
    ordered = {song: [stem for _, stem in sorted(files)] for song, files in found.items()}
    return Paired(ordered, strangers, ambiguous)
