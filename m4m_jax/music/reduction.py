"""Harmonic reduction: what sounds in each quarter note of a song, and chords to write there."""

from __future__ import annotations

import numpy as np

from m4m_jax.music.grid import STEPS_PER_QUARTER
from m4m_jax.music.notes import (
    DRUM_PROGRAM,
    DURATION,
    PITCH,
    PROGRAM,
    STEP,
    TRACK,
    VELOCITY,
    NoteTable,
    Track,
)
from m4m_jax.music.sounding import SILENT, counted, sounding

_PIANO = Track("piano", 0)
_LOUDNESS = 90
_BASS, _CHORD = 36, 60  # the C of the bass's octave, and of the others'
_SHARES = 12  # a pitch class is as strong as so many shares of what sounds are its own,
_STRONGEST = 4  # up to so many


def harmony_by_quarter(notes: np.ndarray, length: int) -> np.ndarray:
    """The harmony of a song, quarter by quarter: its bass and its pitch classes.

    A harmony looks alike so, whatever plays it and on however many octaves, and a small model that
    has read pianos hears it in songs of bands. Drums are left out. On each quarter in which
    anything sounds, all of it is struck at once. A pitch class, in the octave from 60 on, is as
    strong as its part of all the steps of all notes in the quarter, counted in twelfths, up to 4;
    with half a twelfth or less it is left out. The bass, in the octave from 36 on, is the pitch
    class that is the lowest for most steps of the quarter, and as strong as these are many; of two,
    it is the lower. Strength is told by length, a quarter for each, so that none is lost where a
    stream is compressed by up to 4.

    Args:
        notes: int32 [n, 6], columns as in NoteTable.notes; a note of no length has 1 step.
        length: steps of the song, T; notes end with it.

    Returns:
        int32 [m, 6], by step, the bass first, then by strength, so that a step that has too many
        notes keeps these; all of program 0, equally loud, in track 0, of 4, 8, 12 or 16 steps, even
        past the song's end.
    """
    notes = notes[notes[:, PROGRAM] != DRUM_PROGRAM]
    number, step, lowest = sounding(notes, length)
    quarters = -(-length // STEPS_PER_QUARTER)
    steps = np.zeros((quarters, 12), np.int64)
    lows = np.zeros((quarters, 12), np.int64)
    deepest = np.full((quarters, 12), SILENT)
    np.add.at(steps, (step // STEPS_PER_QUARTER, notes[number, PITCH] % 12), 1)
    heard = np.flatnonzero(lowest < SILENT)
    place, low = (heard // STEPS_PER_QUARTER, lowest[heard] % 12), lowest[heard]
    np.add.at(lows, place, 1)
    np.minimum.at(deepest, place, low)

    total = steps.sum(axis=1, keepdims=True)  # [Q, 1]
    strength = np.rint(_SHARES * steps / total.clip(1)).astype(np.int64)
    strength = strength.clip(max=_STRONGEST)
    quarter, tone = np.nonzero(strength)
    sounds = np.flatnonzero(total)
    # The most steps count first, then the lower pitch.
    bass = (lows * 2 * SILENT - deepest)[sounds].argmax(axis=1)
    return _sorted(
        np.concatenate(
            [
                _rows(sounds, lows[sounds, bass], _BASS + bass),
                _rows(quarter, strength[quarter, tone], _CHORD + tone),
            ]
        )
    )


def moved_within_octaves(reduced: np.ndarray, semitones: int) -> np.ndarray:
    """The reduction [m, 6] of a song that is moved in pitch, from that of the song."""
    moved = reduced.copy()
    octave = np.where(reduced[:, PITCH] < _CHORD, _BASS, _CHORD)
    moved[:, PITCH] = octave + (reduced[:, PITCH] + semitones) % 12
    return _sorted(moved)


def reduced(table: NoteTable) -> NoteTable:
    """A song's `harmony_by_quarter`, its only track."""
    notes = harmony_by_quarter(table.notes, table.length)
    return table.replace(notes=notes, tracks=(_PIANO,))


def struck(table: NoteTable) -> NoteTable:
    """The music with its pitched notes struck anew on each quarter that they ring on.

    A chord that is written so is decided on in each quarter, and not once for as long as it lasts.
    """
    notes = table.notes
    pitched = notes[:, PROGRAM] != DRUM_PROGRAM
    return _with(table, [notes[~pitched], _struck(notes[pitched], table.length)])


def tied(table: NoteTable) -> NoteTable:
    """The music with equal chords that follow each other tied, as they were before `struck`.

    Pitched notes of a track that start together are a chord, and equal are those whose pitches
    are. They are tied where all notes of the first end as the next begins. So are chords that the
    music repeats, which cannot be told from those that were struck anew.
    """
    notes = table.notes
    pitched = notes[:, PROGRAM] != DRUM_PROGRAM
    tracks = [notes[pitched & (notes[:, TRACK] == k)] for k in np.unique(notes[pitched, TRACK])]
    return _with(table, [notes[~pitched], *map(_tied, tracks)])


def _with(table: NoteTable, parts: list[np.ndarray]) -> NoteTable:
    """The table with the notes of these parts, [n, 6] each, in its order: by track and by end."""
    notes = np.concatenate(parts)
    ends = notes[:, STEP] + notes[:, DURATION]
    return table.replace(notes=notes[np.lexsort((ends, notes[:, TRACK]))])


def _rows(quarter: np.ndarray, strength: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Notes int32 [n, 6] of a reduction, of three columns [n]."""
    rows = np.zeros((len(quarter), 6), np.int32)
    rows[:, STEP] = quarter * STEPS_PER_QUARTER
    rows[:, DURATION] = strength * STEPS_PER_QUARTER
    rows[:, PITCH] = pitch
    rows[:, PROGRAM], rows[:, VELOCITY] = _PIANO.program, _LOUDNESS
    return rows


def _sorted(reduced: np.ndarray) -> np.ndarray:
    """The notes of a reduction [m, 6] by step, the bass first, then the longest, then by pitch."""
    pitch = reduced[:, PITCH]
    return reduced[np.lexsort((pitch, -reduced[:, DURATION], pitch >= _CHORD, reduced[:, STEP]))]


def _struck(notes: np.ndarray, length: int) -> np.ndarray:
    """Notes [n, 6], cut at the quarters -> [m, 6], m >= n, none past `length`."""
    end = np.minimum(notes[:, STEP] + notes[:, DURATION].clip(1), length)
    first, last = notes[:, STEP] // STEPS_PER_QUARTER, (end - 1) // STEPS_PER_QUARTER
    number, each = counted(last - first + 1)
    struck, line = notes[number], (first[number] + each) * STEPS_PER_QUARTER
    struck[:, STEP] = np.maximum(struck[:, STEP], line)
    struck[:, DURATION] = np.minimum(end[number], line + STEPS_PER_QUARTER) - struck[:, STEP]
    return struck


def _tied(notes: np.ndarray) -> np.ndarray:
    """Chords [n, 6] of one track, tied where they are equal -> [m, 6]."""
    notes = notes[np.lexsort((notes[:, PITCH], notes[:, STEP]))]
    bounds = np.flatnonzero(np.diff(notes[:, STEP], prepend=-1))
    chords: list[np.ndarray] = []
    for chord in np.split(notes, bounds[1:]):
        last = chords[-1] if chords else notes[:0]
        if (
            np.array_equal(last[:, [PITCH, PROGRAM]], chord[:, [PITCH, PROGRAM]])
            and (last[:, STEP] + last[:, DURATION] == chord[0, STEP]).all()
        ):
            last[:, DURATION] += chord[:, DURATION]
        else:
            chords.append(chord)
    return np.concatenate(chords)
