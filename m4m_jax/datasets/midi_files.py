"""MIDI files in folders and archives, as the source of a data set."""

from __future__ import annotations

from etils import epath

from m4m_jax.datasets.archives import files_in, read_file
from m4m_jax.datasets.filters import quality_filter
from m4m_jax.datasets.ingest import Reading
from m4m_jax.music.notes import parse_midi


def midi_names(place: epath.Path) -> list[str]:
    """Return the MIDI files of a folder, .zip or .tar; see `files_in`."""
    return files_in(place, (".mid", ".midi"), "MIDI file")


def read_midi_file(place: str, quality: bool, name: str) -> Reading:
    """Read one of the files that `midi_names` gives; with `quality`, if it passes `quality_filter`.

    Raises:
        M4MError: as `parse_midi`, or the file cannot be read.
        Rejected: as `quality_filter`.
    """
    table = parse_midi(read_file(place, name), name)
    return Reading(quality_filter(table) if quality else table)
