"""What is in a file: its parts, whether it fits the grid, and its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from m4m_jax.errors import M4MError
from m4m_jax.files import atomic_path
from m4m_jax.music import simunote
from m4m_jax.music.instruments import INSTRUMENTS
from m4m_jax.music.notes import PITCH, TRACK, NoteTable, read_midi
from m4m_jax.music.parts import list_parts, select

_OFF_GRID_LIMIT = 0.4


@dataclass(frozen=True)
class PartFacts:
    """One part of a song.

    Attributes:
        selector: What selects it.
        name: As in the file; may be empty.
        program: General MIDI program 0..127, or the kit of a drum part.
        instrument: The program's General MIDI name; "Drums" for drums.
        is_drum: Whether it plays on the drum channel.
        notes: How many it has.
        lowest, highest: Pitches; None where it has no notes.
    """

    selector: str
    name: str
    program: int
    instrument: str
    is_drum: bool
    notes: int
    lowest: int | None
    highest: int | None


def describe_tracks(table: NoteTable) -> list[PartFacts]:
    """The facts of every part of a song, in order."""
    facts = []
    for number, track in enumerate(table.tracks):
        pitch = table.notes[table.notes[:, TRACK] == number, PITCH]
        facts.append(
            PartFacts(
                selector=f"track-{number}",
                name=track.name,
                program=track.program,
                instrument="Drums" if track.is_drum else INSTRUMENTS[track.program],
                is_drum=track.is_drum,
                notes=len(pitch),
                lowest=int(pitch.min()) if len(pitch) else None,
                highest=int(pitch.max()) if len(pitch) else None,
            )
        )
    return facts


def off_grid_warning(table: NoteTable) -> str | None:
    """One line for a song of which more than 40 % of the onsets miss the grid, else None."""
    if table.off_grid <= _OFF_GRID_LIMIT:
        return None
    return (
        f"{table.off_grid:.0%} of the onsets are off the 16th-note grid: its beats are probably"
        " wrong, and what is made from it will be too"
    )


def select_notes(
    table: NoteTable,
    selector: str,
    file: str,
    *,
    names: Mapping[str, str] | None = None,
    seed: int | None = None,
) -> NoteTable:
    """A part of a file's song, which must have notes unless `empty` is asked for.

    Raises:
        M4MError: No such part, or an empty one; the message names the file.
    """
    try:
        part = select(table, selector, names=names, seed=seed)
    except M4MError as error:
        raise M4MError(f"{file}: {error}") from error
    if selector != "empty" and not len(part.notes):
        raise M4MError(f"{file}: the part {selector!r} is empty; this song has {list_parts(table)}")
    return part


def tokenize_file(
    path: epath.PathLike,
    reference: str,
    target: str,
    max_notes: int,
    dedup: bool,
    vocabulary: str,
    out: epath.PathLike,
) -> None:
    """Write the tokens of two parts of a MIDI file as an .npz file, whole or not at all.

    Its arrays: `reference` and `target` (int32 [T, 2N], token ids), `reference_rows` and
    `target_rows` (uint8 [T, N, 4]), `pitch_shift_range` (int32 [2], of the whole song's pitched
    notes).

    Args:
        path: The MIDI file.
        reference: Part selector.
        target: Part selector.
        max_notes: Notes that a step holds, N.
        dedup: Whether notes equal in program, step and pitch are made one.
        vocabulary: "plain" or "velocity".
        out: The file to write.

    Raises:
        M4MError: The file cannot be read, a part does not exist or is empty, or `out` cannot be
            written.
    """
    ids = simunote.by_name(vocabulary)
    if max_notes < 1:
        raise M4MError(f"max-notes must be at least 1, not {max_notes}")
    table = read_midi(path)
    arrays: dict[str, Any] = {
        "pitch_shift_range": np.array(simunote.pitch_shift_range(table.notes), np.int32)
    }
    for side, selector in (("reference", reference), ("target", target)):
        notes = select_notes(table, selector, str(path)).notes
        rows = simunote.to_rows(notes, table.length, max_notes, dedup=dedup)
        arrays[f"{side}_rows"] = rows
        arrays[side] = simunote.to_tokens(rows, ids)
    with atomic_path(out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
