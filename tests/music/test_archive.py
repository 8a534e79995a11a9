"""Rows that the reference implementation stored, of songs that M4M_MIDI_ARCHIVE holds.

The variable names a folder with the songs under the names of `golden/frames.json`.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from m4m_jax.music import midi_bytes, parse_midi, pitch_shift_range, read_midi, select, to_rows
from tests.music import oracle

GOLDEN = Path(__file__).parent / "golden"
SONGS = json.loads((GOLDEN / "frames.json").read_text())


def rows_of(table, song):
    rows = [
        to_rows(
            select(table, view).notes, table.length, song["max_notes"], dedup=song["dedup"]
        ).reshape(table.length, -1)
        for view in song["views"]
    ]
    return np.concatenate(rows, axis=1)


@pytest.mark.parametrize("song", SONGS, ids=lambda song: song["file"])
def test_stored_rows(song):
    path = Path(os.environ["M4M_MIDI_ARCHIVE"]) / song["file"]
    table = read_midi(path)
    with np.load(GOLDEN / "frames.npz") as stored:
        expected = stored[song["key"]]
    assert rows_of(table, song).shape == expected.shape
    assert (rows_of(table, song) == expected).all()
    assert list(pitch_shift_range(table.notes)) == song["pitch_shift"]
    written = parse_midi(midi_bytes(table), "written")
    assert (rows_of(written, song) == expected).all()
    second = oracle.read(path.read_bytes())
    for k, view in enumerate(song["views"]):
        steps = oracle.rows(second, view, song["max_notes"], dedup=song["dedup"])
        width = 4 * song["max_notes"]
        part = expected[:, k * width : (k + 1) * width]
        assert oracle.as_bytes(steps, song["max_notes"]) == part.tobytes()
