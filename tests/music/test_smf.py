import re
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4m_jax.errors import M4MError
from m4m_jax.music import smf
from tests.music.files import END, NOTE, raw

GOOD = raw(NOTE + END)


def test_events_of_all_kinds():
    contents = bytes.fromhex(
        "00 ff 03 02 41 42"  # name "AB"
        "00 c3 07"  # program
        "81 00 93 3c 50"  # note on after 128 ticks
        "0a 3e 51"  # running status
        "00 f0 03 01 02 f7"  # system exclusive
        "00 ff 51 03 07 a1 20"  # tempo
        "ff 7f b3 40 00"  # controller after 16383 ticks
        "00 e3 00 40"  # bend
    )
    events = smf.read_events(raw(contents + END, NOTE + END), "song.mid")
    assert events.ticks_per_quarter == 480
    assert events.chunks == 2
    assert events.chunk.tolist() == [0] * 9 + [1] * 3
    assert events.status.tolist() == [
        *(0xFF, 0xC3, 0x93, 0x93, 0xF0, 0xFF, 0xB3, 0xE3, 0xFF),
        *(0x90, 0x80, 0xFF),
    ]
    assert events.tick.tolist() == [0, 0, 128, 138, 138, 138, 16521, 16521, 16521, 0, 480, 480]
    assert events.data1[[1, 2, 3, 6]].tolist() == [7, 0x3C, 0x3E, 0x40]
    assert events.data2[[2, 3]].tolist() == [0x50, 0x51]
    assert events.payload_of(0) == b"AB"
    assert events.metas(smf.META_TEMPO).tolist() == [5]
    assert events.payload_of(5) == bytes.fromhex("07a120")


def test_running_status_holds_across_meta_events():
    contents = bytes.fromhex("00 c0 05  00 ff 01 00  00 06  00 ff 01 01 41  05 07")
    events = smf.read_events(raw(contents + END), "song.mid")
    assert events.status[[2, 4]].tolist() == [0xC0, 0xC0]
    assert events.data1[[0, 2, 4]].tolist() == [5, 6, 7]


def test_only_the_chunks_that_the_header_names_are_read():
    data = raw(NOTE + END, NOTE + END, named=1)
    assert smf.read_events(data, "song.mid").chunks == 1


def test_unknown_chunks_are_skipped():
    data = raw(NOTE + END, NOTE + END)
    other = struct.pack(">4sI", b"XFIH", 5) + b"hello"
    data = data[:14] + other + data[14:]
    assert smf.read_events(data, "song.mid").chunks == 2


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_formats(kind):
    assert len(smf.read_events(raw(NOTE + END, kind=kind), "song.mid").tick) == 3


def test_no_tracks():
    assert smf.read_events(raw(), "song.mid").chunks == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a MIDI file"),
        (b"RIFF" + GOOD, "not a MIDI file"),
        (GOOD[:10], "truncated"),
        (GOOD[:17], "truncated"),
        (GOOD[:-1], "truncated"),
        (GOOD[:14], "truncated"),
        (raw(NOTE + END, division=0xE728), "SMPTE"),
        (raw(NOTE + END, division=0), "0 ticks"),
        (raw(NOTE, kind=3), "not a MIDI file"),
        (raw(NOTE + b"\x00\x90\x3c\x80" + END), "data byte above 127 at byte 31"),
        (raw(NOTE + b"\x00\xc0\xff" + END), "data byte above 127 at byte 31"),
        (raw(b"\x00\x3c\x50" + END), "without a status at byte 22"),
        (raw(b"\x00\xff\x01\x00\x00\x3c\x50" + END), "without a status"),
        (raw(b"\x00\x90\x3c\x50\x00\xf0\x01\xf7\x00\x3c\x00" + END), "without a status"),
        (raw(NOTE, b"\x00\x3c\x50" + END), "without a status"),
        (raw(NOTE + b"\x00\xf4" + END), "undefined event"),
        (raw(NOTE + b"\x81\x82\x83\x84\x05\x90\x3c\x50" + END), "more than four bytes"),
        (raw(NOTE + b"\x00\x90\x3c"), "past the end|within the event"),
        (raw(NOTE + b"\x00\x90\x3c", NOTE + END), "past the end"),
        (raw(NOTE + b"\x00"), "within the event"),
        (raw(NOTE + b"\x81"), "within the event"),
        (raw(NOTE + b"\x00\xff\x01\x7fabc"), "within the event"),
        (raw(NOTE + b"\x00\xff\x01\x7fabc", NOTE * 20), "past the end"),
    ],
)
def test_bad_files(data, message):
    with pytest.raises(M4MError, match=message) as caught:
        smf.read_events(data, "song.mid")
    assert str(caught.value).startswith("song.mid: ")
    assert "\n" not in str(caught.value)


