"""A slow second opinion on how MIDI files become rows: mido and plain loops, one event at a time.

Shares no code with the package, so that an error in one of the two shows as a difference.
"""

from __future__ import annotations

import io
import math
import random
from collections import defaultdict
from dataclasses import dataclass

import mido

BINS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768]
BINS += [1024, 1536, 2048, 3072, 4096]


@dataclass
class Instrument:
    program: int
    is_drum: bool
    notes: list  # (start tick, end tick, pitch, velocity)


@dataclass
class Song:
    instruments: list
    length: int
    scale: float


def read(data: bytes) -> Song:
    """Instruments, in order, and length of a file."""
    midi = mido.MidiFile(file=io.BytesIO(data), clip=True)
    scale = 4 / midi.ticks_per_beat
    instruments = {}
    latest = 0
    controls = []
    for number, track in enumerate(midi.tracks):
        tick = 0
        open_notes = defaultdict(list)
        program = defaultdict(int)
        for message in track:
            tick += message.time
            kind = message.type
            if kind == "program_change":
                program[message.channel] = message.program
            elif kind == "note_on" and message.velocity > 0:
                open_notes[message.channel, message.note].append((tick, message.velocity))
            elif kind in ("note_on", "note_off"):
                key = (message.channel, message.note)
                old = [note for note in open_notes[key] if note[0] < tick]
                new = [note for note in open_notes[key] if note[0] == tick]
                for start, velocity in old:
                    which = (program[message.channel], message.channel, number)
                    if which not in instruments:
                        instruments[which] = Instrument(which[0], message.channel == 9, [])
                    instruments[which].notes.append((start, tick, message.note, velocity))
                    latest = max(latest, tick)
                open_notes[key] = new if old else []
            elif kind in ("control_change", "pitchwheel"):
                controls.append((message.channel, number, tick))
            elif kind in ("lyrics", "text") or (
                kind in ("time_signature", "key_signature") and number == 0
            ):
                latest = max(latest, tick)
    with_notes = {(channel, number) for _, channel, number in instruments}
    latest = max([latest, *(t for c, n, t in controls if (c, n) in with_notes)])
    return Song(list(instruments.values()), math.floor(latest * scale), scale)


def bin_of(duration: int) -> int:
    return min(range(len(BINS)), key=lambda b: (abs(BINS[b] - duration), b))


def chosen(song: Song, selector: str) -> list:
    """Instruments that a selector shows."""
    every = song.instruments
    if selector == "all":
        return every
    if selector in ("drum", "nondrum"):
        return [i for i in every if i.is_drum == (selector == "drum")]
    kind, k = selector.split("-")
    return {
        "track": lambda: every[int(k) : int(k) + 1],
        "upto": lambda: every[: int(k) + 1],
        "from": lambda: every[int(k) :],
        "notrack": lambda: every[: int(k)] + every[int(k) + 1 :],
    }[kind]()


def rows(song: Song, selector: str, max_notes: int, *, dedup: bool = False) -> list:
    """For each step its notes (program, pitch, bin, velocity), sorted as they are stored."""
    steps = [[] for _ in range(song.length)]
    for instrument in chosen(song, selector):
        program = 127 if instrument.is_drum else instrument.program
        for start, end, pitch, velocity in instrument.notes:
            # Python rounds halves to even.
            first, last = round(start * song.scale), round(end * song.scale)
            if first < song.length:
                steps[first].append((program, pitch, bin_of(last - first), velocity))
    if dedup:
        steps = [without_doubles(step) for step in steps]
    return [sorted(step[:max_notes], key=lambda n: (n[3], n[0], n[1], n[2])) for step in steps]


def without_doubles(step: list) -> list:
    kept = []
    for at, note in enumerate(step):
        rivals = [(n[2], -k) for k, n in enumerate(step) if n[:2] == note[:2]]
        if max(rivals) == (note[2], -at):
            kept.append(note)
    return kept


def as_bytes(steps: list, max_notes: int) -> bytes:
    """The stored rows."""
    out = bytearray()
    for step in steps:
        slots = [bytes(note) for note in step]
        if len(slots) < max_notes:
            slots.append(b"\xfe\xff\xff\xff")
        out += b"".join(slots).ljust(4 * max_notes, b"\xff")
    return bytes(out)


def random_file(seed: int, events: int = 60) -> bytes:
    """A file with everything that makes reading notes hard."""
    rng = random.Random(seed)
    tpq = rng.choice([24, 96, 120, 384, 480, 600, 840, 960, 1200, 1024])
    midi = mido.MidiFile(ticks_per_beat=tpq, type=1)
    grid = max(tpq // rng.choice([4, 8, 12, 16]), 1)
    for _ in range(rng.randint(1, 3)):
        track = mido.MidiTrack()
        channels = rng.sample(range(16), rng.randint(1, 2)) + rng.choice([[], [9]])
        pitches = rng.sample(range(128), rng.randint(1, 4))
        for _ in range(rng.randint(0, events)):
            kind = rng.choices(
                ["on", "off", "silent", "program", "control", "bend", "meta", "sysex"],
                [10, 6, 3, 1, 0.7, 0.3, 0.5, 0.1],
            )[0]
            time = rng.choice([0, 0, 0, 1, grid, grid, 2 * grid, rng.randint(0, 2 * tpq)])
            channel, pitch = rng.choice(channels), rng.choice(pitches)
            track.append(_message(rng, kind, channel, pitch, time))
        midi.tracks.append(track)
    out = io.BytesIO()
    midi.save(file=out)
    return out.getvalue()


def _message(rng, kind, channel, pitch, time):
    if kind in ("on", "silent"):
        velocity = rng.choice([1, 64, 64, 127]) if kind == "on" else 0
        return mido.Message("note_on", channel=channel, note=pitch, velocity=velocity, time=time)
    if kind == "off":
        return mido.Message("note_off", channel=channel, note=pitch, velocity=3, time=time)
    if kind == "program":
        return mido.Message(
            "program_change", channel=channel, program=rng.choice([0, 5, 127]), time=time
        )
    if kind == "control":
        return mido.Message("control_change", channel=channel, control=64, value=0, time=time)
    if kind == "bend":
        return mido.Message("pitchwheel", channel=channel, pitch=17, time=time)
    if kind == "sysex":
        return mido.Message("sysex", data=[1, 2, 3], time=time)
    name = rng.choice(["text", "lyrics", "marker", "time_signature", "key_signature", "set_tempo"])
    if name in ("text", "lyrics", "marker"):
        return mido.MetaMessage(name, text="a", time=time)
    return mido.MetaMessage(name, time=time)
