"""A build on disk, which can stop at any moment and go on later.

1. Reading: the files, by name, are divided into chunks. A chunk gives two files, the records of its
   songs and an index, which says what became of each file.
2. Sorting: the indexes alone tell duplicates, splits, and which record goes into which shard.
3. Writing: each shard copies its records out of the chunks.

Each of these files appears whole or not at all, depends on nothing but the data set's source, and
is not made again where it is there already. So the result does not depend on who made which of
them, in what order or when: workers on one machine, a cluster, or a build that was killed and its
successor.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from etils import epath

from m4m_jax.datasets import record, wire
from m4m_jax.datasets.archives import make_ready
from m4m_jax.datasets.folders import state_of
from m4m_jax.datasets.ingest import SPLITS, Entry, Reading, Report, Source
from m4m_jax.datasets.isolation import Attempt, Failure
from m4m_jax.datasets.records import names_in, read_records, whole_file, write_records

# Files a chunk, at most, and chunks where there are fewer files than that makes. What is lost with
# a worker or a build is part of a chunk for each worker.
_FILES, _CHUNKS = 64, 32

# Bytes of records, before compression, that make a shard worth having; at most so many a split.
SHARD_BYTES = 64 * 2**20
MOST_SHARDS = 1024

_AT_ONCE = 16
_PLAN = "plan.json"
_INDEX = ".index.json"


@dataclass(frozen=True)
class Plan:
    """What is to be built, as stored in the staging folder for every process to read.

    Attributes:
        dataset: the data set's name.
        source: the folder that the files are in, as the report calls it.
        names: of the files, sorted.
        unique: see `Source`.
        missing: see `Source`.
        fingerprint: of all that the result depends on.
    """

    dataset: str
    source: str
    names: list[str]
    unique: bool
    missing: dict[str, str]
    fingerprint: str

    @classmethod
    def of(cls, dataset: str, source: Source, state: str, time_limit: float) -> Plan:
        """Return the plan of a data set.

        Args:
            dataset: its name.
            source: where its songs come from.
            state: tells one state of the source's files from another.
            time_limit: seconds that reading one file may take.
        """
        names = sorted(source.names)
        inputs = [
            _code(),
            [dataset, source.description, state, source.unique, source.missing, time_limit],
            [_identity(source.read), _identity(source.split), record.RECORD_VERSION],
            names,
        ]
        text = json.dumps(inputs, sort_keys=True)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        return cls(dataset, source.description, names, source.unique, source.missing, fingerprint)

    @classmethod
    def read(cls, folder: epath.Path) -> Plan:
        """Return the plan in a staging folder."""
        return cls(**json.loads((folder / _PLAN).read_text()))

    @property
    def chunks(self) -> range:
        """The numbers of the chunks."""
        return range(-(-len(self.names) // self._size))

    def chunk(self, number: int) -> list[str]:
        """Return the names of a chunk's files."""
        return self.names[number * self._size : (number + 1) * self._size]

    @property
    def _size(self) -> int:
        return max(1, min(_FILES, len(self.names) // _CHUNKS))


@dataclass(frozen=True)
class Shard:
    """A shard to be written.

    Attributes:
        split: its split.
        number, count: it is shard `number` of `count` in that split.
        takes: the chunks that its records are in and their numbers there, in order.
    """

    split: str
    number: int
    count: int
    takes: list[tuple[int, list[int]]]

    @property
    def songs(self) -> int:
        """How many songs it has."""
        return sum(len(numbers) for _, numbers in self.takes)


@dataclass
class Layout:
    """How the songs are laid out in shards.

    Attributes:
        report: what became of the files.
        shards: of all splits that have songs.
        lengths: for each such split, how many songs each of its shards has.
        sizes: for each such split, the bytes of its records before compression.
        digest: a hash of all records and of the report, but not of where the files were.
    """

    report: Report
    shards: list[Shard]
    lengths: dict[str, list[int]]
    sizes: dict[str, int]
    digest: str


@dataclass(frozen=True)
class Work:
    """What workers do: a number is a chunk to be read, a `Shard` is to be written.

    Attributes:
        folder: the staging folder.
        shards: the folder that shards are written to.
        template: what their names begin with.
        read: see `Source`.
        place: the folder or archive of the files. A process that gets to know these paths has
            imported their classes, so it can make others of their kind.
    """

    folder: epath.Path
    shards: epath.Path
    place: epath.Path | None
    template: str
    read: Callable[[str], Reading]

    def __call__(self, task: int | Shard, attempt: Attempt) -> None:
        """Do one task; see `isolation.Workers`."""
        if isinstance(task, Shard):
            self._write(task)
        else:
            self._read(task, attempt)

    def _read(self, number: int, attempt: Attempt) -> None:
        folder, names = self.folder, _kept_plan(self.folder).chunk(number)
        if self.place is not None:
            # It is not the first file that takes the time to open an archive.
            make_ready(os.fspath(self.place))
        digest = 0
        files: list[dict[str, Any]] = []
        with write_records(folder / _stem(number)) as write:
            for step, name in enumerate(names):
                outcome = attempt(step, _encode, self.read, name)
                if isinstance(outcome, Failure):
                    files.append(dataclasses.asdict(outcome))
                    continue
                entry, data = outcome
                write(data)
                digest = zlib.crc32(data, digest)
                files.append(entry)
        with whole_file(folder / (_stem(number) + _INDEX)) as temporary:
            temporary.write_text(json.dumps({"crc": digest, "files": files}))

    def path(self, shard: Shard) -> epath.Path:
        """Return where a shard is written to, named as TFDS has it."""
        name = f"{shard.split}.array_record-{shard.number:05}-of-{shard.count:05}"
        return self.shards / f"{self.template}-{name}"

    def _write(self, shard: Shard) -> None:
        path = self.path(shard)
        with write_records(path) as write:
            for chunk, numbers in shard.takes:
                for data in read_records(self.folder / _stem(chunk), numbers):
                    write(data)


# A worker process serves one build.
_kept_plan = functools.lru_cache(maxsize=1)(Plan.read)


def _encode(read: Callable[[str], Reading], name: str) -> tuple[dict[str, Any], bytes]:
    """Return what the index says of a song, and its record."""
    reading = read(name)
    content = reading.content or record.content_hash(reading.table)
    data = wire.serialize(record.encode(record.Song(name, content, reading.table)))
    return {"content": content, "size": len(data), "notices": reading.notices}, data


def _stem(number: int) -> str:
    return f"chunk-{number:06}"


class _Place(NamedTuple):
    """Where a song's record is: in a chunk, as its record `number`, of `size` bytes."""

    chunk: int
    number: int
    size: int


def lay_out(folder: epath.Path, split: Callable[[Entry], str]) -> Layout:
    """Sort what has been read into splits and shards, by the indexes alone.

    Of songs with the same note content only the first by name is kept, so that no song is in two
    splits (unless the source says otherwise).

    Args:
        folder: the staging folder, with all chunks read.
        split: see `Source`.
    """
    plan = Plan.read(folder)
    report = Report(plan.dataset, plan.source, files=len(plan.names))
    for name, where in sorted(plan.missing.items()):
        report.reject("missing", name, where)
    digest = hashlib.sha256()
    places: dict[str, list[_Place]] = {name: [] for name in SPLITS}
    first: dict[bytes, str] = {}
    for chunk, index in enumerate(_indexes(folder, plan)):
        digest.update(index["crc"].to_bytes(4, "little"))
        numbers = itertools.count()
        for name, file in zip(plan.chunk(chunk), index["files"], strict=True):
            if "reason" in file:
                report.reject(file["reason"], name, file["detail"])
                continue
            number = next(numbers)
            twin = first.setdefault(bytes.fromhex(file["content"]), name)
            if twin != name:
                enter = report.reject if plan.unique else report.note
                enter("duplicate", name, f"has the same notes as {twin}")
                if plan.unique:
                    continue
            for kind, detail in file["notices"].items():
                report.note(kind, name, detail)
            song = Entry(name, file["content"])
            places[split(song)].append(_Place(chunk, number, file["size"]))
    report.splits = {name: len(places[name]) for name in SPLITS}
    digest.update(dataclasses.replace(report, source="").to_json().encode())
    layout = Layout(report, [], {}, {}, digest.hexdigest())
    for name, songs in places.items():
        if songs:
            _divide(name, songs, layout)
    return layout


def unwritten(work: Work, layout: Layout) -> list[Shard]:
    """Return the shards that have not been written yet."""
    there = names_in(work.shards)
    return [shard for shard in layout.shards if work.path(shard).name not in there]


def _indexes(folder: epath.Path, plan: Plan) -> Iterator[dict[str, Any]]:
    """Yield the chunks' indexes, in order."""

    def read(number: int) -> dict[str, Any]:
        return json.loads((folder / (_stem(number) + _INDEX)).read_text())

    # In a bucket each takes a while.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for begin in range(0, len(plan.chunks), _AT_ONCE):
            yield from pool.map(read, plan.chunks[begin : begin + _AT_ONCE])


def _divide(split: str, songs: list[_Place], layout: Layout) -> None:
    """Enter a split's shards: as many songs each as can be."""
    size = sum(song.size for song in songs)
    count = max(1, min(MOST_SHARDS, size // SHARD_BYTES, len(songs)))
    bounds = [len(songs) * k // count for k in range(count + 1)]
    for number, (begin, end) in enumerate(itertools.pairwise(bounds)):
        groups = itertools.groupby(songs[begin:end], key=lambda song: song.chunk)
        takes = [(chunk, [song.number for song in group]) for chunk, group in groups]
        layout.shards.append(Shard(split, number, count, takes))
    layout.lengths[split] = [end - begin for begin, end in itertools.pairwise(bounds)]
    layout.sizes[split] = size


@dataclass
class Job:
    """A build that has been started, or taken up again.

    Attributes:
        plan: what is built.
        work: what workers do for it.
        split: see `Source`.
        folder: the staging folder.
        resumed: whether an earlier build of the same was stopped, and this one goes on from it.
        afresh: whether an earlier build's work had to go, because its result would be another.
    """

    plan: Plan
    work: Work
    split: Callable[[Entry], str]
    folder: epath.Path
    resumed: bool
    afresh: bool

    @classmethod
    def start(
        cls,
        folder: epath.Path,
        shards: epath.Path,
        template: str,
        dataset: str,
        source: Source,
        place: epath.Path | None,
        time_limit: float,
    ) -> Job:
        """Prepare the folders, keeping what an earlier build of the same has finished.

        Args:
            folder: the staging folder.
            shards: the folder that shards are written to.
            template: what the shards' names begin with.
            dataset: the data set's name.
            source: where its songs come from.
            place: the folder or archive of the source's files, where that is known.
            time_limit: seconds that reading one file may take.
        """
        plan = Plan.of(dataset, source, state_of(place), time_limit)
        path = folder / _PLAN
        found = json.loads(path.read_text())["fingerprint"] if path.exists() else None
        if found != plan.fingerprint:
            folder.rmtree(missing_ok=True)
            folder.mkdir(parents=True)
            with whole_file(path) as temporary:
                temporary.write_text(json.dumps(dataclasses.asdict(plan)))
        shards.mkdir(parents=True, exist_ok=True)
        work = Work(folder, shards, place, template, source.read)
        resumed, afresh = found == plan.fingerprint, found not in (None, plan.fingerprint)
        return cls(plan, work, source.split, folder, resumed, afresh)

    def inherited(self) -> str:
        """Say in a line what is kept of an earlier build; nothing where there was none."""
        if self.afresh:
            return (
                "starting afresh: since the build that was stopped, the files, the options or the"
                " code have changed"
            )
        if not self.resumed:
            return ""
        files, unread = len(self.plan.names), self.unread()
        done = files - sum(len(self.plan.chunk(number)) for number in unread)
        line = f"going on with the build that was stopped: {done} of {files} files are read"
        if not unread:
            shards = len(self.layout.shards)
            line += f", {shards - len(self.unwritten())} of {shards} shards written"
        return line

    def unread(self) -> list[int]:
        """Return the chunks that have not been read yet."""
        there = names_in(self.folder)
        return [number for number in self.plan.chunks if _stem(number) + _INDEX not in there]

    @functools.cached_property
    def layout(self) -> Layout:
        """How the songs are laid out; asked for when all chunks have been read."""
        return lay_out(self.folder, self.split)

    def unwritten(self) -> list[Shard]:
        """Return the shards that have not been written yet."""
        return unwritten(self.work, self.layout)

    def clear(self) -> None:
        """Remove what writers that were killed have left among the shards."""
        wanted = {self.work.path(shard).name for shard in self.layout.shards}
        for name in names_in(self.work.shards) - wanted:
            (self.work.shards / name).unlink()


def _code() -> str:
    """Return a hash of the code that files are read by."""
    package = pathlib.Path(__file__).parent.parent
    digest = hashlib.sha256()
    for part in ("music", "analysis", "datasets"):
        for path in sorted((package / part).rglob("*.py")):
            digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _identity(value: Any) -> Any:
    """Return what tells a function from others, as JSON values: its name and its arguments."""
    if isinstance(value, functools.partial):
        return [_identity(v) for v in (value.func, value.args, value.keywords)]
    if isinstance(value, Mapping):
        return sorted([str(k), _identity(v)] for k, v in value.items())
    if isinstance(value, (set, frozenset)):
        return sorted(_identity(v) for v in value)
    if isinstance(value, (list, tuple)):
        return [_identity(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return [type(value).__qualname__, _identity(fields)]
    if hasattr(value, "__qualname__"):
        return [value.__module__, value.__qualname__]
    return value if value is None or isinstance(value, (str, int, float)) else repr(value)
