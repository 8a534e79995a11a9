from __future__ import annotations

import numpy as np

from m4m_jax.evaluation import sounding
from m4m_jax.music import NoteTable
from tests.evaluation.music import part


def test_pitches_that_sound():
    table = part([(0, 2, 60), (1, 9, 60), (3, 0, 127), (2, 1, 48)], 4)
    roll = sounding.pitch_roll(table.notes, 4)
    assert roll.shape == (4, 128)
    assert roll[:, 60].all()
    assert np.flatnonzero(roll[:, 127]).tolist() == [3]  # of no length
    assert np.flatnonzero(roll[:, 48]).tolist() == [2]
    assert roll.sum() == 6
    classes = sounding.class_roll(table.notes, 4)
    assert classes.sum(axis=0).tolist() == [4, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert not sounding.class_roll(part([(0, 4, 60)], 4, drum=True).notes, 4).any()


def test_from_a_step_on():
    song = part([(0, 8, 60), (2, 30, 62), (16, 4, 64), (20, 2, 65)], 24).replace(
        meters=np.array([[0, 4, 4], [8, 2, 4], [20, 3, 4]], float)
    )
    later = sounding.from_step(song, 16)
    assert later.notes[:, :3].tolist() == [[0, 16, 62], [0, 4, 64], [4, 2, 65]]
    assert later.length == 8
    assert later.meters.tolist() == [[0, 2, 4], [4, 3, 4]]
    assert later.tempos.tolist() == [[0, 120]]
    assert sounding.from_step(song, 0) == song
    assert isinstance(sounding.from_step(song, 30), NoteTable)


def test_what_begins_from_a_step_on():
    song = part([(0, 8, 60), (2, 30, 62), (16, 4, 64), (20, 2, 65)], 24)
    later = sounding.begun_from(song, 16)
    assert later.notes[:, :3].tolist() == [[0, 4, 64], [4, 2, 65]]
    assert later.length == 8
