from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from m4m_jax.bench.data_ingest import Ingestion, measure_ingestion
from m4m_jax.datasets import Report
from m4m_jax.music import write_midi
from tests.datasets.music import song


def test_it_builds_and_measures(tmp_path):
    for seed in range(3):
        write_midi(song(seed), tmp_path / f"{seed}.mid")
    # A process of its own: what other tests needed here would count as memory.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        found = alone.submit(measure_ingestion, "midi_folder/mine", tmp_path, workers=2).result()
    assert (found.report.files, found.report.kept, found.workers) == (3, 3, 2)
    assert 0 < found.start_seconds < 60
    assert 0 < found.seconds < 60
    assert 2**24 < found.peak_bytes < 2**31


def test_the_start_does_not_count():
    report = Report("name", "folder", files=100)
    found = Ingestion(report, workers=2, seconds=3.0, start_seconds=1.0, peak_bytes=0)
    assert found.files_per_second == 50
    busy = Ingestion(report, workers=2, seconds=2.0, start_seconds=3.0, peak_bytes=0)
    assert busy.files_per_second == 50
