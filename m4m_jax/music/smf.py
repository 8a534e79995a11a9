"""Standard MIDI File bytes to flat arrays of events, and back.

Follows the Standard MIDI Files 1.0 specification, formats 0, 1 and 2. An event's length depends on
its status, and a status may be implied by the event before (running status), so the start of an
event is known only once the one before is. But nearly all events have two data bytes: with the last
byte of their delta time that makes three bytes below 128, whatever else they have, so in a stretch
of such events every third of those bytes is an event's last. A loop visits the few other events
alone; then what was found is checked against the rules, all events at once.
"""

from __future__ import annotations

import functools
import struct
from bisect import bisect_left
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

# Data bytes after each status byte, or one of these two.
_IN_FILE, _UNDEFINED = -1, -2
_DATA_BYTES = np.full(256, _UNDEFINED, np.int64)
_DATA_BYTES[0x80:0xF0] = 2
_DATA_BYTES[0xC0:0xE0] = 1
_DATA_BYTES[[0xF0, 0xF7, 0xFF]] = _IN_FILE
_DATA_BYTES[[0xF1, 0xF3]] = 1
_DATA_BYTES[0xF2] = 2
_DATA_BYTES[[0xF6, 0xF8, 0xFA, 0xFB, 0xFC, 0xFE]] = 0

_KINDS: list[int] = _DATA_BYTES.tolist()
_NOT_TWO = bytes(byte >= 0x80 and kind != 2 for byte, kind in enumerate(_KINDS))

