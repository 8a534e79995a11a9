from collections import Counter

import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4m_jax.errors import M4MError
from m4m_jax.music import NoteTable, Track, midi_bytes, parse_midi, read_midi, write_midi
from tests.music import oracle
from tests.music.files import END, NOTE, midi, program, raw
from tests.music.strategies import tables

STEP = 120  # ticks


def notes_of(*events, **options):
    """(step, duration, pitch) of the notes of one track, in order."""
    return parse_midi(midi(list(events), **options), "song.mid").notes[:, :3].tolist()


def length_of(*tracks):
    return parse_midi(midi(*tracks), "song.mid").length


def test_columns():
    data = midi(
        [
            (0, mido.MetaMessage("track_name", name=" Violin ")),
            (0, program(40)),
            (120, ("on", 60, 99)),
            (240, ("off", 60)),
            (480, ("on", 62, 1)),
            (960, ("off", 62)),
        ],
        [(0, program(8, 9)), (0, ("on", 36, 50, 9)), (60, ("on", 36, 0, 9))],
    )
    table = parse_midi(data, "song.mid")
    assert table.notes.tolist() == [
        [1, 1, 60, 40, 99, 0],
        [4, 4, 62, 40, 1, 0],
        [0, 0, 36, 127, 50, 1],
    ]
    assert table.notes.dtype == np.int32
    assert table.tracks == (Track("Violin", 40), Track("", 8, is_drum=True))
    assert table.length == 8


def test_an_off_ends_every_open_note_of_its_pitch():
    assert notes_of(
        (0, ("on", 60)),
        (0, ("on", 64)),
        (120, ("on", 60)),
        (480, ("off", 60)),
        (600, ("off", 60)),
        (600, ("on", 60, 0)),
        (720, ("off", 64)),
    ) == [[0, 4, 60], [1, 3, 60], [0, 6, 64]]


def test_a_note_that_begins_where_one_ends_stays_open():
    """In whatever order the file has the two."""
    expected = [[0, 1, 60], [1, 3, 60]]
    first, last = (0, ("on", 60)), (480, ("off", 60))
    assert notes_of(first, (120, ("off", 60)), (120, ("on", 60)), last) == expected
    assert notes_of(first, (120, ("on", 60)), (120, ("off", 60)), last) == expected


def test_notes_of_no_length_vanish():
    start = (0, ("on", 60))
    assert notes_of(start, (0, ("off", 60)), (0, ("on", 62)), (120, ("off", 62))) == [[0, 1, 62]]
    # The second off finds only the note of this very tick.
    assert notes_of(
        start, (120, ("on", 60)), (120, ("off", 60)), (120, ("off", 60)), (480, ("off", 60))
    ) == [[0, 1, 60]]


def test_notes_never_ended_are_dropped():
    assert notes_of((0, ("on", 60)), (0, ("on", 62)), (120, ("off", 62))) == [[0, 1, 62]]
    with pytest.raises(M4MError, match=r"song\.mid: no notes"):
        notes_of((0, ("on", 60)))


def test_channels_and_chunks_do_not_end_each_others_notes():
    data = midi(
        [(0, ("on", 60)), (120, ("off", 60, 64, 1)), (240, ("off", 60))],
        [(0, ("on", 60)), (480, ("off", 60))],
    )
    assert parse_midi(data, "song.mid").notes[:, 1].tolist() == [2, 4]


def test_parts_are_numbered_by_their_first_ends():
    data = midi(
        [
            (0, program(1)),
            (0, ("on", 60)),
            (0, ("on", 61, 80, 1)),
            (120, ("off", 61, 80, 1)),
            (240, program(2)),  # before the end of 60: its part has program 2
            (240, ("off", 60)),
            (240, program(1)),
            (300, ("on", 62)),
            (480, ("off", 62)),
        ],
        [(0, ("on", 50)), (60, ("off", 50))],
    )
    table = parse_midi(data, "song.mid")
    assert [t.program for t in table.tracks] == [0, 2, 1, 0]
    assert table.notes[:, [2, 3, 5]].tolist() == [[61, 0, 0], [60, 2, 1], [62, 1, 2], [50, 0, 3]]


