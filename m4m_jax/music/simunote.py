"""The simu-note codec: notes <-> rows of a step <-> tokens.

The representation of the paper "Versatile Symbolic Music-for-Music Modeling via Function Alignment"
(ISMIR 2025). A song is a sequence of steps (sixteenth notes); a step is a row of at most N notes
that start there; a note is two tokens.

- Row: N slots of 4 bytes (program, pitch, duration bin, velocity), sorted by velocity, then
  program, pitch and bin. Unused bytes are 255, and the first unused slot has program 254, the end
  mark; a full row has none.
- Tokens: each note's two tokens, then EOS, then PAD up to 2N; a full row has no EOS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from m4m_jax.errors import M4MError
from m4m_jax.music import grid
from m4m_jax.music.notes import (
    DRUM_PROGRAM,
    DURATION,
    PITCH,
    PROGRAM,
    STEP,
    NoteTable,
    Track,
)
from m4m_jax.music.notes import VELOCITY as VELOCITY_COLUMN

UNUSED = 255
END = 254
MAX_NOTES = 16  # N of most models
BINS = len(grid.DURATION_BINS)

# The velocity of notes decoded from tokens that carry none.
DEFAULT_VELOCITY = 90


@dataclass(frozen=True)
class Vocabulary:
    """How notes become token ids.

    A note's first token is `program + 128 * (velocity // 8)` (velocity 0 without `velocity`), its
    second `128 * (bin + bin_offset) + pitch`.

    Attributes:
        name: "plain" or "velocity".
        velocity: Whether the first token carries the velocity, in 16 levels.
        bin_offset: Where the second tokens start, in units of 128.
        sos: Start of a step; the local encoder's first token. EOS and PAD follow it.
    """

    name: str
    velocity: bool
    bin_offset: int
    sos: int

    @property
    def eos(self) -> int:
        """End of a step that is not full."""
        return self.sos + 1

    @property
    def pad(self) -> int:
        """Fills a step after its EOS."""
        return self.sos + 2

    @property
    def size(self) -> int:
        """Number of token ids."""
        return self.sos + 3

    @property
    def program_range(self) -> range:
        """Ids of first tokens (program, and velocity level)."""
        return range(128 * (16 if self.velocity else 1))

    @property
    def pitch_range(self) -> range:
        """Ids of second tokens (duration bin and pitch)."""
        return range(128 * self.bin_offset, 128 * (self.bin_offset + BINS))


PLAIN = Vocabulary("plain", velocity=False, bin_offset=1, sos=3328)
VELOCITY = Vocabulary("velocity", velocity=True, bin_offset=16, sos=5120)
_VOCABULARIES = {v.name: v for v in (PLAIN, VELOCITY)}


def by_name(name: str) -> Vocabulary:
    """The vocabulary "plain" or "velocity".

    Raises:
        M4MError: There is no such vocabulary.
    """
    if name not in _VOCABULARIES:
        raise M4MError(f"no vocabulary {name!r}; there are {', '.join(_VOCABULARIES)}")
    return _VOCABULARIES[name]


def to_rows(notes: np.ndarray, length: int, max_notes: int, *, dedup: bool = False) -> np.ndarray:
    """Encode notes as rows.

    A step keeps the first `max_notes` of its notes in the order given.

    Args:
        notes: int [n, 6], columns as in NoteTable.notes.
        length: Number of steps T; every note starts before it.
        max_notes: Notes a step holds, N.
        dedup: Of notes equal in program, step and pitch, keep only the one with the longest
            duration bin (the first, where bins are equal).

    Returns:
        uint8 [T, N, 4].
    """
    step, slot, *fields = _ordered(notes, length, max_notes, dedup)
    rows = np.full((length, max_notes, 4), UNUSED, np.uint8)
    rows[step, slot] = np.stack(fields, axis=1)
    used = np.bincount(step, minlength=length)
    short = np.flatnonzero(used < max_notes)
    rows[short, used[short], 0] = END
    return rows


def encode(
    notes: np.ndarray,
    length: int,
    max_notes: int,
    vocabulary: Vocabulary = PLAIN,
    *,
    dedup: bool = False,
    ratio: int = 1,
) -> np.ndarray:
    """Encode notes as token ids at once: `to_tokens(compress_rows(to_rows(...), ratio))`.

    Args:
        notes: int [n, 6], columns as in NoteTable.notes.
        length: Number of steps T; every note starts before it.
        max_notes: Notes a step holds, N.
        vocabulary: PLAIN or VELOCITY.
        dedup: As for `to_rows`.
        ratio: r, how many steps become one; see `compression`.

    Returns:
        int32 [ceil(T / r), 2N].
    """
    if ratio > 1:
        notes = notes[notes[:, STEP] % ratio == 0]
    step, slot, program, pitch, duration_bin, velocity = _ordered(notes, length, max_notes, dedup)
    step, length = step // ratio, -(-length // ratio)
    duration_bin = grid.coarser_bin(duration_bin, ratio)
    tokens = np.full((length, max_notes, 2), vocabulary.pad, np.int32)
    first = program + 128 * (velocity // 8) if vocabulary.velocity else program
    tokens[step, slot, 0] = first
    tokens[step, slot, 1] = 128 * (duration_bin + vocabulary.bin_offset) + pitch
    used = np.bincount(step, minlength=length)
    short = np.flatnonzero(used < max_notes)
    tokens[short, used[short], 0] = vocabulary.eos
    return tokens.reshape(length, 2 * max_notes)


def _ordered(notes: np.ndarray, length: int, max_notes: int, dedup: bool) -> list[np.ndarray]:
    """The notes of rows, in their order: step, slot, program, pitch, bin, velocity, each [m]."""
    notes = np.asarray(notes, np.int64)
    if len(notes) and not 0 <= notes[:, STEP].min() <= notes[:, STEP].max() < length:
        raise ValueError(f"notes start outside the {length} steps")
    step, program, pitch, velocity, duration = notes.T[
        [STEP, PROGRAM, PITCH, VELOCITY_COLUMN, DURATION]
    ]
    duration_bin = grid.duration_to_bin(duration)
    # One integer holds a note, so that sorting integers sorts notes.
    packed = step << 28 | velocity << 21 | program << 14 | pitch << 7 | duration_bin
    if dedup:
        kept = _longest(step, program, pitch, duration_bin)
        step, packed = step[kept], packed[kept]
    if len(step) and np.bincount(step).max() > max_notes:
        packed = packed[_first_of_each(step, max_notes)]
    packed = np.sort(packed)
    step = packed >> 28
    fields = (packed >> bits & 127 for bits in (14, 7, 0, 21))
    return [step, _place(step), *fields]


def _place(sorted_steps: np.ndarray) -> np.ndarray:
    """The place of each note within its step, for steps in ascending order."""
    number = np.arange(len(sorted_steps))
    begins = np.concatenate([[True], np.diff(sorted_steps) != 0])[: len(number)]
    return number - np.maximum.accumulate(np.where(begins, number, 0))


def _first_of_each(step: np.ndarray, count: int) -> np.ndarray:
    """Indices of the first `count` notes of each step, in order of step."""
    order = np.argsort(step, kind="stable")
    return order[_place(step[order]) < count]


def _longest(
    step: np.ndarray, program: np.ndarray, pitch: np.ndarray, duration_bin: np.ndarray
) -> np.ndarray:
    """Indices, ascending, of the notes that "dedup" keeps."""
    key = step << 14 | program << 7 | pitch
    order = np.argsort(key << 5 | (BINS - 1 - duration_bin), kind="stable")
    first = np.concatenate([[True], np.diff(key[order]) != 0])[: len(key)]
    return np.sort(order[first])


def check_rows(rows: np.ndarray) -> np.ndarray:
    """Count each row's notes.

    Args:
        rows: [T, N, 4].

    Returns:
        int64 [T].

    Raises:
        M4MError: A row is malformed: bytes out of range, no end mark after the last note, or
            anything after the end mark. The message names the first such step.
    """
    rows = np.asarray(rows)
    if rows.ndim != 3 or rows.shape[2] != 4:
        raise M4MError(f"rows must have the shape [steps, notes, 4], not {list(rows.shape)}")
    is_note = (rows <= np.array([127, 127, BINS - 1, 127])).all(-1) & (rows >= 0).all(-1)
    is_end = (rows == np.array([END, UNUSED, UNUSED, UNUSED])).all(-1)
    is_unused = (rows == UNUSED).all(-1)
    count = np.cumprod(is_note, axis=1).sum(axis=1, dtype=np.int64)
    slot = np.arange(rows.shape[1])[None, :]
    end = count[:, None]
    good = (is_note & (slot < end)) | (is_end & (slot == end)) | (is_unused & (slot > end))
    bad = np.flatnonzero(~good.all(axis=1))
    if len(bad):
        at = int(bad[0])
        place = int(np.flatnonzero(~good[at])[0])
        raise M4MError(f"malformed row at step {at}: slot {place} is {rows[at, place].tolist()}")
    return count


def from_rows(rows: np.ndarray, *, name: str = "") -> NoteTable:
    """Decode rows to notes: one track per program, in ascending order; program 127 is drums.

    Durations are those of the bins.

    Args:
        rows: uint8 [T, N, 4].
        name: Name of every track.

    Returns:
        A table of T steps, whose notes stand track by track in the order in which they end.

    Raises:
        M4MError: A row is malformed (see `check_rows`), or a velocity is 0.
    """
    count = check_rows(rows)
    used = np.arange(rows.shape[1])[None, :] < count[:, None]
    step = np.repeat(np.arange(len(rows)), count)
    program, pitch, duration_bin, velocity = rows[used].astype(np.int64).T
    silent = np.flatnonzero(velocity == 0)
    if len(silent):
        raise M4MError(f"malformed row at step {step[silent[0]]}: a note of velocity 0")
    duration = grid.bin_to_duration(duration_bin).astype(np.int64)
    programs, track = np.unique(program, return_inverse=True)
    notes = np.stack([step, duration, pitch, program, velocity, track], axis=1)
    order = np.lexsort((step + duration, track))
    tracks = tuple(
        Track(name, 0, is_drum=True) if p == DRUM_PROGRAM else Track(name, p)
        for p in programs.tolist()
    )
    return NoteTable(notes[order].astype(np.int32), tracks, len(rows))


def to_tokens(rows: np.ndarray, vocabulary: Vocabulary = PLAIN) -> np.ndarray:
    """Encode rows as token ids.

    Args:
        rows: uint8 [T, N, 4].
        vocabulary: PLAIN or VELOCITY.

    Returns:
        int32 [T, 2N].

    Raises:
        M4MError: A row is malformed.
    """
    count = check_rows(rows)
    T, N, _ = np.shape(rows)
    program, pitch, duration_bin, velocity = np.moveaxis(np.asarray(rows, np.int32), -1, 0)
    first = program + 128 * (velocity // 8) if vocabulary.velocity else program
    second = 128 * (duration_bin + vocabulary.bin_offset) + pitch
    tokens = np.stack([first, second], axis=-1).reshape(T, 2 * N)
    place = np.arange(2 * N)[None, :]
    end = 2 * count[:, None]
    tokens[place > end] = vocabulary.pad
    tokens[place == end] = vocabulary.eos
    return tokens


def from_tokens(
    tokens: np.ndarray, vocabulary: Vocabulary = PLAIN, *, velocity: int = DEFAULT_VELOCITY
) -> np.ndarray:
    """Decode token ids to rows.

    A level of 8 velocities is decoded to its middle. Notes come back in the order of their tokens.

    Args:
        tokens: int [T, 2N].
        vocabulary: The one that they were encoded with.
        velocity: 1..127, of every note, where the vocabulary carries none.

    Returns:
        uint8 [T, N, 4].

    Raises:
        M4MError: A step is malformed: not pairs of a first and a second token, then EOS, then only
            PAD. The message names the first such step.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 2 or tokens.shape[1] % 2:
        raise M4MError(f"tokens must have the shape [steps, 2 * notes], not {list(tokens.shape)}")
    T, width = tokens.shape
    pairs = tokens.reshape(T, width // 2, 2).astype(np.int64)
    first, second = pairs[..., 0], pairs[..., 1]
    programs, pitches = vocabulary.program_range, vocabulary.pitch_range
    is_note = (programs.start <= first) & (first < programs.stop)
    is_note &= (pitches.start <= second) & (second < pitches.stop)
    count = np.cumprod(is_note, axis=1).sum(axis=1)
    place, end = np.arange(width)[None, :], 2 * count[:, None]
    good = (place < end) | (tokens == np.where(place == end, vocabulary.eos, vocabulary.pad))
    bad = np.flatnonzero(~good.all(axis=1))
    if len(bad):
        at = int(bad[0])
        where = int(np.flatnonzero(~good[at])[0])
        raise M4MError(f"malformed tokens at step {at}: {int(tokens[at, where])} at place {where}")
    level = first // 128 * 8 + 4 if vocabulary.velocity else np.full_like(first, velocity)
    columns = [first % 128, second % 128, second // 128 - vocabulary.bin_offset, level]
    rows = np.stack(columns, axis=-1)
    slot = np.arange(width // 2)[None, :]
    rows[slot >= count[:, None]] = UNUSED
    short = np.flatnonzero(count < width // 2)
    rows[short, count[short], 0] = END
    return rows.astype(np.uint8)


def pitch_shift_range(notes: np.ndarray) -> tuple[int, int]:
    """Semitones by which a song's pitched notes can move: (-lowest, 127 - highest).

    Args:
        notes: int [n, 6], columns as in NoteTable.notes; program 127 counts as drums, which do not
            move.

    Returns:
        The lowest and highest shift; (0, 0) where nothing can move.
    """
    notes = np.asarray(notes)
    pitch = notes[notes[:, PROGRAM] != DRUM_PROGRAM, PITCH]
    if not len(pitch):
        return 0, 0
    return -int(pitch.min()), 127 - int(pitch.max())


def shift_rows(rows: np.ndarray, semitones: int) -> np.ndarray:
    """Move the pitched notes of rows; drums stay.

    Args:
        rows: uint8 [..., 4].
        semitones: Up if positive.

    Returns:
        uint8, same shape. Rows stay sorted where they were, since all pitched notes move alike.

    Raises:
        M4MError: A note would leave 0..127.
    """
    rows = np.asarray(rows)
    pitched = rows[..., 0] < DRUM_PROGRAM
    pitch = rows[..., 1].astype(np.int64) + np.where(pitched, semitones, 0)
    _check_shift(pitch[pitched], semitones)
    shifted = rows.copy()
    shifted[..., 1] = pitch
    return shifted


def shift_tokens(tokens: np.ndarray, semitones: int, vocabulary: Vocabulary = PLAIN) -> np.ndarray:
    """Move the pitched notes of tokens; drums stay.

    Args:
        tokens: int [..., 2N].
        semitones: Up if positive.
        vocabulary: The one that they were encoded with.

    Returns:
        Same shape and dtype.

    Raises:
        M4MError: A note would leave 0..127.
    """
    tokens = np.asarray(tokens)
    first, second = tokens[..., ::2], tokens[..., 1::2]
    pitched = (first < vocabulary.program_range.stop) & (first % 128 != DRUM_PROGRAM)
    _check_shift(second[pitched] % 128 + semitones, semitones)
    shifted = tokens.copy()
    shifted[..., 1::2] += np.where(pitched, semitones, 0).astype(tokens.dtype)
    return shifted


def _check_shift(pitch: np.ndarray, semitones: int) -> None:
    if len(pitch) and not 0 <= pitch.min() <= pitch.max() <= 127:
        raise M4MError(f"a shift of {semitones} semitones moves notes out of the range 0..127")
