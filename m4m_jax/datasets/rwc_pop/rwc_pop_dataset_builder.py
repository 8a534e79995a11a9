"""RWC Pop: songs with beats and chords, written as notes, for analysis."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from m4m_jax.datasets.archives import files_in, read_file
from m4m_jax.datasets.builder import SongBuilder
from m4m_jax.datasets.filters import quality_filter
from m4m_jax.datasets.ingest import Reading, Rejected, Source
from m4m_jax.datasets.midi_files import midi_names
from m4m_jax.datasets.record import content_hash
from m4m_jax.errors import M4MError
from m4m_jax.music.grid import STEPS_PER_QUARTER
from m4m_jax.music.labels import Label, beats_to_notes, chords_to_notes, parse_lab, steps_at
from m4m_jax.music.notes import NoteTable, parse_midi

# In quarters; a mean distance of chords from the beat above it is worth knowing.
_OFF_BEAT = 0.1


def read_song(place: str, chords: Mapping[str, str], name: str) -> Reading:
    """Read a song with its beats (track 0) and its chords (track 1); the music is from track 2 on.

    Beats are those of the file's time signatures; chords are on the file's own clock.

    Args:
        place: folder, .zip or .tar.
        chords: MIDI file -> file of its chords.
        name: of the MIDI file.

    Raises:
        M4MError: as `parse_midi`, or a file cannot be read.
        Rejected: "no chords", "unreadable chords", or as `quality_filter`.
    """
    song = quality_filter(parse_midi(read_file(place, name), name))
    if name not in chords:
        raise Rejected("no chords", "no .lab file of this name")
    labels = _read_labels(place, chords[name])
    written, left_out = chords_to_notes(labels, song)
    if not len(written.notes):
        raise Rejected("no chords", f"{chords[name]} has no chord that sounds in the song")
    notices = {
        f"chords left out, {reason}": ", ".join(
            f"{label.text} at {label.start:g} s" for label in of
        )
        for reason, of in left_out.items()
    }
    distance = beat_distance(labels, song)
    if distance > _OFF_BEAT:
        notices["chords off the beat"] = f"by {distance:.2f} quarter notes on average"
    table = NoteTable.concat([beats_to_notes(song), written, song])
    return Reading(table, notices, content_hash(song))


def _read_labels(place: str, name: str) -> list[Label]:
    try:
        return parse_lab(read_file(place, name).decode(), name)
    except UnicodeDecodeError:
        raise Rejected("unreadable chords", f"{name}: no text") from None
    except M4MError as error:
        raise Rejected("unreadable chords", str(error)) from error


def beat_distance(labels: Sequence[Label], song: NoteTable) -> float:
    """How far chords begin from the nearest quarter of their meter, in quarters, on average."""
    steps = steps_at(song, np.array([label.start for label in labels]))
    starts = np.append(0.0, song.meters[:, 0])
    origin = starts[np.searchsorted(starts, np.rint(steps), side="right") - 1]
    quarters = (steps - origin) / STEPS_PER_QUARTER
    return float(np.abs(quarters - np.rint(quarters)).mean())


class Builder(SongBuilder):
    """Beats (track 0), chords (track 1) and the song (track 2 and up)."""

    PARTS = {"beats": "track-0", "chords": "track-1", "song": "from-2"}  # noqa: RUF012
    HOMEPAGE = "https://staff.aist.go.jp/m.goto/RWC-MDB/"
    LICENSE = "RWC's terms: research use, no redistribution. Of the chord labels (NYU): unknown."
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
A folder with MIDI files of the RWC Popular Music Database (such as RM-P001.mid) and, below it too,
chord labels of the same names in Harte's syntax (RM-P001.lab), whose times are on the clock of the
MIDI file. The MIDI files come with the database, and beat by beat in time with its audio as part of
the AIST annotation; chord labels are at https://github.com/tmc323/Chord-Annotations, on the clock
of the audio: where the MIDI file's music begins earlier or later, their times have to be moved."""

    def source_files(self, folder: epath.Path | None) -> Source:
        """Return the MIDI files of a folder, .zip or .tar, and the .lab files of their names."""
        assert folder is not None
        songs = _by_stem(folder, midi_names(folder))
        labels = _by_stem(folder, files_in(folder, (".lab",), "chord label file"))
        chords = {songs[stem]: label for stem, label in labels.items() if stem in songs}
        return Source(
            os.fspath(folder),
            sorted(songs.values()),
            functools.partial(read_song, os.fspath(folder), chords),
            missing={
                f"the MIDI file of {label}": "there is none of this name"
                for stem, label in labels.items()
                if stem not in songs
            },
        )


def _by_stem(folder: epath.Path, names: Sequence[str]) -> dict[str, str]:
    """Files by their names without folder and suffixes, whatever the case."""
    found: dict[str, str] = {}
    for name in names:
        stem = name.rsplit("/", 1)[-1].partition(".")[0].lower()
        if stem in found:
            raise M4MError(f"{folder}: {found[stem]} and {name} have one name; leave one of them")
        found[stem] = name
    return found