def test_notes_stand_in_the_order_in_which_they_end():
    table = notes_of(
        (0, ("on", 70)),
        (0, ("on", 60)),
        (120, ("on", 50)),
        (240, ("off", 50)),
        (240, ("off", 70)),
        (360, ("off", 60)),
    )
    assert table == [[1, 1, 50], [0, 2, 70], [0, 3, 60]]


CONTROL = mido.Message("control_change", control=64, value=0)
BASE = [(0, ("on", 60)), (480, ("off", 60))]


@pytest.mark.parametrize(
    ("message", "in_first", "in_second"),
    [
        (mido.MetaMessage("text", text="x"), 8, 8),
        (mido.MetaMessage("lyrics", text=""), 8, 8),
        (mido.MetaMessage("time_signature"), 8, 4),
        (mido.MetaMessage("key_signature"), 8, 4),
        (mido.MetaMessage("marker", text="x"), 4, 4),
        (mido.MetaMessage("set_tempo"), 4, 4),
        (CONTROL, 4, 8),
        (mido.Message("pitchwheel", pitch=1), 4, 8),
        (CONTROL.copy(channel=2), 4, 4),
        (mido.Message("aftertouch", value=1), 4, 4),
        (program(3), 4, 4),
        (("on", 62), 4, 4),
        (mido.MetaMessage("end_of_track"), 4, 4),
    ],
)
def test_what_counts_for_the_length(message, in_first, in_second):
    assert length_of([(1019, message)], BASE) == in_first
    assert length_of([], [*BASE, (1019, message)]) == in_second


def test_the_length_is_a_floor_and_later_notes_are_dropped():
    data = midi([(0, ("on", 60)), (470, ("off", 60)), (425, ("on", 62)), (475, ("off", 62))][:2])
    assert parse_midi(data, "song.mid").length == 3
    data = midi([(0, ("on", 60)), (360, ("off", 60)), (430, ("on", 62)), (470, ("off", 62))])
    table = parse_midi(data, "song.mid")
    assert table.length == 3  # 62 starts at 3.58, which rounds to 4
    assert table.notes[:, 2].tolist() == [60]
    with pytest.raises(M4MError, match="no notes"):
        parse_midi(midi([(10, ("on", 60)), (50, ("off", 60))]), "song.mid")


def test_tempo_and_metre():
    data = midi(
        [
            (0, mido.MetaMessage("set_tempo", tempo=500_000)),
            (0, mido.MetaMessage("set_tempo", tempo=600_000)),
            (0, mido.MetaMessage("time_signature", numerator=6, denominator=8)),
            (300, mido.MetaMessage("set_tempo", tempo=400_000)),
        ],
        BASE,
    )
    table = parse_midi(data, "song.mid")
    assert table.tempos.tolist() == [[0.0, 100.0], [2.5, 150.0]]
    assert table.meters.tolist() == [[0.0, 6.0, 8.0]]


def test_off_grid():
    events = []
    for k, off in enumerate([0, 14, 16, 60, -14]):
        events += [(480 * (k + 1) + off, ("on", 60)), (480 * (k + 1) + 240, ("off", 60))]
    assert parse_midi(midi(events), "song.mid").off_grid == pytest.approx(2 / 5)


def test_names():
    name = b"\x00\xff\x03\x05\xc3\xa9t\xe9\x00"  # not UTF-8, so Latin-1; ends in NUL
    table = parse_midi(raw(name + NOTE + END), "song.mid")
    assert table.tracks[0].name == "Ã©té"
    name = b"\x00\xff\x03\x02 \x00" + b"\x00\xff\x03\x03\xc3\xa9t"
    assert parse_midi(raw(name + NOTE + END), "song.mid").tracks[0].name == "ét"


