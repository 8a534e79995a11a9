"""MIDI files in folders, as the source of a data set."""

from __future__ import annotations

from etils import epath

from m4m_jax.datasets.filters import quality_filter
from m4m_jax.datasets.folders import files_below
from m4m_jax.datasets.ingest import Reading
from m4m_jax.errors import M4MError
from m4m_jax.music.notes import parse_midi


def midi_names(folder: epath.Path) -> list[str]:
    """Return the MIDI files below a folder; see `files_below`."""
    return files_below(folder, (".mid", ".midi"), "MIDI file")


def read_midi_file(folder: str, quality: bool, name: str) -> Reading:
    """Read one MIDI file of a folder; with `quality`, only if it passes `quality_filter`.

    Raises:
        M4MError: as `parse_midi`, or the file cannot be opened.
        Rejected: as `quality_filter`.
    """
    try:
        data = (epath.Path(folder) / name).read_bytes()
    except OSError as error:
        raise M4MError(f"{name}: cannot be read ({error.strerror or error})") from error
    table = parse_midi(data, name)
    return Reading(quality_filter(table) if quality else table)
