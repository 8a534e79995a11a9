from __future__ import annotations

import mir_eval
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m4m_jax.errors import M4MError
from m4m_jax.music import NoteTable, Track, read_midi, write_midi
from m4m_jax.music import labels as lb
from m4m_jax.music.labels import Chord, Label

SHORTHANDS = sorted(lb._SHORTHANDS)
# As annotators write them.
WRITTEN = (
    *("C", "Db:maj", "F#:min7/b7", "A:maj(*3)", "Fb:min(*b3,*5)", "B:sus4(b7,9)/7", "G:7(13)"),
    *("E:maj/2", "C#:sus2(4)", "D:min(2)", "Bb:maj(#9)", "C:7(b2)", "Cb:maj6(4)/3", "G:(1,5,9)"),
    *("A#:hdim7/b5", "E:min7(4)", "Ab:(3)/6", "D:1", "D:5/5", "G##:dim7"),
)


def song(length=64, tempos=((0, 120),), meters=((0, 4, 4),)) -> NoteTable:
    return NoteTable(
        np.array([[0, 4, 60, 3, 80, 0]], np.int32),
        (Track("piano", 3),),
        length,
        np.array(tempos, np.float64).reshape(-1, 2),
        np.array(meters, np.float64).reshape(-1, 3),
    )


def pitches_at(table, step):
    on = table.notes[table.notes[:, 0] == step]
    return on[:, [1, 2]].tolist()


@pytest.mark.parametrize(
    ("label", "chord"),
    [
        ("C", Chord(0, (0, 4, 7))),
        ("Eb:min7/b3", Chord(3, (0, 3, 7, 10), 3)),
        ("G:sus4(b7)", Chord(7, (0, 5, 7, 10))),
        ("F#:maj(*3)", Chord(6, (0, 7))),
        ("B:9", Chord(11, (0, 2, 4, 7, 10))),
        ("D:(1,5,9)", Chord(2, (0, 2, 7))),
        ("Cb", Chord(11, (0, 4, 7))),
        ("A:maj/2", Chord(9, (0, 4, 7), 2)),
        ("N", None),
        ("X", None),
    ],
)
def test_labels_to_chords(label, chord):
    assert lb.parse_chord(label) == chord


@pytest.mark.parametrize(
    "label",
    [
        "",
        "H:maj",
        "C:",
        "C:/3",
        "Cmaj",
        "C:foo",
        "C:min(",
        "C:(0)",
        "C:maj(14)",
        "C/b",
        "n",
        "C:b9",
    ],
)
def test_what_is_no_chord(label):
    with pytest.raises(M4MError, match="no chord") as error:
        lb.parse_chord(label)
    assert repr(label) in str(error.value)


@pytest.mark.parametrize("label", [*WRITTEN, *(f"E:{name}" for name in SHORTHANDS)])
def test_chords_are_those_of_mir_eval(label):
    chord = lb.parse_chord(label)
    # Two that it takes for labels, and cannot encode.
    label = label.replace("maj11", "maj9(11)").replace("aug7", "aug(b7)")
    root, bitmap, bass = mir_eval.chord.encode(label, reduce_extended_chords=True)
    # It counts the bass as a tone.
    assert (chord.root, chord.bass) == (root, bass)
    assert {*chord.tones, chord.bass} == set(np.flatnonzero(bitmap).tolist())


def test_a_chord_is_written_close_above_its_bass():
    assert lb.chord_pitches(lb.parse_chord("C")) == [48, 52, 55]
    assert lb.chord_pitches(lb.parse_chord("C/3")) == [52, 55, 60]
    assert lb.chord_pitches(lb.parse_chord("B:min7")) == [59, 62, 66, 69]
    assert lb.chord_pitches(lb.parse_chord("C/b7")) == [58, 60, 64, 67]
    assert lb.chord_pitches(lb.parse_chord("A:1")) == [57]


@pytest.mark.parametrize("label", [label for label in WRITTEN if "/" not in label])
def test_a_name_has_the_tones_of_what_sounds(label):
    chord = lb.parse_chord(label)
    again = lb.parse_chord(lb.name_chord(lb.chord_pitches(chord)))
    assert lb.chord_pitches(again) == lb.chord_pitches(chord)