def test_too_long():
    def song(steps):
        return midi([(0, ("on", 60)), (steps * STEP, ("off", 60))])

    assert parse_midi(song(100_000), "song.mid").length == 100_000
    with pytest.raises(M4MError, match=r"^song\.mid: 100,001 steps long; .*100,000"):
        parse_midi(song(100_001), "song.mid")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "not a MIDI file"),
        (raw(NOTE + END)[:-6], "truncated"),
        (raw(END), "no notes"),
        (raw(), "no notes"),
    ],
)
def test_bad_files_are_named(tmp_path, data, message):
    path = tmp_path / "song.mid"
    path.write_bytes(data)
    with pytest.raises(M4MError, match=message) as caught:
        read_midi(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_no_such_file(tmp_path):
    with pytest.raises(M4MError, match="cannot be read"):
        read_midi(tmp_path / "song.mid")
    with pytest.raises(M4MError, match="cannot be read"):
        read_midi(tmp_path)


ONE_TRACK = (Track("", 0),)


def table_of(*notes, length=16, tracks=ONE_TRACK, **facts):
    rows = np.array(notes, np.int32).reshape(-1, 6)
    return NoteTable(rows, tracks, length, **facts)


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ([16, 1, 60, 0, 64, 0], "step"),
        ([-1, 1, 60, 0, 64, 0], "step"),
        ([0, -1, 60, 0, 64, 0], "duration"),
        ([0, 1, 128, 0, 64, 0], "pitch"),
        ([0, 1, 60, 0, 0, 0], "velocity"),
        ([0, 1, 60, 0, 64, 1], "track"),
        ([0, 1, 60, 7, 64, 0], "program"),
    ],
)
def test_tables_are_checked(note, message):
    with pytest.raises(ValueError, match=message):
        table_of(note)


def test_more_checks():
    with pytest.raises(ValueError, match="track by track"):
        table_of([0, 1, 60, 0, 64, 1], [0, 1, 60, 0, 64, 0], tracks=(Track("", 0), Track("", 0)))
    with pytest.raises(ValueError, match="int32 cannot"):
        NoteTable(np.full((1, 6), 0.5), (Track("", 0),), 16)
    with pytest.raises(ValueError, match=r"must be \[n, 6\]"):
        NoteTable(np.zeros((1, 5)), (Track("", 0),), 16)
    with pytest.raises(ValueError, match="sorted"):
        table_of(tempos=[[4, 100], [0, 100]])
    with pytest.raises(ValueError, match="power of two"):
        table_of(meters=[[0, 4, 3]])
    with pytest.raises(ValueError, match="program 128"):
        Track("", 128)


def test_tables_are_values():
    one = table_of([0, 1, 60, 0, 64, 0])
    assert one == table_of([0, 1, 60, 0, 64, 0])
    assert one != one.replace(length=17)
    assert one != one.replace(tempos=[[0, 100]])
    assert one != table_of([0, 1, 60, 0, 65, 0])
    assert one != "a table"
    with pytest.raises(ValueError, match="read-only"):
        one.notes[0, 0] = 3


def test_a_table_does_not_change_with_the_array_it_was_made_of():
    notes = np.array([[0, 1, 60, 0, 64, 0]], np.int32)
    table = NoteTable(notes, (Track("", 0),), 4)
    notes[0, 2] = 61
    assert table.notes[0, 2] == 60


def test_concat():
    drums = table_of([0, 1, 36, 127, 64, 0], tracks=(Track("kit", 8, True),), length=20)
    melody = table_of([0, 1, 60, 0, 64, 1], tracks=(Track("", 5), Track("", 0)), tempos=[[0, 90.0]])
    both = NoteTable.concat([melody, drums])
    assert both.notes.tolist() == [[0, 1, 60, 0, 64, 1], [0, 1, 36, 127, 64, 2]]
    assert both.tracks == (*melody.tracks, *drums.tracks)
    assert both.length == 20
    assert both.tempos.tolist() == [[0, 90.0]]


def multiset(table):
    """(step, duration, pitch, program, is drum, velocity) of every note."""
    drums = [t.is_drum for t in table.tracks]
    return Counter((*note[:5], drums[note[5]]) for note in table.notes.tolist())


@given(tables())
def test_written_notes_are_read_back(table):
    if not len(table.notes):
        return
    again = parse_midi(midi_bytes(table), "song.mid")
    assert multiset(again) == multiset(table)
    ends = int((table.notes[:, 0] + table.notes[:, 1]).max())
    meters_end = int(table.meters[:, 0].max(initial=0))
    if max(ends - 1, meters_end) <= table.length:
        assert again.length == table.length
    assert np.array_equal(again.tempos, table.tempos)
    assert np.array_equal(again.meters, table.meters)
    assert again.off_grid == 0


