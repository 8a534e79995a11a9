"""What a data set is built from, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from m4m_jax.datasets.record import hash_split
from m4m_jax.errors import M4MError
from m4m_jax.music.notes import NoteTable

SPLITS = ("train", "validation", "test")
# Called with what is done, what there is to do, and the stage that this is about.
Progress = Callable[[int, int, str], None]
READING, WRITING = "files read", "songs written"


class Rejected(M4MError):  # noqa: N818
    """A file does not become a song of the data set; `reason` groups it in the report."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason

    def __reduce__(self) -> Any:
        return type(self), (self.reason, str(self))


class NothingKept(M4MError):  # noqa: N818
    """None of a source's files can be used."""


@dataclass(frozen=True)
class Reading:
    """What reading one file gave.

    Attributes:
        table: its notes.
        notices: what to know of them, kind -> detail.
        content: the `content_hash` of the song alone, where the table also has labels as notes.
    """

    table: NoteTable
    notices: dict[str, str] = field(default_factory=dict)
    content: str | None = None


@dataclass(frozen=True)
class Entry:
    """A song as it goes by while splits are told: its name and content hash, without notes."""

    name: str
    content: str


def split_by_content(song: Entry) -> str:
    """Return the split of a song by `hash_split`."""
    return hash_split(song.content)


@dataclass(frozen=True)
class Source:
    """Where a data set's songs come from.

    Attributes:
        description: the folder, for messages and the report.
        names: of the files, unique; a song's name is its file's.
        read: gives a file's `Reading` by its name, or raises; runs in worker processes, so it must
            be importable by name (or a `functools.partial` of such a function).
        split: gives a song's split; runs in the building process (on a cluster, in one that it
            pickles to).
        unique: whether of songs with the same note content only the first by name is kept;
            otherwise the others are merely noted.
        missing: file names that ought to be there and are not, with where they are named.
    """

    description: str
    names: Sequence[str]
    read: Callable[[str], Reading]
    split: Callable[[Entry], str] = split_by_content
    unique: bool = True
    missing: dict[str, str] = field(default_factory=dict)


@dataclass
class Report:
    """What became of a data set's files.

    Attributes:
        dataset: its name.
        source: the folder that the files came from.
        files: how many there were.
        splits: how many songs each split has.
        rejected: reason -> file name -> detail, of the files that are no song of the data set.
        notices: what to know of files that were kept: kind -> file name -> detail.
    """

    dataset: str
    source: str
    files: int = 0
    splits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    rejected: dict[str, dict[str, str]] = field(default_factory=dict)
    notices: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """How many songs the data set has."""
        return sum(self.splits.values())

    def reject(self, reason: str, name: str, detail: str) -> None:
        """Enter a file that is no song of the data set."""
        self.rejected.setdefault(reason, {})[name] = detail

    def note(self, kind: str, name: str, detail: str) -> None:
        """Enter what is to know of a file that was kept."""
        self.notices.setdefault(kind, {})[name] = detail

    def reasons(self) -> str:
        """Return on one line why files were rejected, with an example."""
        counts = ", ".join(f"{reason}: {len(files)}" for reason, files in self.rejected.items())
        return f"{counts}; such as {_example(next(iter(self.rejected.values())))}"

    def summary(self) -> list[str]:
        """Return lines to print."""
        splits = ", ".join(f"{count} {name}" for name, count in self.splits.items())
        lines = [f"{self.dataset}: {self.kept} of {self.files} files kept ({splits})"]
        for reason, files in sorted(self.rejected.items()):
            lines.append(f"  {reason}: {len(files)} (such as {_example(files)})")
        for what, files in sorted(self.notices.items()):
            lines.append(f"  {what}: in {len(files)} files (such as {_example(files)})")
        return lines

    def to_json(self) -> str:
        """Return the report as JSON text, the same for the same files."""
        return json.dumps(
            {
                "dataset": self.dataset,
                "source": self.source,
                "files": self.files,
                "kept": self.kept,
                "splits": self.splits,
                "rejected": self.rejected,
                "notices": self.notices,
            },
            indent=2,
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Return the report that `to_json` wrote."""
        values = json.loads(text)
        del values["kept"]
        return cls(**values)


def _example(files: dict[str, str]) -> str:
    """Show the first file and what is said of it; its name may hold what no terminal can show."""
    name, detail = next(iter(files.items()))
    text = detail if detail.startswith(name) else f"{name}: {detail}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
