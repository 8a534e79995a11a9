"""Builds a data set with processes of this machine."""

from __future__ import annotations

import os

from m4m_jax.datasets.ingest import READING, WRITING, Progress
from m4m_jax.datasets.isolation import Workers
from m4m_jax.datasets.staging import Job


def default_workers() -> int:
    """Return how many processes this machine can run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_local(
    job: Job,
    *,
    workers: int | None = None,
    time_limit: float = 60.0,
    progress: Progress | None = None,
) -> None:
    """Do what of a job has not been done yet.

    Args:
        job: the build.
        workers: how many processes to run, as many as there are cores when `None`; the result does
            not depend on it.
        time_limit: seconds that reading one file may take.
        progress: called with what is done, what there is to do and the stage: files are read, and
            then songs are written.
    """
    files = len(job.plan.names)
    with Workers(job.work, workers or default_workers(), time_limit) as pool:
        chunks = job.unread()
        done = files - sum(len(job.plan.chunk(number)) for number in chunks)
        for task, _ in pool.run(chunks):
            done += len(job.plan.chunk(chunks[task]))
            if progress is not None:
                progress(done, files, READING)
        shards, songs = job.unwritten(), job.layout.report.kept
        done = songs - sum(shard.songs for shard in shards)
        for task, _ in pool.run(shards):
            done += shards[task].songs
            if progress is not None:
                progress(done, songs, WRITING)
