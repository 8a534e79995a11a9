"""The Lakh MIDI data set."""

from __future__ import annotations

import functools
import os

from etils import epath

from m4m_jax.datasets.builder import SongBuilder
from m4m_jax.datasets.ingest import Source
from m4m_jax.datasets.midi_files import midi_names, read_midi_file


class Builder(SongBuilder):
    """Songs of all kinds, from any of the collection's subsets."""

    HOMEPAGE = "https://colinraffel.com/projects/lmd/"
    LICENSE = "Of the collection: CC BY 4.0. Of the files, gathered from the web: unknown."
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
LMD-full or another subset of https://colinraffel.com/projects/lmd/: the folder that its .tar.gz was
unpacked to, or the plain .tar that gunzip makes of it."""

    def source_files(self, folder: epath.Path | None) -> Source:
        """Return the MIDI files of a folder, .zip or .tar."""
        assert folder is not None
        read = functools.partial(read_midi_file, os.fspath(folder), True)
        return Source(os.fspath(folder), midi_names(folder), read)
