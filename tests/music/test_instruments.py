"""Names of instruments."""

import pytest

from m4m_jax.errors import M4MError
from m4m_jax.music.instruments import INSTRUMENTS, parse_programs


def test_every_program_has_a_name_of_its_own():
    assert len(INSTRUMENTS) == len(set(INSTRUMENTS)) == 128


@pytest.mark.parametrize(
    ("program", "name"),
    [
        (0, "Acoustic Grand Piano"),
        (8, "Celesta"),
        (16, "Drawbar Organ"),
        (24, "Acoustic Guitar (nylon)"),
        (32, "Acoustic Bass"),
        (40, "Violin"),
        (48, "String Ensemble 1"),
        (56, "Trumpet"),
        (64, "Soprano Sax"),
        (72, "Piccolo"),
        (80, "Lead 1 (square)"),
        (88, "Pad 1 (new age)"),
        (96, "FX 1 (rain)"),
        (104, "Sitar"),
        (112, "Tinkle Bell"),
        (120, "Guitar Fret Noise"),
        (127, "Gunshot"),
    ],
)
def test_each_family_of_eight_begins_where_general_midi_says(program, name):
    assert INSTRUMENTS[program] == name


def test_programs_as_text():
    assert parse_programs("0, 24,127") == [0, 24, 127]
    with pytest.raises(M4MError, match="'0;3' are not numbers"):
        parse_programs("0;3")
    with pytest.raises(M4MError, match=r"program 128 is not in 0\.\.127"):
        parse_programs("128")
