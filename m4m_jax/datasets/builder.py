"""What all TFDS builders of this package share.

A builder says where its songs come from (`source_files`) and which parts have names (`PARTS`);
reading, sorting into splits and writing are here. TensorFlow is not imported: records are written
as array_record files and read with `tfds.data_source`.
"""

from __future__ import annotations

import abc
import tempfile
from collections.abc import Callable
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from m4m_jax.datasets import record
from m4m_jax.datasets.ingest import NothingKept, Report, Source
from m4m_jax.datasets.run_local import run_local
from m4m_jax.datasets.staging import Job, Layout

# Does what is left of a job.
Engine = Callable[[Job], None]

REPORT_FILE = "report.json"


class SongBuilder(FileReaderBuilder):
    """A TFDS builder of songs.

    Attributes:
        PARTS: names of parts, to the selectors that they stand for.
        HOMEPAGE: the public source.
        LICENSE: of the songs.
    """

    VERSION = tfds.core.Version(f"{record.RECORD_VERSION}.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        f"{record.RECORD_VERSION}.0.0": "One record a song, holding its notes."
    }
    PARTS: ClassVar[dict[str, str]] = {}
    HOMEPAGE: ClassVar[str] = ""
    LICENSE: ClassVar[str] = ""
    # Nothing is downloaded, so there are no checksums to look for.
    url_infos = None

    def __init__(self, *, source: epath.PathLike | None = None, config: Any = None, **kwargs: Any):
        """Make a builder.

        Args:
            source: a local copy of the songs; `None` for `DownloadConfig.manual_dir`, or for what
                the builder knows by itself.
            config: what `make_config` makes, or its name.
            **kwargs: as for `FileReaderBuilder`.
        """
        self._source = None if source is None else epath.Path(source).expanduser()
        kwargs.setdefault("file_format", "array_record")
        if isinstance(config, str):
            config = self.make_config(config)
        super().__init__(config=config, **kwargs)

    @classmethod
    def make_config(cls, name: str, *, quality: bool = True) -> tfds.core.BuilderConfig:
        """Return the configuration of a name, for builders that have several.

        Args:
            name: what follows the data set's name after a slash.
            quality: whether songs must pass the quality filter, where that can be chosen.
        """
        return tfds.core.BuilderConfig(name=name)

    @property
    def parts(self) -> dict[str, str]:
        """Names of parts in this configuration, to the selectors that they stand for."""
        return dict(self.PARTS)

    @abc.abstractmethod
    def source_files(self, folder: epath.Path | None) -> Source:
        """Return the songs' source.

        Args:
            folder: the local copy to use, or `None` when none was given.

        Raises:
            M4MError: there are no songs to be found there.
        """

    def build(
        self,
        staging: epath.Path,
        engine: Engine,
        *,
        time_limit: float = 60.0,
        folder: epath.Path | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Report:
        """Make a data set in `data_path`: records, TFDS's description of them, and the report.

        Args:
            staging: a folder for what is not finished. If it has such of the same build in it, that
                is not made again.
            engine: does the job's work.
            time_limit: seconds that reading one file may take.
            folder: a local copy of the songs, where the builder was not given one.
            say: told in a line what is kept of a build that was stopped before.

        Raises:
            M4MError: there are no files, or (NothingKept) none that could be used.
        """
        name = self.info.full_name.rsplit("/", 1)[0]
        place = self._source or folder
        source = self.source_files(place)
        job = Job.start(staging, self.data_path, self.name, name, source, place, time_limit)
        if say is not None and (line := job.inherited()):
            say(line)
        engine(job)
        report = job.layout.report
        if not report.kept:
            raise NothingKept(
                f"{report.source}: none of {report.files} files can be used ({report.reasons()})"
            )
        job.clear()
        (self.data_path / REPORT_FILE).write_text(report.to_json())
        self._describe(job.layout)
        return report

    def _describe(self, layout: Layout) -> None:
        infos = [
            tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=layout.sizes[split])
            for split, lengths in layout.lengths.items()
        ]
        self.info.set_splits(tfds.core.SplitDict(infos))
        self.info.metadata["source"] = layout.report.source
        self.info.metadata["digest"] = layout.digest
        self.info.write_to_directory(self.data_path)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=record.features(),
            homepage=self.HOMEPAGE or None,
            license=self.LICENSE or None,
            # On disk the songs stand in the order of their names; readers shuffle by seed.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(record_version=record.RECORD_VERSION, parts=self.parts),
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        # Reached through TFDS's own tools; `manual_dir` raises where there is no such folder. The
        # data path is an unfinished folder, which TFDS renames when it is whole.
        manual = self.MANUAL_DOWNLOAD_INSTRUCTIONS and self._source is None
        folder = epath.Path(dl_manager.manual_dir) if manual else None
        with tempfile.TemporaryDirectory(dir=self.data_path.parent) as staging:
            self.build(epath.Path(staging), run_local, folder=folder)
