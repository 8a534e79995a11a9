"""The Los Angeles MIDI data set, which the published language models were pretrained on."""

from __future__ import annotations

import functools
import os

from etils import epath

from m4m_jax.datasets.builder import SongBuilder
from m4m_jax.datasets.ingest import Source
from m4m_jax.datasets.midi_files import midi_names, read_midi_file

_FIRST = "first_"


class Builder(SongBuilder):
    """Songs of all kinds; the configuration `first_N` takes only the first N files by name."""

    HOMEPAGE = "https://huggingface.co/datasets/projectlosangeles/Los-Angeles-MIDI-Dataset"
    LICENSE = "Of the collection: CC BY-NC-SA 4.0. Of the files, gathered from the web: unknown."
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
The .zip from https://huggingface.co/datasets/projectlosangeles/Los-Angeles-MIDI-Dataset, as it
is, or a folder that it was unpacked to: all MIDI files in it are read."""

    def source_files(self, folder: epath.Path | None) -> Source:
        """Return the MIDI files of a folder, .zip or .tar, or the first N of them."""
        assert folder is not None
        names = midi_names(folder)
        if self.builder_config is not None:
            names = names[: int(self.builder_config.name.removeprefix(_FIRST))]
        read = functools.partial(read_midi_file, os.fspath(folder), True)
        return Source(os.fspath(folder), names, read)
