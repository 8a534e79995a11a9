"""What all TFDS builders of this package share.

A builder says where its songs come from (`source_files`) and which parts have names (`PARTS`);
reading, sorting into splits and writing are here. TensorFlow is not imported: records are written
as array_record files and read with `tfds.data_source`.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Iterator
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath

from m4m_jax.datasets import record
from m4m_jax.datasets.ingest import Progress, Report, Source, ingest
from m4m_jax.errors import M4MError

REPORT_FILE = "report.json"


def default_workers() -> int:
    """Return how many processes this machine can run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class SongBuilder(tfds.core.GeneratorBasedBuilder):
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
            **kwargs: as for `tfds.core.GeneratorBasedBuilder`.
        """
        self._source = None if source is None else epath.Path(source).expanduser()
        self._songs: dict[str, list[record.Song]] | None = None
        self.report: Report | None = None
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

    def ingest(
        self,
        *,
        workers: int | None = None,
        time_limit: float = 60.0,
        progress: Progress | None = None,
        folder: epath.Path | None = None,
    ) -> Report:
        """Read the songs, to be written by `download_and_prepare`; see `ingest.ingest`.

        Raises:
            M4MError: there are no files, or none of them could be kept.
        """
        source = self.source_files(self._source or folder)
        songs, report = ingest(
            self.info.full_name.rsplit("/", 1)[0],
            source,
            workers=workers or default_workers(),
            time_limit=time_limit,
            progress=progress,
        )
        if not report.kept:
            raise M4MError(
                f"{report.source}: none of {report.files} files can be used ({report.reasons()})"
            )
        self._songs, self.report = songs, report
        return report

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=record.features(),
            homepage=self.HOMEPAGE or None,
            license=self.LICENSE or None,
            # On disk the songs stand in the order of their names; readers shuffle by seed.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(record_version=record.RECORD_VERSION, parts=self.parts),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        if self._songs is None:
            # Reached through TFDS's own tools; `manual_dir` raises where there is no such folder.
            manual = self.MANUAL_DOWNLOAD_INSTRUCTIONS and self._source is None
            self.ingest(folder=epath.Path(dl_manager.manual_dir) if manual else None)
        assert self._songs is not None
        assert self.report is not None
        self.info.metadata["source"] = self.report.source
        # TFDS's folder is still an unfinished one, which is renamed when it is whole.
        (self.data_path / REPORT_FILE).write_text(self.report.to_json())
        return {
            split: self._generate_examples(songs) for split, songs in self._songs.items() if songs
        }

    def _generate_examples(self, songs: list[record.Song]) -> Iterator[Any]:
        for number, song in enumerate(songs):
            yield number, record.encode(song)
