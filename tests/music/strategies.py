"""Hypothesis strategies for note tables and rows."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from m4m_jax.music import NoteTable, Track, to_rows

NAMES = st.text(st.characters(min_codepoint=33, exclude_categories=["Cs"]), max_size=6)


@st.composite
def tables(draw, *, max_tracks: int = 4, max_notes: int = 40, max_length: int = 24) -> NoteTable:
    """Any table: overlaps, notes of no length, notes that end after the song, tracks without."""
    length = draw(st.integers(1, max_length))
    tracks = draw(
        st.lists(
            st.builds(Track, NAMES, st.sampled_from([0, 5, 126, 127]), st.booleans()),
            min_size=1,
            max_size=max_tracks,
        )
    )
    note = st.tuples(
        st.integers(0, length - 1),
        st.sampled_from([0, 0, 1, 2, 3, 5, 7, 20, 5000]),
        st.sampled_from([0, 60, 61, 127]),
        st.just(0),
        st.sampled_from([1, 8, 64, 127]),
        st.integers(0, len(tracks) - 1),
    )
    rows = draw(st.lists(note, max_size=max_notes))
    notes = np.array(rows, np.int32).reshape(-1, 6)
    notes = notes[np.argsort(notes[:, 5], kind="stable")]
    notes[:, 3] = np.array([t.note_program for t in tracks], np.int32)[notes[:, 5]]
    tempos = draw(
        st.lists(st.tuples(st.integers(0, 9600), st.integers(200_000, 2_000_000)), max_size=3)
    )
    meters = draw(st.lists(st.tuples(st.integers(0, length * 120), st.integers(1, 12)), max_size=2))
    return NoteTable(
        notes=notes,
        tracks=tuple(tracks),
        length=length,
        tempos=np.array(
            [(tick * (4 / 480), 60e6 / us) for tick, us in sorted(dict(tempos).items())]
        ).reshape(-1, 2),
        meters=np.array(
            [(tick * (4 / 480), beats, 4) for tick, beats in sorted(dict(meters).items())]
        ).reshape(-1, 3),
    )


@st.composite
def stored_rows(draw, *, velocities: tuple[int, ...] = (1, 8, 64, 127)) -> np.ndarray:
    """Rows as the codec makes them, with steps empty and full, N from 1 to 32."""
    length = draw(st.integers(1, 12))
    max_notes = draw(st.integers(1, 32))
    note = st.tuples(
        st.integers(0, length - 1),
        st.sampled_from([0, 1, 2, 5, 9, 100, 4000]),
        st.integers(0, 127),
        st.sampled_from([0, 1, 40, 127]),
        st.sampled_from(velocities),
        st.just(0),
    )
    notes = draw(st.lists(note, max_size=60))
    return to_rows(np.array(notes, np.int32).reshape(-1, 6), length, max_notes)