def test_damage_never_crashes():
    """Whatever byte is changed or wherever the file is cut: events, or the error for users."""
    rng = np.random.default_rng(0)
    good = np.frombuffer(raw(NOTE * 3 + b"\x00\xff\x03\x02AB" + END, NOTE + END), np.uint8)
    for _ in range(1000):
        bad = good.copy()
        bad[rng.integers(len(bad), size=2)] = rng.integers(256, size=2)
        data = bad[: rng.integers(len(bad)) + 1].tobytes()
        try:
            events = smf.read_events(data, "song.mid")
        except M4MError:
            continue
        assert (events.tick >= 0).all()
        assert (events.status >= 0x80).all()


DELTAS = st.sampled_from([0, 1, 127, 128, 16383, 16384, 2097151, 2097152])
DATA = st.integers(0, 127)
LONG = st.binary(max_size=300).map(lambda x: smf.encode_number(len(x)) + x)
STATUS_OF = {
    st.sampled_from([0x80, 0x91, 0xA2, 0xBF, 0xE0]): st.tuples(DATA, DATA).map(bytes),
    st.sampled_from([0xC0, 0xC9, 0xD3]): st.tuples(DATA).map(bytes),
    st.sampled_from([0xF0, 0xF7]): LONG,
    st.just(0xFF): st.tuples(st.integers(0, 255).map(lambda x: bytes([x])), LONG).map(b"".join),
    st.sampled_from([0xF1, 0xF3]): st.tuples(DATA).map(bytes),
    st.just(0xF2): st.tuples(DATA, DATA).map(bytes),
    st.sampled_from([0xF6, 0xF8, 0xFE]): st.just(b""),
}
EVENTS = st.one_of([st.tuples(DELTAS, status, data) for status, data in STATUS_OF.items()])


@given(st.lists(st.lists(st.tuples(EVENTS, st.booleans()), max_size=30), max_size=4))
def test_any_events_are_read_back(chunks):
    """Events of all kinds in any order, with running status wherever it may stand."""
    contents, expected = [], []
    for number, events in enumerate(chunks):
        written, tick, running = b"", 0, None
        for (delta, status, data), short in events:
            tick += delta
            left_out = short and status == running
            written += smf.encode_number(delta) + (b"" if left_out else bytes([status])) + data
            if status != smf.META:
                running = status if status < 0xF0 else None
            expected.append((number, tick, status, data))
        contents.append(written)
    events = smf.read_events(raw(*contents), "song.mid")
    found = zip(events.chunk.tolist(), events.tick.tolist(), events.status.tolist(), strict=True)
    assert list(found) == [event[:3] for event in expected]
    for index, (*_, status, data) in enumerate(expected):
        if status == smf.META:
            assert events.data1[index] == data[0]
            assert data.endswith(events.payload_of(index))
        elif status < 0xF0:
            assert bytes([events.data1[index], events.data2[index]]).startswith(data)


@given(st.lists(EVENTS, min_size=1, max_size=12), st.data())
def test_damage_is_found(events, data):
    """A file is read, or the first fault is named: never anything between."""
    good = b"".join(smf.encode_number(d) + bytes([s]) + x for d, s, x in events)
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(bad) - 1))
        bad[place] = data.draw(st.sampled_from([0, 60, 0x80, 0x90, 0xC0, 0xF0, 0xF2, 0xF4, 0xFF]))
    bad = bad[: data.draw(st.integers(0, len(bad)))]
    for chunks in ([bytes(bad), NOTE + END], [NOTE + END, bytes(bad)]):
        try:
            events = smf.read_events(raw(*chunks), "song.mid")
        except M4MError as error:
            message = str(error)
        else:
            assert events.tick[events.chunk == chunks.index(NOTE + END)].tolist() == [0, 480, 480]
            continue
        assert re.match("song.mid: (truncated or )?damaged [(]", message)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16383, 16384, 2097151, 2097152, 0x0FFFFFFF])
def test_written_numbers_are_read_back(value):
    head = b"\x00\x90\x3c\x50"
    by_rows = smf.encode_track(head, np.array([value]), np.array([[0x80, 60, 64]], np.uint8))
    by_bytes = smf.encode_track(head, np.array([value]), [b"\x80\x3c\x40"])
    assert by_rows == by_bytes
    events = smf.read_events(smf.encode_file(480, [by_rows]), "song.mid")
    assert events.tick.tolist() == [0, value, value]
