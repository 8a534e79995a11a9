"""MIDI files for the tests, written event by event."""

from __future__ import annotations

import io
import struct

import mido


def midi(*tracks: list, tpq: int = 480, kind: int = 1) -> bytes:
    """A file of tracks, each a list of (tick, message) or of messages without a time of their own.

    A message is a mido message, or a tuple ("on" | "off", pitch[, velocity[, channel]]).
    """
    out = mido.MidiFile(ticks_per_beat=tpq, type=kind)
    for track in tracks:
        chunk, last = mido.MidiTrack(), 0
        for tick, event in track:
            chunk.append(_message(event).copy(time=tick - last))
            last = tick
        out.tracks.append(chunk)
    stream = io.BytesIO()
    out.save(file=stream)
    return stream.getvalue()


def _message(event):
    if not isinstance(event, tuple):
        return event
    kind, pitch, *rest = event
    velocity = rest[0] if rest else 80
    channel = rest[1] if len(rest) > 1 else 0
    return mido.Message(f"note_{kind}", note=pitch, velocity=velocity, channel=channel)


def program(number: int, channel: int = 0) -> mido.Message:
    return mido.Message("program_change", program=number, channel=channel)


def raw(*chunks: bytes, division: int = 480, named: int | None = None, kind: int = 1) -> bytes:
    """A file of the given track contents."""
    header = struct.pack(
        ">4sIHHH", b"MThd", 6, kind, len(chunks) if named is None else named, division
    )
    return header + b"".join(struct.pack(">4sI", b"MTrk", len(c)) + c for c in chunks)


# One quarter note of middle C, and the end mark.
NOTE = bytes.fromhex("00 90 3c 50  83 60 80 3c 40")
END = bytes.fromhex("00 ff 2f 00")
