"""POP909-CL: pop songs for piano, with chords by experts."""

from __future__ import annotations

import functools
import os

from etils import epath

from m4m_jax.analysis.meter import find_meters
from m4m_jax.datasets.archives import read_file
from m4m_jax.datasets.builder import SongBuilder
from m4m_jax.datasets.filters import quality_filter
from m4m_jax.datasets.ingest import Reading, Rejected, Source
from m4m_jax.datasets.midi_files import midi_names
from m4m_jax.datasets.record import content_hash
from m4m_jax.music.labels import beats_to_notes
from m4m_jax.music.notes import STEP, TRACK, NoteTable, parse_midi

# Of the source's several versions of each song, the corrected one.
_PROCESSED = "POP909_processed"
# What its tracks are called, in lower case.
_SONG, _CHORDS = "piano", ("chords", "midi 01")


def read_song(place: str, analysis: bool, name: str) -> Reading:
    """Read a song (track 0) with its chords (track 1).

    With `analysis`, the tracks are beats, chords and song, as in `rwc_pop`, and the meters are
    those that `find_meters` finds, chords helping.

    Raises:
        M4MError: as `parse_midi`, or the file cannot be read.
        Rejected: "no two tracks", "not of POP909-CL", or as `quality_filter`, which the file as a
            whole must pass.
    """
    table = parse_midi(read_file(place, name), name)
    _check_tracks(table)
    quality_filter(table)
    content = content_hash(table)
    if analysis:
        song, chords = _track(table, 0), _track(table, 1)
        # The files' bars run from their first step on, wherever the music's begin.
        meters = find_meters(song, chords.notes[:, STEP].tolist())
        beats = beats_to_notes(song.replace(meters=meters))
        table = NoteTable.concat([beats, chords, song]).replace(off_grid=table.off_grid)
    return Reading(table, content=content)


def _check_tracks(table: NoteTable) -> None:
    names = [track.name for track in table.tracks]
    told = f"its tracks are {', '.join(name or 'unnamed' for name in names)}"
    if len(names) != 2:
        raise Rejected("no two tracks", f"{told}, not a song and its chords")
    song, chords = (name.lower() for name in names)
    if song != _SONG or chords not in _CHORDS:
        raise Rejected("not of POP909-CL", f"{told}, not piano and chords (or MIDI 01)")


def _track(table: NoteTable, number: int) -> NoteTable:
    notes = table.notes[table.notes[:, TRACK] == number].copy()
    notes[:, TRACK] = 0
    return table.replace(notes=notes, tracks=table.tracks[number : number + 1])


class Builder(SongBuilder):
    """A song's track and its chords'; in the configuration `analysis`, its beats too."""

    HOMEPAGE = "https://github.com/AndyWeasley2004/POP909-CL-Dataset"
    LICENSE = "MIT"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
A copy of https://github.com/AndyWeasley2004/POP909-CL-Dataset, its POP909_processed.zip, or a
folder with the MIDI files of that."""

    @property
    def parts(self) -> dict[str, str]:
        """Names of parts."""
        if self.builder_config is None:
            return {"song": "track-0", "chords": "track-1"}
        return {"beats": "track-0", "chords": "track-1", "song": "track-2"}

    def source_files(self, folder: epath.Path | None) -> Source:
        """Return the MIDI files of a folder, .zip or .tar; of all versions, the processed one."""
        assert folder is not None
        names = midi_names(folder)
        processed = [name for name in names if _PROCESSED in name.split("/")[:-1]]
        read = functools.partial(read_song, os.fspath(folder), self.builder_config is not None)
        return Source(os.fspath(folder), processed or names, read)
