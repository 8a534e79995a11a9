"""The NoteTable: a song's notes on the grid, read from and written to Standard MIDI Files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from etils import epath

from m4m_jax.errors import M4MError
from m4m_jax.files import atomic_path
from m4m_jax.music import grid, smf

# Columns of NoteTable.notes.
STEP, DURATION, PITCH, PROGRAM, VELOCITY, TRACK = range(6)

# The program that stands for every drum note.
DRUM_PROGRAM = 127

_DRUM_CHANNEL = 9
_MICROSECONDS_PER_MINUTE = 60_000_000

# Of files that are written.
_TICKS_PER_QUARTER = 480
_TICKS_PER_STEP = _TICKS_PER_QUARTER // grid.STEPS_PER_QUARTER
_SHORT = _TICKS_PER_STEP // 10  # rounds to no length; near enough to the grid to count as on it


@dataclass(frozen=True)
class Track:
    """One part of a song.

    Attributes:
        name: As in the file, without spaces or NULs at its ends; may be empty.
        program: General MIDI program 0..127; of a drum track, the number of its kit.
        is_drum: Whether it plays on the drum channel.
    """

    name: str
    program: int
    is_drum: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.program <= 127:
            raise ValueError(f"program {self.program} of track {self.name!r} is not in 0..127")

    @property
    def note_program(self) -> int:
        """What the track's notes have in the program column: 127 for drums."""
        return DRUM_PROGRAM if self.is_drum else self.program


def _empty(columns: int) -> np.ndarray:
    return np.zeros((0, columns), np.float64)


