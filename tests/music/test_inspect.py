import numpy as np
import pytest

from m4m_jax.errors import M4MError
from m4m_jax.music import NoteTable, Track, inspect, select, to_rows, to_tokens, write_midi
from m4m_jax.music.simunote import VELOCITY
from tests.music.files import END, NOTE, midi, raw

SONG = NoteTable(
    np.array(
        [
            [0, 2, 72, 73, 80, 0],
            [2, 2, 76, 73, 80, 0],
            [0, 4, 48, 0, 60, 1],
            [0, 4, 48, 0, 60, 1],
            [0, 1, 36, 127, 99, 2],
        ]
    ),
    (Track("Solo", 73), Track("", 0), Track("Kit", 25, is_drum=True)),
    8,
)


@pytest.fixture
def path(tmp_path):
    write_midi(SONG, tmp_path / "song.mid")
    return tmp_path / "song.mid"


def test_describe_tracks():
    flute, piano, kit = inspect.describe_tracks(SONG)
    assert (flute.selector, flute.name, flute.program) == ("track-0", "Solo", 73)
    assert flute.instrument == "Flute"
    assert (flute.notes, flute.lowest, flute.highest) == (2, 72, 76)
    assert piano.instrument == "Acoustic Grand Piano"
    assert (kit.instrument, kit.program, kit.is_drum, kit.notes) == ("Drums", 25, True, 1)
    silent = inspect.describe_tracks(select(SONG, "track-0"))[1]
    assert (silent.notes, silent.lowest, silent.highest) == (0, None, None)


def test_off_grid_warning():
    assert inspect.off_grid_warning(SONG.replace(off_grid=0.4)) is None
    warning = inspect.off_grid_warning(SONG.replace(off_grid=0.41))
    assert "41%" in warning
    assert "beats are probably wrong" in warning
    assert "\n" not in warning


@pytest.mark.parametrize("vocabulary", ["plain", "velocity"])
def test_tokenize_file(path, tmp_path, vocabulary):
    out = tmp_path / "out.npz"
    inspect.tokenize_file(path, "track-1", "solo", 4, True, vocabulary, out)
    with np.load(out) as arrays:
        found = dict(arrays)
    assert set(found) == {
        *("reference", "target", "reference_rows", "target_rows", "pitch_shift_range"),
    }
    rows = to_rows(SONG.notes[2:3], 8, 4)
    assert (found["reference_rows"] == rows).all()
    assert (found["target_rows"] == to_rows(SONG.notes[:2], 8, 4)).all()
    assert found["target_rows"].dtype == np.uint8
    assert found["target_rows"].shape == (8, 4, 4)
    ids = {"plain": to_tokens(rows), "velocity": to_tokens(rows, VELOCITY)}[vocabulary]
    assert (found["reference"] == ids).all()
    assert found["reference"].dtype == np.int32
    assert found["pitch_shift_range"].tolist() == [-48, 51]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.npz", "song.mid"]


def test_without_dedup(path, tmp_path):
    inspect.tokenize_file(path, "track-1", "track-0", 4, False, "plain", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["reference_rows"][0, :3, 0].tolist() == [0, 0, 254]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reference": "track-3"}, "no part 'track-3'.*track-2 .Kit. .drums."),
        ({"target": "viola"}, "no part 'viola'"),
        ({"target": "upto-9"}, "no part 'upto-9'"),
        ({"max_notes": 0}, "at least 1"),
        ({"vocabulary": "loud"}, "no vocabulary"),
        ({"out": "no/out.npz"}, "does not exist"),
    ],
)
def test_mistakes(path, tmp_path, changed, message):
    good = {"reference": "track-1", "target": "track-0", "max_notes": 4, "vocabulary": "plain"}
    arguments = {**good, "out": "out.npz", "dedup": False, **changed}
    arguments["out"] = tmp_path / arguments["out"]
    with pytest.raises(M4MError, match=message) as caught:
        inspect.tokenize_file(path, **arguments)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["song.mid"]


LONG = midi([(0, ("on", 60)), (120 * 100_001, ("off", 60))])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"RIFFxxxx", "not a MIDI file"),
        (raw(NOTE + END)[:-9], "truncated"),
        (raw(END), "no notes"),
        (LONG, "100,001 steps long"),
        (raw(NOTE + END), "the part 'drum' is empty"),
    ],
)
def test_bad_songs(tmp_path, data, message):
    path = tmp_path / "song.mid"
    path.write_bytes(data)
    with pytest.raises(M4MError, match=message) as caught:
        inspect.tokenize_file(path, "all", "drum", 4, False, "plain", tmp_path / "out.npz")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["song.mid"]


def test_an_empty_reference_can_be_asked_for(path, tmp_path):
    inspect.tokenize_file(path, "empty", "all", 4, False, "plain", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as arrays:
        assert (arrays["reference"][:, 0] == 3329).all()
