"""How fast files become a data set."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass

import numpy as np
from etils import epath

from m4m_jax import datasets
from m4m_jax.bench.memory import HostMemory
from m4m_jax.music import NoteTable, Track, write_midi


@dataclass(frozen=True)
class Ingestion:
    """What building a data set took.

    Attributes:
        report: what became of the files.
        workers: processes that read them.
        seconds: of wall-clock time for the whole build, its start included.
        start_seconds: of wall-clock time for a build of one small file right before it.
        peak_bytes: the most memory that one of the processes held, this one and all that it
            ever started included; 0 where the system does not tell.
    """

    report: datasets.Report
    workers: int
    seconds: float
    start_seconds: float
    peak_bytes: int

    @property
    def files_per_second(self) -> float:
        """Files read a second, written where they are kept, after the start.

        With the start, where that took as long as all (there are few files, or the machine is busy
        with other things).
        """
        after = self.seconds - self.start_seconds
        return self.report.files / (after if after > 0 else self.seconds)


def measure_ingestion(name: str, source: epath.PathLike, *, workers: int) -> Ingestion:
    """Build a data set in a temporary folder, and measure it.

    Args:
        name: the data set's, as for `datasets.build`.
        source: its songs.
        workers: processes that read files.

    Raises:
        M4MError: as `datasets.build`.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = epath.Path(folder)
        (place / "one").mkdir()
        write_midi(_small_song(), place / "one" / "song.mid")
        begin = time.perf_counter()
        datasets.build("midi_folder", place / "one", place / "start", workers=workers)
        start = time.perf_counter()
        report = datasets.build(name, source, place / "data", workers=workers)
        end = time.perf_counter()
    return Ingestion(report, workers, end - start, start - begin, _peak_bytes())


def _small_song() -> NoteTable:
    notes = np.array([[2 * k, 2, 60 + k % 12, 0, 80, 0] for k in range(32)], np.int32)
    return NoteTable(notes=notes, tracks=(Track("", 0),), length=64)


def _peak_bytes() -> int:
    """Of this process, and of those that it started: these begin as large as it is."""
    peak = HostMemory().peak_bytes()
    if peak is None:
        return 0
    import resource

    return max(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
