"""Builds a data set with Apache Beam, on whatever runs its pipelines.

The pipeline does what `run_local` does: the same work, task by task, in the same staging folder,
which all machines must see. So its records are the same, and it too goes on where a build stopped.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from etils import epath

from m4m_jax.datasets.ingest import Entry
from m4m_jax.datasets.isolation import Workers
from m4m_jax.datasets.staging import Job, Shard, Work, lay_out, unwritten
from m4m_jax.errors import M4MError

RUNNERS = {
    # What Beam calls DirectRunner looks for another program on the web before it runs this one.
    "direct": "apache_beam.runners.portability.fn_api_runner.FnApiRunner",
    "dataflow": "DataflowRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
}


def run_beam(
    job: Job,
    *,
    runner: str,
    options: Sequence[str] = (),
    workers: int | None = None,
    time_limit: float = 60.0,
) -> None:
    """Do what of a job has not been done yet.

    Args:
        job: the build.
        runner: a key of `RUNNERS`.
        options: of the runner, each as on Beam's command line, such as `--region=us-central1`.
        workers: how many tasks the direct runner does at once; others have options for that.
        time_limit: seconds that reading one file may take.

    Raises:
        M4MError: an option is malformed, or the pipeline failed.
    """
    if runner == "direct":
        direct = ["--direct_running_mode=multi_threading", f"--direct_num_workers={workers or 1}"]
        options = [*direct, *options]
    settings = _settings([f"--runner={RUNNERS[runner]}", *options])
    try:
        with beam.Pipeline(options=settings) as pipeline:
            _lay_pipes(pipeline, job, time_limit)
    except OSError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = lines[-1] if lines else type(error).__name__
        raise M4MError(f"{job.plan.dataset}: the {runner} runner failed ({said})") from error


def _settings(options: Sequence[str]) -> PipelineOptions:
    settings, said = PipelineOptions(options), io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            settings.get_all_options()
    except SystemExit as error:
        raise M4MError(f"runner options: {said.getvalue().strip().splitlines()[-1]}") from error
    return settings


def _lay_pipes(pipeline: beam.Pipeline, job: Job, time_limit: float) -> None:
    read = (
        pipeline
        | "Chunks" >> beam.Create(job.unread())
        | "Spread chunks" >> beam.Reshuffle()
        | "Read" >> beam.ParDo(_Isolated(job.work, time_limit))
    )
    _ = (
        pipeline
        | "Folder" >> beam.Create([job.folder])
        | "Lay out" >> beam.FlatMap(_shards, job.split, job.work, beam.pvalue.AsIter(read))
        | "Spread shards" >> beam.Reshuffle()
        | "Write" >> beam.ParDo(_Isolated(job.work, time_limit))
    )


def _shards(
    folder: epath.Path, split: Callable[[Entry], str], work: Work, read: Iterable[None]
) -> list[Shard]:
    """Return the shards to be written, when all chunks have been read."""
    for _ in read:
        pass
    return unwritten(work, lay_out(folder, split))


class _Isolated(beam.DoFn):
    """Does tasks in a worker process, since Beam's own may not survive the files."""

    def __init__(self, work: Work, time_limit: float):
        self._work, self._time_limit = work, time_limit
        self._workers: Workers | None = None

    def setup(self) -> None:
        """Make ready to start the process."""
        self._workers = Workers(self._work, 1, self._time_limit)

    def process(self, task: Any) -> Iterator[None]:
        """Do a task; see `staging.Work`."""
        assert self._workers is not None
        for _, result in self._workers.run([task]):
            yield result

    def teardown(self) -> None:
        """End the process."""
        if self._workers is not None:
            self._workers.stop()
