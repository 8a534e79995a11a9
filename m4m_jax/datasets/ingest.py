"""From files to songs: the one road that all data sets' songs come in by."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from m4m_jax.datasets.isolation import Failure, isolated_map
from m4m_jax.datasets.record import Song, content_hash, hash_split
from m4m_jax.errors import M4MError
from m4m_jax.music.notes import NoteTable

SPLITS = ("train", "validation", "test")
Progress = Callable[[int, int], None]


class Rejected(M4MError):  # noqa: N818
    """A file does not become a song of the data set; `reason` groups it in the report."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason

    def __reduce__(self) -> Any:
        return type(self), (self.reason, str(self))


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


def split_by_content(song: Song) -> str:
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
        split: gives a song's split; runs in the building process.
        unique: whether of songs with the same note content only the first by name is kept;
            otherwise the others are merely noted.
        missing: file names that ought to be there and are not, with where they are named.
    """

    description: str
    names: Sequence[str]
    read: Callable[[str], Reading]
    split: Callable[[Song], str] = split_by_content
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


@dataclass(frozen=True)
class _Parse:
    """What a worker process does with one file."""

    read: Callable[[str], Reading]

    def __call__(self, name: str) -> tuple[Song, dict[str, str]]:
        reading = self.read(name)
        content = reading.content or content_hash(reading.table)
        song = Song(name, content, reading.table)
        return song, reading.notices


def ingest(
    dataset: str,
    source: Source,
    *,
    workers: int,
    time_limit: float = 60.0,
    progress: Progress | None = None,
) -> tuple[dict[str, list[Song]], Report]:
    """Read a data set's files in worker processes and sort their songs into splits.

    A file that cannot be read, or that crashes or hangs its reader, is entered in the report. Of
    songs with the same note content only the first by name is kept, so that no song is in two
    splits (unless the source says otherwise).

    Args:
        dataset: the data set's name.
        source: its files.
        workers: how many processes to read with; the result does not depend on it.
        time_limit: seconds that reading one file may take.
        progress: called with the numbers of files done and of all files.

    Returns:
        The songs of each split, in the order of their names, and the report.
    """
    report = Report(dataset, source.description, files=len(source.names))
    songs: dict[str, list[Song]] = {split: [] for split in SPLITS}
    for name, where in sorted(source.missing.items()):
        report.reject("missing", name, where)
    first: dict[str, str] = {}
    outcomes = isolated_map(
        _Parse(source.read), sorted(source.names), workers=workers, time_limit=time_limit
    )
    for done, (name, outcome) in enumerate(outcomes, 1):
        if progress is not None:
            progress(done, report.files)
        if isinstance(outcome, Failure):
            report.reject(outcome.reason, name, outcome.detail)
            continue
        song, notices = outcome
        twin = first.setdefault(song.content, name)
        if twin != name:
            enter = report.reject if source.unique else report.note
            enter("duplicate", name, f"has the same notes as {twin}")
            if source.unique:
                continue
        for kind, detail in notices.items():
            report.note(kind, name, detail)
        songs[source.split(song)].append(song)
    report.splits = {split: len(songs[split]) for split in SPLITS}
    return songs, report
