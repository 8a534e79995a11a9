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
    # 0xFF in the padding is no data byte, so that nothing valid reaches into it.
    padded = np.concatenate([raw, np.full(_PAD, 0xFF, np.uint8)])
    delta_size, links = _links(padded, ends)
    nodes, counts = _follow(links, starts, ends, len(padded), data, name)

    position = nodes % len(padded)
    status_at = position + delta_size[position]
    first = padded[status_at]
    explicit = first >= 0x80
    # Running status: the last channel status so far (every chain was checked to have one).
    channel_status = explicit & (first < 0xF0)
    index = np.arange(len(first))
    source = np.maximum.accumulate(np.where(channel_status, index, 0))
    status = np.where(explicit, first, first[source]).astype(np.uint8)
    data_at = status_at + explicit

    chunk = np.repeat(np.arange(len(starts), dtype=np.int32), counts)
    clock = np.cumsum(_vlq(padded, position, delta_size[position]))
    chunk_start = np.cumsum(counts) - counts
    before = np.concatenate([[0], clock])[chunk_start]
    payload, payload_size = np.zeros(len(first), np.int64), np.zeros(len(first), np.int64)
    meta = np.flatnonzero(first == META)
    length_at = status_at[meta] + 2
    length_size = delta_size[length_at].astype(np.int64)
    payload[meta] = length_at + length_size
    payload_size[meta] = _vlq(padded, length_at, length_size)
    return Events(
        ticks_per_quarter=ticks_per_quarter,
        chunks=len(starts),
        chunk=chunk,
        tick=clock - np.repeat(before, counts),
        status=status,
        data1=padded[data_at],
        data2=padded[data_at + 1],
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

    A node is `running * len(b) + position`, `running` being the number of data bytes that an event
    without a status of its own has (0: it may not omit its status).

    Returns:
        delta_size: uint8 [len(b)], bytes of the variable-length number there (5: no such number).
        links: int32 [3 * len(b) + 1], the node of the next event; the last index (a node without
            a link) where there is none, because a chunk ends there or no event can start there.
    """
    size = len(b)
    none = 3 * size
    data_byte = b < 0x80
    more = (~data_byte).view(np.uint8)
    ahead = [np.concatenate([more[k:], np.ones(k, np.uint8)]) for k in range(4)]
    delta_size = 1 + ahead[0] * (1 + ahead[1] * (1 + ahead[2] * (1 + ahead[3])))

    # The end of an event whose status byte is at s, and the running status after it.
    position = np.arange(size, dtype=np.int32)
    data_bytes = _DATA_BYTES[b]
    two = np.concatenate([data_byte[1:], [False]])
    three = np.concatenate([data_byte[2:], [False, False]])
    valid = (data_bytes <= 0) | (two & ((data_bytes == 1) | three))
    valid &= data_bytes != -2
    after = position + 1 + data_bytes
    state = np.where(b < 0xF0, data_bytes, 0)
    link = np.where(valid, state * size + after, none)
    sized = np.flatnonzero(data_bytes == -1)
    length_at = np.minimum(sized + 1 + (b[sized] == META), size - 1)
    length_size = delta_size[length_at]
    end = length_at + length_size + _vlq(b, length_at, length_size)
    end[(length_size > 4) | (end > size)] = none
    link[sized] = end  # as with no running status; a meta event's is corrected below
    meta = sized[b[sized] == META]

    # From an event's start: its delta time, then the status or, running, the first data byte.
    links = np.full(none + 1, none, np.int32)
    status_at = np.minimum(position + delta_size, size - 1)
    one_running = np.where(data_byte, size + position + 1, none)
    two_running = np.where(data_byte & two, 2 * size + position + 2, none)
    for running, implied in ((0, None), (1, one_running), (2, two_running)):
        table = np.where(data_byte, none, link)
        if implied is not None:
            table = np.where(data_byte, implied, link)
            table[meta] = np.where(link[meta] < none, link[meta] + running * size, none)
        links[running * size : (running + 1) * size] = table[status_at]
        links[running * size : (running + 1) * size][delta_size > 4] = none
    links[(ends + np.arange(3)[:, None] * size).ravel()] = none
    return delta_size, links


def _follow(
    links: np.ndarray, starts: np.ndarray, ends: np.ndarray, size: int, data: bytes, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Visit the events of every chunk: their nodes, int64 [e], and their number by chunk."""
    nodes: list[int] = []
    counts: list[int] = []
    none = len(links) - 1
    view = links.data
    visit = nodes.append
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        first, node = len(nodes), start
        while node != none:
            visit(node)
            node = view[node]
        running, last = divmod(nodes.pop(), size)
        if last != end:
            raise M4MError(f"{name}: {_what_is_wrong(data, running, last, end)}")
        counts.append(len(nodes) - first)
    return np.array(nodes, np.int64), np.array(counts, np.int64)


def _what_is_wrong(data: bytes, running: int, at: int, end: int) -> str:
    """Why no event starts at byte `at`, or why it does not end within its chunk."""
    if at > end:
        return f"truncated or damaged (an event runs past the end of its track at byte {end})"
    status_at = at
    while status_at < end and data[status_at] >= 0x80:
        status_at += 1
    status_at += 1
    if status_at - at > 4:
        return f"damaged (a delta time of more than four bytes at byte {at})"
    if status_at >= end:
        return f"truncated or damaged (a track ends within the event at byte {at})"
    status = data[status_at]
    if status < 0x80 and not running:
        return f"damaged (an event without a status at byte {at})"
    if _DATA_BYTES[status] == -2:
        return f"damaged (an undefined event, status {status:#x}, at byte {at})"
    return f"truncated or damaged (the event at byte {at} has no end or a data byte above 127)"


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