@given(st.integers(0, 2**32))
def test_what_was_written_is_read_as_it_was(seed):
    """A table read from any file is, but for what the grid loses, one that a file holds exactly."""
    data = oracle.random_file(seed)
    if not any(oracle.rows(oracle.read(data), "all", 1)):
        return
    written = parse_midi(midi_bytes(parse_midi(data, "song.mid")), "song.mid")
    assert parse_midi(midi_bytes(written), "song.mid") == written


NORMAL = NoteTable(
    notes=np.array(
        [
            [0, 2, 62, 5, 80, 0],
            [0, 4, 60, 5, 80, 0],
            [1, 3, 60, 5, 81, 0],  # joins the note before, and ends with it
            [0, 4, 59, 5, 82, 0],
            [4, 0, 60, 5, 83, 0],  # of no length, where notes of its pitch have just ended
            [4, 0, 60, 5, 84, 0],
            [4, 8, 60, 5, 85, 0],
            [2, 1, 60, 127, 9, 1],
            [14, 3, 60, 127, 9, 1],  # ends a step after the song
            [0, 1, 60, 127, 10, 2],
        ]
    ),
    tracks=(Track("Flöte", 5), Track("", 127), Track("Kit", 25, is_drum=True)),
    length=16,
    tempos=np.array([[0.0, 60e6 / 500_001], [2.5, 60e6 / 400_000]]),
    meters=np.array([[0.0, 3.0, 4.0], [12.0, 6.0, 8.0]]),
)


def test_a_table_in_normal_form_is_read_as_it_was():
    assert parse_midi(midi_bytes(NORMAL), "song.mid") == NORMAL
    silence_at_the_end = NORMAL.replace(length=500)
    assert parse_midi(midi_bytes(silence_at_the_end), "song.mid") == silence_at_the_end


def test_overlaps_are_spread_over_tracks_of_one_name():
    table = table_of(
        [0, 8, 60, 3, 80, 0],
        [2, 2, 60, 3, 81, 0],
        [2, 2, 61, 3, 82, 0],
        tracks=(Track("organ", 3),),
    )
    again = parse_midi(midi_bytes(table), "song.mid")
    assert again.tracks == (Track("organ", 3), Track("organ", 3))
    assert multiset(again) == multiset(table)


def channels_of(table):
    file = oracle.io.BytesIO(midi_bytes(table))
    chunks = [[m for m in t if not m.is_meta] for t in mido.MidiFile(file=file).tracks[1:]]
    return [(c[0].program, {m.channel for m in c}) for c in chunks]


def test_parts_have_channels_of_their_own_while_there_are_enough():
    def song(programs):
        notes = [[0, 1, 60, p, 64, k] for k, p in enumerate(programs)]
        return table_of(*notes, tracks=[Track("", p) for p in programs])

    few = channels_of(song([0] * 15))
    assert len(set.union(*(c for _, c in few))) == 15
    many = channels_of(song([k % 12 for k in range(30)]))
    by_channel = {}
    for sound, channels in many:
        (channel,) = channels
        by_channel.setdefault(channel, set()).add(sound)
    assert all(len(sounds) == 1 for sounds in by_channel.values())
    assert 9 not in by_channel


def test_drums_are_on_channel_ten_with_their_kit():
    (drum,) = channels_of(table_of([0, 1, 36, 127, 64, 0], tracks=(Track("", 25, is_drum=True),)))
    assert drum == (25, {9})


def test_an_empty_table_is_a_valid_file():
    assert len(mido.MidiFile(file=oracle.io.BytesIO(midi_bytes(table_of()))).tracks) == 1


def test_write_midi(tmp_path):
    write_midi(NORMAL, tmp_path / "song.mid")
    assert [p.name for p in tmp_path.iterdir()] == ["song.mid"]
    assert read_midi(tmp_path / "song.mid") == NORMAL
    slow = NORMAL.replace(tempos=[[0, 1.0]])
    with pytest.raises(M4MError, match="no place in MIDI"):
        write_midi(slow, tmp_path / "slow.mid")
    with pytest.raises(M4MError, match="does not exist"):
        write_midi(NORMAL, tmp_path / "no" / "song.mid")
    assert [p.name for p in tmp_path.iterdir()] == ["song.mid"]