# The most bytes that a variable-length number may have.
_MOST_DIGITS = 4

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

    @functools.cached_property
    def _metas(self) -> np.ndarray:
        return np.flatnonzero(self.status == META)

    def metas(self, kind: int) -> np.ndarray:
        """Indices of the meta events of a type, in file order, int64."""
        return self._metas[self.data1[self._metas] == kind]

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
    padded = data + bytes(_PAD)
    b = np.frombuffer(padded, np.uint8)
    after = _ends_of_events(padded, b, starts, ends)
    counts = np.diff(np.searchsorted(after, ends, side="right"), prepend=0)
    first_event = np.cumsum(counts) - counts
    used = counts > 0
    position = np.concatenate([[0], after])[: len(after)]
    position[first_event[used]] = starts[used]

    delta, size = _numbers(b, position)
    status_at = position + size
    first = b[status_at]
    explicit = first >= 0x80
    status, has_status = _resolve(first, explicit, np.repeat(first_event, counts))
    data_at = status_at + explicit
    data1, data2 = b[data_at], b[data_at + 1]
    data_bytes = _DATA_BYTES[status]

    payload, payload_size = np.zeros(len(first), np.int64), np.zeros(len(first), np.int64)
    expected = data_at + data_bytes
    sized = np.flatnonzero(data_bytes == _IN_FILE)
    length_at = data_at[sized] + (status[sized] == META)
    length, length_size = _numbers(b, length_at)
    expected[sized] = length_at + length_size + length
    meta = status[sized] == META
    payload[sized[meta]] = (length_at + length_size)[meta]
    payload_size[sized[meta]] = length[meta]

    good = (size <= _MOST_DIGITS) & (expected == after) & (data_bytes != _UNDEFINED) & has_status
    good &= (data_bytes < 1) | (data1 < 0x80)
    good &= (data_bytes < 2) | (data2 < 0x80)
    good[sized] &= length_size <= _MOST_DIGITS
    last = np.where(used, np.concatenate([after, [0]])[first_event + counts - 1], starts)
    if not (good.all() and (last == ends).all()):
        raise M4MError(f"{name}: {_what_is_wrong(data, starts, ends)}")

    clock = np.concatenate([[0], np.cumsum(delta)])
    return Events(
        ticks_per_quarter=ticks_per_quarter,
        chunks=len(starts),
        chunk=np.repeat(np.arange(len(starts), dtype=np.int32), counts),
        tick=clock[1:] - np.repeat(clock[first_event], counts),
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


def _resolve(
    first: np.ndarray, explicit: np.ndarray, first_event: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Running status: that of the last event of a chunk so far that is no meta event.

    Args:
        first: uint8 [e], the byte after each event's delta time.
        explicit: bool [e], whether that is its status.
        first_event: int [e], the first event of its chunk.

    Returns:
        status: uint8 [e].
        known: bool [e], whether there is one to be taken: system events leave none.
    """
    if explicit.all():
        return first, explicit
    source = np.where(explicit & (first != META), np.arange(len(first)), 0)
    source = np.maximum.accumulate(source)
    status = np.where(explicit, first, first[source])
    return status, explicit | (source >= first_event) & (status >= 0x80) & (status < 0xF0)


class _DamageError(Exception):
    """The chunk cannot be followed to its end."""


def _ends_of_events(data: bytes, b: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Where each event of the chunks ends (one past its last byte), int64 [e], ascending.

    Right if the file is: what was found must be checked, and stops early where it is damaged.
    """
    low = np.flatnonzero(b < 0x80)
    # A status byte that is not of an event with two data bytes has been preceded in its stretch by
    # a whole number of events and one byte of its delta time: by 1 low byte modulo 3.
    other = np.flatnonzero(np.frombuffer(data.translate(_NOT_TWO), bool))
    lows = np.searchsorted(low, other)
    stops = []
    for rest in range(3):
        these = lows % 3 == rest
        stops.append((other[these].tolist(), lows[these].tolist()))
    stretches: list[np.ndarray] = []
    alone: list[int] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        try:
            _follow(data, low, stops, start, end, stretches, alone)
        except _DamageError:
            break
    is_end = np.zeros(len(b) + 1, bool)
    is_end[alone] = True
    if stretches:
        is_end[np.concatenate(stretches) + 1] = True
    return np.flatnonzero(is_end)


def _follow(
    data: bytes,
    low: np.ndarray,
    stops: list[tuple[list[int], list[int]]],
    start: int,
    end: int,
    stretches: list[np.ndarray],
    alone: list[int],
) -> None:
    """Go through a chunk, stretch by stretch.

    Args:
        data: The file, followed by low bytes.
        low: int64 [l], where bytes below 128 are.
        stops: For each number of low bytes before it modulo 3, where bytes are that may be the
            status of other events than those with two data bytes, and the low bytes before them.
        start, end: Of the chunk.
        stretches: Where the last bytes are of a stretch's events is added to it, int64 each.
        alone: The ends of the other events are added to it.

    Raises:
        _DamageError: An event cannot be told from what follows it.
    """
    view, at, running = low.data, start, 0
    done = bisect_left(view, at)  # low bytes before `at`
    while at < end:
        status_at = at + 1 if data[at] < 0x80 else _after_number(data, at)
        status = data[status_at]
        data_at = status_at + (status >= 0x80)
        if status < 0x80:
            status = running
        kind = _KINDS[status]
        if kind == 2:
            running = status
            places, lows = stops[(done + 1) % 3]
            index = bisect_left(places, status_at)
            if index < len(places) and places[index] < end:
                before, at = lows[index] - 1, places[index] - 1
                while data[at - 1] >= 0x80 and at > data_at:
                    at -= 1
            else:
                before, at = bisect_left(view, end), end
            stretches.append(low[done + 2 : before : 3])
            done = before
            continue
        if kind == 1:
            running = status
            at = data_at + 1
            done += 2
        else:
            start = at
            at = _after_payload(data, data_at + (status == META)) if kind < 0 else data_at
            if kind == _UNDEFINED:
                raise _DamageError
            running = running if status == META else 0
            done = bisect_left(view, at, done, min(done + at - start, len(low)))
        if at > end:
            raise _DamageError
        alone.append(at)


def _after_number(data: bytes, at: int) -> int:
    """One past the variable-length number at `at`."""
    after = at
    while data[after] >= 0x80:
        after += 1
    if after - at >= _MOST_DIGITS:
        raise _DamageError
    return after + 1


def _after_payload(data: bytes, at: int) -> int:
    """One past the bytes whose number stands at `at`."""
    length = data[at]
    if length < 0x80:
        return at + 1 + length
    after, length = _after_number(data, at), 0
    for digit in data[at:after]:
        length = length * 128 + (digit & 0x7F)
    return after + length


def _what_is_wrong(data: bytes, starts: np.ndarray, ends: np.ndarray) -> str:
    """The first fault of chunks that hold one, found event by event."""
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        at, running = start, 0
        while at < end:
            at, running, fault = _step(data, at, end, running)
            if fault:
                return fault
    raise AssertionError("the events are as they should be")


def _step(data: bytes, at: int, end: int, running: int) -> tuple[int, int, str]:
    """Where the event at byte `at` ends, the running status then, and what is wrong with it."""
    cut = f"truncated or damaged (a track ends within the event at byte {at})"
    past = f"truncated or damaged (an event runs past the end of its track at byte {end})"
    _, status_at = _number(data, at, end)
    if status_at - at > _MOST_DIGITS:
        return end, 0, f"damaged (a delta time of more than four bytes at byte {at})"
    if status_at >= end:
        return end, 0, cut
    status, data_at = data[status_at], status_at + 1
    if status < 0x80:
        if not running:
            return end, 0, f"damaged (an event without a status at byte {at})"
        status, data_at = running, status_at
    kind = _KINDS[status]
    if kind == _UNDEFINED:
        return end, 0, f"damaged (an undefined event, status {status:#x}, at byte {at})"
    if kind == _IN_FILE:
        length, payload = _number(data, data_at + (status == META), end)
        after = payload + length
        if payload > end or after > len(data):
            return end, 0, cut
    else:
        after = data_at + kind
        if any(byte >= 0x80 for byte in data[data_at : min(after, end)]):
            return end, 0, f"damaged (an event with a data byte above 127 at byte {at})"
    if after > end:
        return end, 0, past
    if status != META:
        running = status if status < 0xF0 else 0
    return after, running, ""


def _number(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The variable-length number at `at` and where it ends: past `end` if it does not before."""
    value = 0
    for after in range(at, end):
        value = value * 128 + (data[after] & 0x7F)
        if data[after] < 0x80:
            return value, after + 1
    return value, end + 1


def _numbers(b: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The variable-length numbers at some places.

    Returns:
        value: int64, of its first four bytes at the most.
        size: int64, its bytes; 5 where it has more than four.
    """
    byte = b[at]
    value, size = (byte & 0x7F).astype(np.int64), np.ones(len(at), np.int64)
    longer = np.flatnonzero(byte >= 0x80)
    for k in range(1, _MOST_DIGITS):
        if not len(longer):
            break
        byte = b[at[longer] + k]
        value[longer] = value[longer] * 128 + (byte & 0x7F)
        size[longer] = k + 1
        longer = longer[byte >= 0x80]
    size[longer] = _MOST_DIGITS + 1
    return value, size


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