@dataclass(frozen=True, eq=False)
class NoteTable:
    """A song's notes on the sixteenth-note grid.

    Compared by value, everything included; made anew by `dataclasses.replace`.

    Attributes:
        notes: int32 [n, 6], the columns step, duration (steps, >= 0), pitch, program (127 for
            drums), velocity (1..127), track. The order of rows matters, since a step that has too
            many notes keeps the first: track by track and, as read from a file, in the order in
            which notes end.
        tracks: The parts; number k is `track-k` and the track column's value.
        length: Steps; every note starts before it, and may end after it.
        tempos: float64 [k, 2], step (fractional) and quarter notes per minute, by step.
        meters: float64 [k, 3], step (fractional), numerator and denominator, by step.
        off_grid: Share of onsets in the file that lie further than 1/8 step from the grid; 0.0 for
            a table that was not read from a file.

    Raises:
        ValueError: The arrays do not fit this description.
    """

    notes: np.ndarray
    tracks: tuple[Track, ...]
    length: int
    tempos: np.ndarray = field(default_factory=lambda: _empty(2))
    meters: np.ndarray = field(default_factory=lambda: _empty(3))
    off_grid: float = 0.0

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "notes", _frozen(self.notes, np.int32, 6, "notes"))
        put(self, "tracks", tuple(self.tracks))
        put(self, "length", int(self.length))
        put(self, "tempos", _frozen(self.tempos, np.float64, 2, "tempos"))
        put(self, "meters", _frozen(self.meters, np.float64, 3, "meters"))
        put(self, "off_grid", float(self.off_grid))
        self._check()

    def _check(self) -> None:
        if self.length < 0:
            raise ValueError(f"length {self.length} is negative")
        n = self.notes
        limits = {
            "step": (STEP, 0, self.length - 1),
            "duration": (DURATION, 0, None),
            "pitch": (PITCH, 0, 127),
            "velocity": (VELOCITY, 1, 127),
            "track": (TRACK, 0, len(self.tracks) - 1),
        }
        for name, (column, low, high) in limits.items():
            values = n[:, column]
            if len(values) and (values.min() < low or (high is not None and values.max() > high)):
                raise ValueError(
                    f"{name} outside {low}..{'' if high is None else high}:"
                    f" {values.min()}..{values.max()}"
                )
        if (np.diff(n[:, TRACK]) < 0).any():
            raise ValueError("notes must stand track by track")
        programs = np.array([t.note_program for t in self.tracks], np.int32)
        if len(n) and (programs[n[:, TRACK]] != n[:, PROGRAM]).any():
            raise ValueError("a note's program must be its track's (127 for drums)")
        if (np.diff(self.tempos[:, 0]) < 0).any() or (np.diff(self.meters[:, 0]) < 0).any():
            raise ValueError("tempos and meters must be sorted by step")
        if (self.tempos[:, 1] <= 0).any() or (self.meters[:, 1:] < 1).any():
            raise ValueError("tempos and meters must be positive")
        numerator, denominator = self.meters[:, 1], self.meters[:, 2]
        if (numerator % 1 != 0).any() or (numerator > 255).any():
            raise ValueError("a meter's numerator must be a whole number up to 255")
        if (np.log2(denominator) % 1 != 0).any() or (denominator > 128).any():
            raise ValueError("a meter's denominator must be a power of two up to 128")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NoteTable):
            return NotImplemented
        return (
            self.tracks == other.tracks
            and self.length == other.length
            and self.off_grid == other.off_grid
            and np.array_equal(self.notes, other.notes)
            and np.array_equal(self.tempos, other.tempos)
            and np.array_equal(self.meters, other.meters)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"NoteTable({len(self.notes)} notes, {len(self.tracks)} tracks, {self.length} steps)"

    def replace(self, **changes: Any) -> NoteTable:
        """The same table with some attributes changed.

        Raises:
            ValueError: They do not fit the class's description.
        """
        return dataclasses.replace(self, **changes)

    @staticmethod
    def concat(tables: Sequence[NoteTable]) -> NoteTable:
        """Put the tracks of several tables side by side, in the order given.

        Track numbers of later tables move up; tempo and metre are the first table's, the length is
        the greatest.

        Raises:
            ValueError: There are no tables.
        """
        if not tables:
            raise ValueError("no tables to put side by side")
        offsets = np.cumsum([0, *(len(t.tracks) for t in tables[:-1])])
        notes = np.concatenate([t.notes for t in tables])
        notes[:, TRACK] += np.repeat(offsets, [len(t.notes) for t in tables]).astype(np.int32)
        return tables[0].replace(
            notes=notes,
            tracks=tuple(track for t in tables for track in t.tracks),
            length=max(t.length for t in tables),
            off_grid=max(t.off_grid for t in tables),
        )


def _frozen(array: Any, dtype: Any, columns: int, name: str) -> np.ndarray:
    """A read-only array of the right type and shape."""
    given = np.asarray(array)
    result = given.astype(dtype, copy=False)
    if result.ndim != 2 or result.shape[1] != columns:
        raise ValueError(f"{name} must be [n, {columns}], not {list(given.shape)}")
    if result.dtype != given.dtype and not np.array_equal(result, given):
        raise ValueError(f"{name} holds values that {np.dtype(dtype)} cannot")
    if result.flags.writeable and np.shares_memory(result, given):
        result = result.copy()
    result.flags.writeable = False
    return result


def read_midi(path: epath.PathLike) -> NoteTable:
    """Read a Standard MIDI File; see `parse_midi`.

    Raises:
        M4MError: There is no such file, or as `parse_midi`.
    """
    try:
        data = epath.Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise M4MError(f"{os.fspath(path)}: cannot be read ({reason})") from error
    return parse_midi(data, os.fspath(path))


def parse_midi(data: bytes, name: str) -> NoteTable:
    """The notes of a Standard MIDI File, by the rules that the published models were trained on.

    - A note-off (or a note-on of velocity 0) ends every open note of its track chunk, channel and
      pitch that began on an earlier tick. Open notes that began on that very tick stay open if an
      earlier one was ended and are dropped otherwise. Notes that are never ended are dropped.
    - A part is one (program when the note ends, channel, track chunk); channel 10 is drums. Parts
      are numbered in the order in which their first notes end, chunk after chunk.
    - The song's length is the floor of the latest of: ends of notes, controllers and pitch bends on
      a chunk's channel that has notes, time and key signatures of the first chunk, lyrics, texts. A
      note whose start rounds to the length or past it is dropped.

    Tempi of 0 microseconds and metres with a numerator of 0 say nothing and are left out.

    Args:
        data: The file.
        name: What errors call it.

    Raises:
        M4MError: The bytes are no MIDI file, or a damaged one; it holds no notes; it is longer than
            100,000 steps.
    """
    events = smf.read_events(data, name)
    onsets, offsets, programs = _pair(events)
    if not len(onsets):
        raise M4MError(f"{name}: no notes in this file")
    steps_at = grid.ticks_to_steps(events.tick, events.ticks_per_quarter)
    length = int(np.floor(steps_at[_last_event(events, offsets)]))
    if length > grid.MAX_STEPS:
        raise M4MError(
            f"{name}: {length:,} steps long; songs may have {grid.MAX_STEPS:,} (16th notes)"
        )

    part, first = _parts(events.chunk[offsets], events.status[offsets] & 15, programs)
    # Small integers are sorted fastest.
    order = np.argsort(part.astype(np.min_scalar_type(len(first))), kind="stable")
    onsets, offsets, programs = onsets[order], offsets[order], programs[order]
    exact = steps_at[onsets]
    start = np.rint(exact)
    is_drum = events.status[offsets] & 15 == _DRUM_CHANNEL
    notes = np.empty((len(start), 6), np.int32)
    notes[:, STEP] = start
    notes[:, DURATION] = np.rint(steps_at[offsets]) - start
    notes[:, PITCH] = events.data1[onsets]
    notes[:, PROGRAM] = np.where(is_drum, DRUM_PROGRAM, programs)
    notes[:, VELOCITY] = events.data2[onsets]
    notes[:, TRACK] = part[order]
    inside = start < length
    if not inside.all():
        notes = notes[inside]
    if not len(notes):
        raise M4MError(f"{name}: no notes in this file (all start at its very end)")
    names = _track_names(events)
    tracks = tuple(
        Track(names.get(chunk, ""), program, channel == _DRUM_CHANNEL)
        for chunk, channel, program in first.tolist()
    )
    return NoteTable(
        notes=notes,
        tracks=tracks,
        length=length,
        tempos=_tempos(events, steps_at),
        meters=_meters(events, steps_at),
        off_grid=float((np.abs(exact - start) > 0.125).mean()),
    )


def write_midi(table: NoteTable, path: epath.PathLike) -> None:
    """Write a Standard MIDI File; see `midi_bytes`. It appears whole or not at all.

    Raises:
        M4MError: The file cannot be written, or as `midi_bytes`.
    """
    data = midi_bytes(table)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def midi_bytes(table: NoteTable) -> bytes:
    """A Standard MIDI File of format 1, with 480 ticks a quarter note.

    The first track chunk has tempo and metre, then comes a chunk for each part that has notes, with
    its name and program, drums on channel 10. Read again, the file gives the same notes; it gives
    the same table if that is in normal form, as every table is that such a file was read into:

    - every part has notes, and they stand in the order in which they end; those of one pitch that
      sound at once end together, and stand next to each other, by start;
    - no note ends more than a step after `length`, and no metre starts more than a step after it;
    - tempos and metres stand on whole ticks, tempos are whole microseconds a quarter note;
    - `off_grid` is 0.

    Otherwise: a note-off ends all notes of its pitch, so a part whose notes of one pitch overlap
    and end at different times is spread over several chunks of one name and program. Parts without
    notes are left out, and later ones get lower numbers.

    Notes of no length last at most a tenth of a step, and end on the grid. Where no note reaches
    the end of the song, a text event marks it. With up to 15 pitched chunks each has a channel of
    its own; with more, chunks of equal program share one, and where there are more than 15
    programs some share a channel that players give a single sound.

    Raises:
        M4MError: A tempo too slow for a MIDI file (under 3.58 quarter notes a minute).
    """
    notes = table.notes
    start, end = _ticks(notes, table.length)
    chunk, heads = _chunks_of(table, _layers(notes, start, end))
    channel = np.array([h[0] for h in heads], np.int64)[chunk]

    tracks = [_conductor(table, marked=int(end.max(initial=0)) < table.length * _TICKS_PER_STEP)]
    on = np.stack([smf.NOTE_ON | channel, notes[:, PITCH], notes[:, VELOCITY]], axis=1)
    off = np.stack([smf.NOTE_OFF | channel, notes[:, PITCH], np.full(len(notes), 64)], axis=1)
    tick = np.concatenate([end, start])
    message = np.concatenate([off, on]).astype(np.uint8)
    # By chunk and tick; on one tick offsets before onsets, both in the order of the table.
    order = np.lexsort((tick, np.tile(chunk, 2)))
    bounds = np.cumsum([0, *(2 * np.bincount(chunk, minlength=len(heads)))])
    for k, (_, head) in enumerate(heads):
        these = order[bounds[k] : bounds[k + 1]]
        tracks.append(smf.encode_track(head, tick[these], message[these]))
    return smf.encode_file(_TICKS_PER_QUARTER, tracks)


def _ticks(notes: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """When each note starts and ends, int64 [n] both.

    Everything is on the grid but what needs a moment more. A note of no length starts up to a tenth
    of a step early. It cannot start before a note of its pitch has ended; where one ends on the
    same step, that one and what ends between the two end early in turn.
    """
    step, duration = notes[:, STEP].astype(np.int64), notes[:, DURATION].astype(np.int64)
    end_step = step + duration
    empty = duration == 0
    # Turns: those of a track that end on one step, in their order; a note of no length whose pitch
    # has already ended takes the next turn.
    place = notes[:, TRACK].astype(np.int64) * (int(end_step.max(initial=0)) + 1) + end_step
    first_of_pitch = np.zeros(len(notes), bool)
    first_of_pitch[np.unique(place * 128 + notes[:, PITCH], return_index=True)[1]] = True
    order = np.argsort(place, kind="stable")
    taken = np.cumsum((empty & ~first_of_pitch)[order])
    places, group = np.unique(place[order], return_inverse=True)
    last = np.searchsorted(place[order], places, side="right") - 1
    left = np.empty(len(notes), np.int64)
    left[order] = taken[last][group] - taken
    turns = np.empty(len(notes), np.int64)
    turns[order] = np.diff(taken[last], prepend=0)[group] + 1
    moment = np.maximum(_SHORT // turns, 1)

    end = end_step * _TICKS_PER_STEP - left * moment
    start = np.where(empty, end - moment, step * _TICKS_PER_STEP)
    # Nothing starts before the song does.
    early = empty & (step == 0)
    late = (turns * moment)[early]
    start[early] += late
    end[early] += late
    # The floor of this end is the length, and the nearest step is the note's own.
    end[end_step == length + 1] -= _SHORT
    return start, end


def _chunks_of(table: NoteTable, layer: np.ndarray) -> tuple[np.ndarray, list[tuple[int, bytes]]]:
    """Spread the notes over track chunks, one for each layer of a track.

    Returns:
        chunk: int64 [n], the chunk of each note.
        heads: For each chunk its channel, and its first events: name and program.
    """
    layers = int(layer.max(initial=0)) + 1
    keys, chunk = np.unique(table.notes[:, TRACK] * layers + layer, return_inverse=True)
    tracks = [table.tracks[k] for k in (keys // layers).tolist()]
    heads = []
    for track, channel in zip(tracks, _channels(tracks), strict=True):
        head = bytes([0, smf.PROGRAM | channel, track.program])
        if track.name:
            head = b"\0" + smf.encode_meta(smf.META_TRACK_NAME, track.name.encode()) + head
        heads.append((channel, head))
    return chunk, heads


def _layers(notes: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Separate notes of one track and pitch that overlap without ending together.

    Among notes that are joined by overlaps, each end has a layer of its own.

    Args:
        notes: int32 [n, 6].
        start, end: int64 [n], ticks.

    Returns:
        int64 [n], 0 where nothing needs separating.
    """
    if not len(notes):
        return start
    voice = notes[:, TRACK].astype(np.int64) * 128 + notes[:, PITCH]
    order = np.lexsort((end, start, voice))
    voice, start, end = voice[order], start[order], end[order]
    # Ends are made to rise from voice to voice, so that one running maximum serves them all.
    rise = voice * (int(end.max()) + 1)
    reach = np.maximum.accumulate(rise + end)
    joined = np.concatenate([[False], (rise + start)[1:] < reach[:-1]])
    cluster = np.cumsum(~joined)
    ends, inverse = np.unique(np.stack([cluster, end]), axis=1, return_inverse=True)
    first = np.searchsorted(ends[0], ends[0])
    layer = np.empty(len(order), np.int64)
    layer[order] = (np.arange(ends.shape[1]) - first)[inverse.ravel()]
    return layer


def _channels(tracks: list[Track]) -> list[int]:
    """A channel for each chunk: its own while there are enough, else that of its program."""
    pitched = [c for c in range(16) if c != _DRUM_CHANNEL]
    owner: dict[object, int] = {}
    shared = sum(not t.is_drum for t in tracks) > len(pitched)
    channels = []
    for k, track in enumerate(tracks):
        key = track.program if shared else k
        if not track.is_drum:
            owner.setdefault(key, pitched[len(owner) % len(pitched)])
        channels.append(_DRUM_CHANNEL if track.is_drum else owner[key])
    return channels


def _conductor(table: NoteTable, *, marked: bool) -> bytes:
    """The chunk of tempo and metre, and if `marked` a text at the end of the song."""
    events: list[tuple[int, bytes]] = []
    for step, numerator, denominator in table.meters.tolist():
        payload = bytes([int(numerator), int(denominator).bit_length() - 1, 24, 8])
        events.append((_tick(step), smf.encode_meta(smf.META_TIME_SIGNATURE, payload)))
    for step, tempo in table.tempos.tolist():
        microseconds = round(_MICROSECONDS_PER_MINUTE / tempo)
        if not 0 < microseconds < 1 << 24:
            raise M4MError(f"a tempo of {tempo:.3g} quarter notes a minute has no place in MIDI")
        payload = microseconds.to_bytes(3, "big")
        events.append((_tick(step), smf.encode_meta(smf.META_TEMPO, payload)))
    if marked:
        events.append((_tick(table.length), smf.encode_meta(smf.META_TEXT, b"end")))
    events.sort(key=lambda event: event[0])
    ticks = np.array([tick for tick, _ in events], np.int64)
    return smf.encode_track(b"", ticks, [message for _, message in events])


def _tick(step: float) -> int:
    return round(step * _TICKS_PER_STEP)


def _pair(events: smf.Events) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the events that start and end each note.

    Returns:
        onsets, offsets: int64 [n], indices of events, in the order in which notes end (of notes
            that one event ends: in which they start).
        programs: int64 [n], the program in force at the end of each note.
    """
    found = np.flatnonzero((events.status ^ smf.NOTE_OFF) < 0x20)  # note-off or note-on
    if not len(found):
        return found, found, found
    # Voice by voice (chunk, channel, pitch); within a voice in file order.
    voice = (events.chunk[found].astype(np.int64) * 16 + (events.status[found] & 15)) * 128
    voice = np.sort(((voice + events.data1[found]) << 32) | found)
    at = voice & 0xFFFFFFFF
    voice >>= 32
    tick = events.tick[at]
    is_on = (events.status[at] >= smf.NOTE_ON) & (events.data2[at] > 0)

    # In most voices onsets and offsets alternate, each offset on a later tick; only the others need
    # care.
    new_voice = np.concatenate([[True], voice[1:] != voice[:-1], [True]])
    is_off, first = ~is_on, np.flatnonzero(new_voice)
    odd = (new_voice[:-1] & is_off) | (new_voice[1:] & is_on)
    repeats = (is_on[1:] == is_on[:-1]) | (is_off[1:] & (tick[1:] <= tick[:-1]))
    odd[1:] |= repeats & ~new_voice[1:-1]
    odd = np.repeat(np.logical_or.reduceat(odd, first[:-1]), np.diff(first))
    onset = np.flatnonzero(is_on & ~odd)
    offset = onset + 1
    if odd.any():
        rest = np.flatnonzero(odd)
        starts, stops = _pair_overlapping(voice[rest], tick[rest], is_on[rest])
        onset = np.concatenate([onset, rest[starts]])
        offset = np.concatenate([offset, rest[stops]])
    pairs = np.sort((at[offset] << 32) | at[onset])
    onsets, offsets = pairs & 0xFFFFFFFF, pairs >> 32
    return onsets, offsets, _programs_at(events, offsets)


def _pair_overlapping(
    voice: np.ndarray, tick: np.ndarray, is_on: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the offset that ends each onset, voice by voice, by the rules of `parse_midi`.

    Args:
        voice: int64 [m], ascending, of note events; those of a voice stand in file order.
        tick: int64 [m].
        is_on: bool [m].

    Returns:
        onset, offset: int64 [n], places among the events.
    """
    # A group: the events of a voice on one tick.
    new_voice = np.concatenate([[True], voice[1:] != voice[:-1]])
    new_group = new_voice | np.concatenate([[True], tick[1:] != tick[:-1]])
    group_start = np.flatnonzero(new_group)
    group = np.cumsum(new_group) - 1
    group_end = np.concatenate([group_start[1:], [len(voice)]])
    offs_before = np.concatenate([[0], np.cumsum(~is_on)])
    group_offs = offs_before[group_end] - offs_before[group_start]

    # Is a note open after each group? One that ends in an onset leaves it open. Of the others, one
    # with an onset and a single offset passes on what was before it; the rest leave none open.
    ends_open = is_on[group_end - 1]
    passes = ~ends_open & (group_offs == 1) & (group_end - group_start > 1)
    index = np.arange(len(group_start))
    source = np.maximum.accumulate(np.where(passes, -1, index))
    # A voice's first group has nothing before it, so one that passes on leaves none open.
    voice_start = np.maximum.accumulate(np.where(new_voice[group_start], index, 0))
    open_after = (source >= voice_start) & ends_open[source]
    open_before = np.concatenate([[False], open_after[:-1]]) & ~new_voice[group_start]

    offs_after = offs_before[group_end[group]] - offs_before[1:]
    stays = is_on & ((offs_after == 0) | (open_before[group] & (group_offs[group] == 1)))
    onset = np.flatnonzero(stays)
    # It ends at the first offset of a later group of its voice.
    off_positions = np.flatnonzero(~is_on)
    later = np.searchsorted(off_positions, group_end[group[onset]])
    has_end = later < len(off_positions)
    onset, later = onset[has_end], later[has_end]
    offset = off_positions[later]
    same_voice = voice[offset] == voice[onset]
    return onset[same_voice], offset[same_voice]


def _programs_at(events: smf.Events, at: np.ndarray) -> np.ndarray:
    """The program of each event's channel in its chunk at that event (0 at first), int64."""
    change = np.flatnonzero((events.status & 0xF0) == smf.PROGRAM)
    if not len(change):
        return np.zeros(len(at), np.int64)
    changes = np.sort((_stream(events, change) << 32) | change)
    stream = _stream(events, at)
    last = np.searchsorted(changes, (stream << 32) | at) - 1
    found = (last >= 0) & (changes[last] >> 32 == stream)
    return np.where(found, events.data1[changes[last] & 0xFFFFFFFF], 0).astype(np.int64)


def _stream(events: smf.Events, at: np.ndarray) -> np.ndarray:
    """A number for the (chunk, channel) of each event, int64."""
    return events.chunk[at].astype(np.int64) * 16 + (events.status[at] & 15)


def _parts(
    chunk: np.ndarray, channel: np.ndarray, program: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Number the parts of notes in the order in which they first appear.

    Returns:
        part: int64 [n], each note's.
        first: int64 [parts, 3], chunk, channel and program of each part.
    """
    key = (chunk.astype(np.int64) * 16 + channel) * 128 + program
    keys, at, inverse = np.unique(key, return_index=True, return_inverse=True)
    order = np.argsort(at)
    number = np.empty(len(keys), np.int64)
    number[order] = np.arange(len(keys))
    keys = keys[order]
    return number[inverse], np.stack([keys >> 11, (keys >> 7) & 15, keys & 127], axis=1)


def _last_event(events: smf.Events, offsets: np.ndarray) -> int:
    """The latest event that counts for a song's length."""
    kind = events.status & 0xF0
    controls = np.flatnonzero((kind == smf.CONTROL) | (kind == smf.BEND))
    with_notes = np.zeros(events.chunks * 16, bool)
    with_notes[_stream(events, offsets)] = True
    counted = [offsets, controls[with_notes[_stream(events, controls)]]]
    counted += [events.metas(meta) for meta in (smf.META_LYRIC, smf.META_TEXT)]
    for meta in (smf.META_TIME_SIGNATURE, smf.META_KEY_SIGNATURE):
        signatures = events.metas(meta)
        counted.append(signatures[events.chunk[signatures] == 0])
    index = np.concatenate(counted)
    return int(index[events.tick[index].argmax()])


def _track_names(events: smf.Events) -> dict[int, str]:
    """The first name of each chunk that has one."""
    names: dict[int, str] = {}
    for index in events.metas(smf.META_TRACK_NAME).tolist():
        raw = events.payload_of(index)
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
        if clean := text.strip().strip("\0").strip():
            names.setdefault(int(events.chunk[index]), clean)
    return names


def _tempos(events: smf.Events, steps_at: np.ndarray) -> np.ndarray:
    rows: list[tuple[float, ...]] = []
    for index in events.metas(smf.META_TEMPO).tolist():
        if microseconds := int.from_bytes(events.payload_of(index)[:3], "big"):
            rows.append((steps_at[index], _MICROSECONDS_PER_MINUTE / microseconds))
    return _map(rows, 2)


def _meters(events: smf.Events, steps_at: np.ndarray) -> np.ndarray:
    rows: list[tuple[float, ...]] = []
    for index in events.metas(smf.META_TIME_SIGNATURE).tolist():
        payload = events.payload_of(index)
        if len(payload) >= 2 and payload[0] and payload[1] < 8:
            rows.append((steps_at[index], payload[0], 1 << payload[1]))
    return _map(rows, 3)


def _map(rows: list[tuple[float, ...]], columns: int) -> np.ndarray:
    """Rows sorted by step; of several on one step, the last in the file."""
    table = np.array(rows, np.float64).reshape(-1, columns)
    table = table[np.argsort(table[:, 0], kind="stable")]
    last = np.concatenate([table[1:, 0] != table[:-1, 0], [True]])[: len(table)]
    return table[last]