@given(st.sets(st.integers(0, 127), max_size=8))
def test_every_chord_has_a_name(pitches):
    label = lb.name_chord(pitches)
    chord = lb.parse_chord(label)
    if not pitches:
        assert label == "N"
        return
    classes = {(chord.root + tone) % 12 for tone in chord.tones}
    assert classes == {pitch % 12 for pitch in pitches}
    assert (chord.root + chord.bass) % 12 == min(pitches) % 12


@given(st.sets(st.integers(0, 127), max_size=8))
def test_mir_eval_knows_every_name(pitches):
    mir_eval.chord.encode(lb.name_chord(pitches), reduce_extended_chords=True)


@pytest.mark.parametrize("name", sorted(lb._NAMED_TONES))
def test_names_are_the_plain_ones(name):
    assert lb.name_chord(lb.chord_pitches(lb.parse_chord(f"D:{name}"))) == f"D:{name}"


def test_names_of_inversions_and_of_what_has_none():
    assert lb.name_chord([52, 55, 60]) == "C:maj/3"
    assert lb.name_chord([48, 52, 55, 57]) == "C:maj6"
    assert lb.name_chord([52, 55, 57, 60]) == "A:min7/5"
    assert lb.name_chord([60, 61, 62]) == "C:(1,b2,2)"


