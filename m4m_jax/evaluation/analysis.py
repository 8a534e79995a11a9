"""Beats and downbeats of an analysis, beside the song's own.

An analysis has its beats as drums (`m4m_jax.music.labels.beats_to_notes`): pitch 42 on every
eighth, 35 on each downbeat.
"""

from __future__ import annotations

import mir_eval
import numpy as np

from m4m_jax.evaluation.sounding import drums
from m4m_jax.music.labels import DOWNBEAT, notes_to_beats, seconds_at
from m4m_jax.music.notes import PITCH, STEP, NoteTable


def figures(truth: NoteTable, written: NoteTable) -> dict[str, float]:
    """F-measures of beats and downbeats; those that the truth has none of are left out.

    mir_eval's `beat.f_measure` (Raffel et al., ISMIR 2014; Dixon, 2007): within 70 ms, on the
    truth's clock, from the song's beginning on.
    """
    found = {}
    for name, steps_of in (("beat_f", beat_steps), ("downbeat_f", downbeat_steps)):
        own, other = (seconds_at(truth, steps_of(t.notes)) for t in (truth, written))
        if len(own):
            found[name] = float(mir_eval.beat.f_measure(own, other)) if len(other) else 0.0
    return found


def downbeat_steps(notes: np.ndarray) -> np.ndarray:
    """Where the downbeats of notes int32 [n, 6] are: steps, ascending, none twice."""
    beats = drums(notes)
    return np.unique(beats[beats[:, PITCH] == DOWNBEAT, STEP])


def beat_steps(notes: np.ndarray) -> np.ndarray:
    """Where the beats of notes int32 [n, 6] are; see `notes_to_beats`."""
    return notes_to_beats(notes)[0]
