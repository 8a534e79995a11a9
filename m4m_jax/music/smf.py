"""Standard MIDI File bytes to flat arrays of events, and back.

Follows the Standard MIDI Files 1.0 specification, formats 0, 1 and 2. An event's length depends on
its status, and a status may be implied by the event before (running status), so the start of an
event is known only once the one before is. For speed, "where would the next event start if one
started here" is computed for *every* byte of the file at once; a loop that does nothing but follow
these links then visits the true starts, and only those are decoded, again all at once.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from m4m_jax.errors import M4MError

# Meta events (status 0xFF), by type.
META_TEXT = 0x01
META_TRACK_NAME = 0x03
META_LYRIC = 0x05
META_TEMPO = 0x51
META_TIME_SIGNATURE = 0x58
META_KEY_SIGNATURE = 0x59

NOTE_OFF, NOTE_ON, CONTROL, PROGRAM, BEND = 0x80, 0x90, 0xB0, 0xC0, 0xE0
META = 0xFF

# Data bytes after each status byte; -1 where the length is in the file, -2 where undefined.
_DATA_BYTES = np.full(256, -2, np.int32)
_DATA_BYTES[0x80:0xF0] = 2
_DATA_BYTES[0xC0:0xE0] = 1
_DATA_BYTES[[0xF0, 0xF7, 0xFF]] = -1
_DATA_BYTES[[0xF1, 0xF3]] = 1
_DATA_BYTES[0xF2] = 2
_DATA_BYTES[[0xF6, 0xF8, 0xFA, 0xFB, 0xFC, 0xFE]] = 0

# Bytes appended to the file so that looking a few bytes ahead needs no check of bounds.
_PAD = 8


@dataclass(frozen=True, eq=False)
class Events:
    """All events of a file, chunk after chunk, in file order.

    `e` events; every array is one-dimensional and has one entry an event unless said otherwise.
    """

    ticks_per_quarter: int
    chunks: int  # track chunks read
    chunk: np.ndarray  # int32, the number of the track chunk
    tick: np.ndarray  # int64, from the start of the chunk
    status: np.ndarray  # uint8, running status resolved; 0x80..0xFF
    data1: np.ndarray  # uint8, first data byte, or the type of a meta event
    data2: np.ndarray  # uint8, second data byte where there is one
    payload: np.ndarray  # int64, where the payload of a meta event starts in `data`; else 0
    payload_size: np.ndarray  # int64, its size in bytes; else 0
    data: bytes  # the file

    def metas(self, kind: int) -> np.ndarray:
        """Indices of the meta events of a type, in file order, int64."""
        return np.flatnonzero((self.status == META) & (self.data1 == kind))

    def payload_of(self, index: int) -> bytes:
        """The bytes that a meta event carries."""
        start = int(self.payload[index])
        return self.data[start : start + int(self.payload_size[index])]


def read_events(data: bytes, name: str) -> Events:
    """Read all events of a Standard MIDI File.

    Only as many track chunks as the header names are read; chunks of unknown type are skipped.
    Running status holds across meta events and ends at system events.

    Args:
        data: The file.
        name: What errors call it.

    Raises:
        M4MError: Not a MIDI file, truncated, or malformed; time in SMPTE frames.
    """
    ticks_per_quarter, starts, ends = _chunks(data, name)
    raw = np.frombuffer(data, np.uint8)
    padded = np.concatenate([raw, np.full(_PAD, 0xFF, np.uint8)])
    delta_size, links = _links(padded, ends)
    nodes, counts, stops = _follow(links, starts)
    position = np.where(nodes < len(padded), nodes, nodes - len(padded))

    size = delta_size[position]
    status_at = position + size
    first = padded[status_at]
    explicit = first >= 0x80
    # Running status: the last status so far that is not a meta event's.
    index = np.arange(len(first))
    first_event = np.cumsum(counts) - counts
    source = np.maximum.accumulate(np.where(explicit & (first != META), index, 0))
    status = np.where(explicit, first, first[source])
    data_at = status_at + explicit
    data1, data2 = padded[data_at], padded[data_at + 1]
    chunk = np.repeat(np.arange(len(starts), dtype=np.int32), counts)
    _check(
        f"{name}: ",
        position=position,
        end=ends[chunk],
        data_end=data_at + np.maximum(_DATA_BYTES[status], 0),
        no_status=~explicit & ((source < first_event[chunk]) | (status < 0x80) | (status >= 0xF0)),
        bad_data=_has_bad_data(status, data1, data2),
    )
    broken = np.flatnonzero(stops != ends)
    if len(broken):
        at, end = int(stops[broken[0]]), int(ends[broken[0]])
        raise M4MError(f"{name}: {_what_is_wrong(data, at, end)}")

    clock = np.concatenate([[0], np.cumsum(_vlq(padded, position, size))])
    before = clock[first_event]
    payload, payload_size = np.zeros(len(first), np.int64), np.zeros(len(first), np.int64)
    meta = np.flatnonzero(first == META)
    length_at = status_at[meta] + 2
    length_size = delta_size[length_at]
    payload[meta] = length_at + length_size
    payload_size[meta] = _vlq(padded, length_at, length_size)
    return Events(
        ticks_per_quarter=ticks_per_quarter,
        chunks=len(starts),
        chunk=chunk,
        tick=clock[1:] - np.repeat(before, counts),
        status=status,
        data1=data1,
        data2=data2,
        payload=payload,
        payload_size=payload_size,
        data=data,
    )


def _chunks(data: bytes, name: str) -> tuple[int, np.ndarray, np.ndarray]:
    """Ticks per quarter, and where the contents of each track chunk start and end."""
    if data[:4] != b"MThd":
        raise M4MError(f"{name}: not a MIDI file (it does not start with MThd)")
    if len(data) < 14:
        raise M4MError(f"{name}: the file is truncated (it ends within its header)")
    size, kind, count, division = struct.unpack(">IHHH", data[4:14])
    if kind > 2 or size < 6:
        raise M4MError(f"{name}: not a MIDI file that can be read (its header is malformed)")
    if division & 0x8000:
        raise M4MError(f"{name}: its time is in SMPTE frames; a file in beats is needed")
    if division == 0:
        raise M4MError(f"{name}: its header says 0 ticks per quarter note")
    starts: list[int] = []
    ends: list[int] = []
    at = 8 + size
    while len(starts) < count:
        if at + 8 > len(data):
            raise M4MError(
                f"{name}: the file is truncated (its header names {count} tracks,"
                f" it holds {len(starts)})"
            )
        chunk_type, chunk_size = struct.unpack(">4sI", data[at : at + 8])
        at += 8
        if at + chunk_size > len(data):
            raise M4MError(
                f"{name}: the file is truncated (a chunk of {chunk_size} bytes"
                f" starts {len(data) - at} bytes before its end)"
            )
        if chunk_type == b"MTrk":
            starts.append(at)
            ends.append(at + chunk_size)
        at += chunk_size
    return division, np.array(starts, np.int64), np.array(ends, np.int64)


def _links(b: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every byte: the size of a number starting there, and the next event's start.

    A node is a byte's position, plus `len(b)` where an event without a status of its own has two
    data bytes and not one. What the events hold is not checked here.

    Returns:
        delta_size: uint8 [len(b)], bytes of the variable-length number there (5: no such number).
        links: int32 [2 * len(b) + 1], the node of the next event; the last index, which links to
            itself, where a chunk ends or where there is no end to an event.
    """
    size = len(b)
    none = 2 * size
    more = (b >> 7).astype(np.uint8)
    ahead = np.ones((4, size), np.uint8)
    for k in range(4):
        ahead[k, : size - k] = more[k:]
    delta_size = 1 + ahead[0] * (1 + ahead[1] * (1 + ahead[2] * (1 + ahead[3])))

    # The ends of events whose length is in the file, from where their status bytes are.
    sized = np.flatnonzero(b >= 0xF0)
    sized = sized[_DATA_BYTES[b[sized]] == -1]
    length_at = np.minimum(sized + 1 + (b[sized] == META), size - 1)
    length_size = delta_size[length_at]
    end = length_at + length_size + _vlq(b, length_at, length_size)
    fits = (length_size < 5) & (end <= size)

    # Indices of the machine's own size are taken fastest.
    position = np.arange(size)
    status_at = np.minimum(position + delta_size, size - 1)
    byte = b.astype(np.intp)
    no_number = np.flatnonzero(delta_size > 4)
    position = position.astype(np.int32)
    links = np.full(none + 1, none, np.int32)
    for running in (1, 2):
        step = 1 + _DATA_BYTES + np.where(_DATA_BYTES == 2, size, 0)
        step[_DATA_BYTES == -2] = none
        step[:0x80] = running + (size if running == 2 else 0)
        after = step.astype(np.int32).take(byte)
        after += position
        after[sized] = np.where(fits, end + (size if running == 2 else 0), none)
        np.minimum(after, none, out=after)
        table = links[(running - 1) * size : running * size]
        after.take(status_at, out=table, mode="clip")
        table[no_number] = none
        table[size - _PAD :] = none
        table[ends] = none
    return delta_size, links


