"""The MIDI files of any folder."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from m4m_jax.datasets.builder import SongBuilder
from m4m_jax.datasets.ingest import Source
from m4m_jax.datasets.midi_files import midi_names, read_midi_file


@dataclass(eq=False)
class MidiFolderConfig(tfds.core.BuilderConfig):
    """A folder's name among the data sets.

    Attributes:
        quality: whether songs must pass the quality filter.
    """

    quality: bool = True


class Builder(SongBuilder):
    """Any folder of MIDI files, recursively; a song's name is its path within the folder."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "Any folder with MIDI files (.mid, .midi) in it or below it."
    LICENSE = "That of the files in the folder."

    def __init__(self, *, config: Any = None, **kwargs: Any):
        """Make a builder; `config` is a `MidiFolderConfig` or its name."""
        super().__init__(config=config or "default", **kwargs)

    @classmethod
    def make_config(cls, name: str, *, quality: bool = True) -> MidiFolderConfig:
        """Return the configuration of a folder's name."""
        return MidiFolderConfig(name=name, quality=quality)

    def source_files(self, folder: epath.Path | None) -> Source:
        """Return all MIDI files below the folder."""
        assert folder is not None
        read = functools.partial(read_midi_file, os.fspath(folder), self.builder_config.quality)
        return Source(os.fspath(folder), midi_names(folder), read)