def test_lab_files(tmp_path):
    path = tmp_path / "song.lab"
    path.write_text("0.000\t0.000\tN\n0 1.5 C:maj\n\n1.5 2.25\tG:7/3  \n2.249 9 N")
    labels = lb.read_lab(path)
    assert labels == [
        Label(0, 0, "N"),
        Label(0, 1.5, "C:maj"),
        Label(1.5, 2.25, "G:7/3"),
        Label(2.249, 9, "N"),
    ]
    lb.write_lab(labels, tmp_path / "again.lab")
    assert lb.read_lab(tmp_path / "again.lab") == labels


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0 1 C\n1 two C", "line 2 is not a start"),
        ("0 1", "line 1 is not"),
        ("0 1 C minor", "line 1 is not"),
        ("1 0 C", "line 1 is not"),
        ("nan 1 C", "line 1 is not"),
        ("0 inf C", "line 1 is not"),
        ("0 2 C\n1 3 C", "line 2 begins before"),
        ("0 1 C\n\n1 2 Q:maj", "line 3: no chord 'Q:maj'"),
        ("\n", "no labels"),
    ],
)
def test_what_is_no_lab_file(tmp_path, text, wanted):
    path = tmp_path / "song.lab"
    path.write_text(text)
    with pytest.raises(M4MError, match=wanted) as error:
        lb.read_lab(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_lab_file_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.lab").write_bytes(b"0 1 C\xe9")
    for name in ("missing.lab", "latin.lab"):
        with pytest.raises(M4MError, match="cannot be read"):
            lb.read_lab(tmp_path / name)


def test_the_clock_follows_the_tempos():
    table = song(tempos=((8, 60), (16, 240)))
    # 120 a minute up to step 8: 1/8 s a step; then 1/4 s, then 1/16 s.
    steps = np.array([0, 8, 12, 16, 32, -8])
    seconds = np.array([0, 1, 2, 3, 4, -1])
    assert lb.seconds_at(table, steps).tolist() == seconds.tolist()
    assert lb.steps_at(table, seconds).tolist() == steps.tolist()
    assert lb.seconds_at(song(tempos=()), np.array([4])).tolist() == [0.5]


@given(
    st.lists(st.tuples(st.floats(0, 500), st.floats(20, 300)), max_size=6),
    st.lists(st.floats(0, 600), max_size=6),
)
def test_the_clock_runs_back(tempos, steps):
    table = song(tempos=sorted(dict(tempos).items()))
    again = lb.steps_at(table, lb.seconds_at(table, np.array(steps)))
    np.testing.assert_allclose(again, steps, atol=1e-6)


def test_chords_as_notes():
    labels = [
        Label(0, 1, "N"),
        Label(1, 2.05, "C:maj"),  # 8.4 steps long
        Label(2.05, 2.06, "D:maj"),
        Label(2.06, 3, "X"),
        Label(3, 100, "A:min/b3"),
        Label(100, 101, "G"),
    ]
    table, left_out = lb.chords_to_notes(labels, song(length=64))
    assert pitches_at(table, 8) == [[8, 48], [8, 52], [8, 55]]
    assert pitches_at(table, 24) == [[40, 48], [40, 52], [40, 57]]
    assert len(table.notes) == 6
    assert set(table.notes[:, 3]) == {0}
    assert table.tracks == (Track("chords", 0),)
    assert left_out == {
        "shorter than a step": [labels[2]],
        "unknown": [labels[3]],
        "after the end of the song": [labels[5]],
    }


def test_chords_come_back_from_their_notes(tmp_path):
    base = song(length=64, tempos=((0, 100), (20, 133)))
    steps = np.array([0, 4, 16, 17, 30, 64])
    times = lb.seconds_at(base, steps).tolist()
    texts = ["N", "C:maj", "E:min7/5", "N", "F#:hdim7"]
    labels = [Label(times[k], times[k + 1], text) for k, text in enumerate(texts)]
    table, left_out = lb.chords_to_notes(labels, base)
    assert not left_out
    found = lb.notes_to_chords(table.notes, base)
    assert [label.text for label in found] == texts
    np.testing.assert_allclose([f[:2] for f in found], [f[:2] for f in labels])
    write_midi(table, tmp_path / "chords.mid")
    assert np.array_equal(read_midi(tmp_path / "chords.mid").notes, table.notes)


def test_no_notes_are_no_chord():
    assert lb.notes_to_chords(np.zeros((0, 6), np.int32), song(length=8)) == [Label(0, 1, "N")]


def test_beats_of_common_time():
    table = lb.beats_to_notes(song(length=30))
    assert pitches_at(table, 0) == [[2, 35], [2, 42]]
    assert pitches_at(table, 8) == [[2, 38], [2, 42]]
    assert pitches_at(table, 16) == [[2, 35], [2, 42]]
    assert pitches_at(table, 24) == [[2, 38], [2, 42]]
    assert sorted(set(table.notes[:, 0].tolist())) == list(range(0, 30, 2))
    assert (table.notes[:, 2] == 42).sum() == 15
    assert table.tracks == (Track("beats", 0, is_drum=True),)


def test_beats_follow_the_meters():
    meters = ((4, 3, 4), (16, 6, 8), (28, 7, 16), (42, 4, 4))
    table = lb.beats_to_notes(song(length=60, meters=meters))
    on = {p: table.notes[table.notes[:, 2] == p, 0].tolist() for p in (35, 38, 42)}
    assert on[35] == [0, 4, 16, 28, 35, 42, 58]
    assert on[38] == [50]
    # A bar of seven sixteenths has an eighth on its last, too.
    assert on[42] == [*range(0, 28, 2), 28, 30, 32, 34, 35, 37, 39, 41, *range(42, 60, 2)]


@pytest.mark.parametrize(
    ("meters", "lines"), [((), [0, 16, 32, 40]), (((0, 3, 4), (24, 6, 8)), [0, 12, 24, 36, 40])]
)
def test_bar_lines(meters, lines):
    assert lb.bar_lines(song(length=40, meters=meters)).tolist() == lines


def test_a_meter_past_the_end_is_never_reached():
    table = lb.beats_to_notes(song(length=16, meters=((0, 4, 4), (32, 3, 4))))
    assert table.notes[:, 0].max() == 14
    assert len(lb.beats_to_notes(song(length=16, meters=())).notes) == 10


def test_beats_come_back_from_their_notes():
    meters = ((0, 4, 4), (32, 3, 4), (56, 5, 8))
    steps, numbers = lb.notes_to_beats(lb.beats_to_notes(song(length=66, meters=meters)).notes)
    assert steps.tolist() == [*range(0, 56, 4), 56, 60, 64]
    assert numbers.tolist() == [1, 2, 3, 4] * 2 + [1, 2, 3] * 2 + [1, 2, 3]


def test_beats_before_the_first_downbeat_have_no_number():
    table = lb.beats_to_notes(song(length=16))
    later = table.notes[(table.notes[:, 2] != lb.DOWNBEAT) & (table.notes[:, 0] >= 2)].copy()
    later[-1, 2] = lb.DOWNBEAT  # on the last eighth
    steps, numbers = lb.notes_to_beats(later)
    assert steps.tolist() == [2, 6, 10, 14]
    assert numbers.tolist() == [0, 0, 0, 1]
    without = later[later[:, 2] == lb.EIGHTH]
    assert lb.notes_to_beats(without)[0].tolist() == [2, 6, 10]
    assert lb.notes_to_beats(without[:0])[0].shape == (0,)