def _follow(links: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Visit the events of every chunk.

    Returns:
        nodes: int64 [e], of the events that have an end.
        counts: int64 [chunks], how many of them each chunk has.
        stops: int64 [chunks], where each chunk's chain breaks off: its end if all is well.
    """
    none = len(links) - 1
    size = none // 2
    # The loop visits every fourth event; the three after each are looked up all at once.
    two = links.take(links, mode="clip")
    four = two.take(two, mode="clip")
    visited: list[int] = []
    fourths = []
    view = four.data
    visit = visited.append
    for node in starts.tolist():
        before = len(visited)
        while node != none:
            visit(node)
            node = view[node]
        fourths.append(len(visited) - before)
    first = np.array(visited, np.int64)
    nodes = np.stack([first, links[first], two[first], links[two[first]]], axis=1).ravel()
    real = nodes < none
    ends_of_chains = np.cumsum(real)[4 * np.cumsum(fourths, dtype=np.int64) - 1] - 1
    nodes = nodes[real]
    # Where a chain breaks off there is no event.
    is_event = np.ones(len(nodes), bool)
    is_event[ends_of_chains] = False
    counts = np.diff(ends_of_chains, prepend=-1) - 1
    return nodes[is_event], counts, nodes[ends_of_chains] % size


def _has_bad_data(status: np.ndarray, data1: np.ndarray, data2: np.ndarray) -> np.ndarray:
    """Which events have a data byte that is none, bool [e]."""
    data_bytes = _DATA_BYTES[status]
    return (data_bytes > 0) & (data1 >= 0x80) | (data_bytes == 2) & (data2 >= 0x80)


def _check(
    name: str,
    position: np.ndarray,
    end: np.ndarray,
    data_end: np.ndarray,
    no_status: np.ndarray,
    bad_data: np.ndarray,
) -> None:
    """Complain of the first bad event; past the end of its chunk, what was visited is none."""
    past = (position >= end) | (data_end > end)
    bad = np.flatnonzero(past | no_status | bad_data)
    if not len(bad):
        return
    first = bad[0]
    where = f"at byte {position[first]}"
    if past[first]:
        end_of_track = f"past the end of its track at byte {end[first]}"
        raise M4MError(f"{name}truncated or damaged (an event runs {end_of_track})")
    if no_status[first]:
        raise M4MError(f"{name}damaged (an event without a status {where})")
    raise M4MError(f"{name}damaged (an event with a data byte above 127 {where})")


def _what_is_wrong(data: bytes, at: int, end: int) -> str:
    """Why the event at byte `at` does not end within its chunk."""
    if at > end:
        return f"truncated or damaged (an event runs past the end of its track at byte {end})"
    status_at = at
    while status_at < end and data[status_at] >= 0x80:
        status_at += 1
    status_at += 1
    if status_at - at > 4:
        return f"damaged (a delta time of more than four bytes at byte {at})"
    if status_at < end and _DATA_BYTES[data[status_at]] == -2 and data[status_at] >= 0x80:
        return f"damaged (an undefined event, status {data[status_at]:#x}, at byte {at})"
    return f"truncated or damaged (a track ends within the event at byte {at})"


def _vlq(b: np.ndarray, at: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Values of the variable-length numbers of `size` (1..4) bytes at `at`, int64."""
    value = (b[at] & 0x7F).astype(np.int64)
    for k in range(1, 4):
        longer = np.flatnonzero(size > k)
        if not len(longer):
            break
        here = np.minimum(at[longer] + k, len(b) - 1)
        value[longer] = value[longer] * 128 + (b[here] & 0x7F)
    return value


def encode_file(ticks_per_quarter: int, tracks: list[bytes]) -> bytes:
    """A format 1 file of track chunks made by `encode_track`."""
    header = struct.pack(">4sIHHH", b"MThd", 6, 1, len(tracks), ticks_per_quarter)
    return header + b"".join(struct.pack(">4sI", b"MTrk", len(t)) + t for t in tracks)


def encode_track(head: bytes, tick: np.ndarray, message: list[bytes] | np.ndarray) -> bytes:
    """The contents of a track chunk, end mark included.

    Args:
        head: Events at tick 0, encoded with their delta times.
        tick: int [e], ascending, when each of the other events happens.
        message: The events without delta times: uint8 [e, 3], or bytes of any length.
    """
    delta = np.diff(np.asarray(tick, np.int64), prepend=0)
    if isinstance(message, np.ndarray):
        shifts = np.array([21, 14, 7, 0])
        digits = (delta[:, None] >> shifts) & 0x7F
        digits[:, :3] |= 0x80
        written = np.concatenate([digits.astype(np.uint8), message], axis=1)
        used = np.ones(written.shape, bool)
        used[:, :3] = delta[:, None] >= (1 << shifts[:3])
        body = written[used].tobytes()
    else:
        body = b"".join(encode_number(d) + m for d, m in zip(delta.tolist(), message, strict=True))
    return head + body + b"\x00\xff\x2f\x00"


def encode_number(value: int) -> bytes:
    """A variable-length number, of at most four bytes."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))


def encode_meta(kind: int, payload: bytes) -> bytes:
    """A meta event, without its delta time."""
    return bytes([META, kind]) + encode_number(len(payload)) + payload
