"""Drums beside the song's own."""

from __future__ import annotations

import numpy as np

from m4m_jax.evaluation.general import onsets
from m4m_jax.evaluation.sounding import drums
from m4m_jax.music.labels import bar_lines
from m4m_jax.music.notes import PITCH, STEP, NoteTable

# By the percussion key map of General MIDI, level 1. All other percussion is one more group, which
# `group_f1` judges too.
GROUPS = {
    "kick": (35, 36),
    "snare": (37, 38, 39, 40),
    "hats": (42, 44, 46),
    "toms": (41, 43, 45, 47, 48, 50),
    "cymbals": (49, 51, 52, 53, 55, 57, 59),
}
_OTHER = len(GROUPS)
_GROUP = np.full(128, _OTHER)
for _number, _pitches in enumerate(GROUPS.values()):
    _GROUP[list(_pitches)] = _number


def figures(truth: NoteTable, written: NoteTable) -> dict[str, float]:
    """All of this module's figures; those that nothing can be said of are left out.

    Those of each drum by itself are called `drum_36_f1`, and so on.
    """
    own, other = drums(truth.notes), drums(written.notes)
    found = {
        "drum_f1": onset_f1(own, other),
        "group_f1": onset_f1(in_groups(own), in_groups(other)),
    }
    for number, name in enumerate(GROUPS):
        of_group = [notes[_GROUP[notes[:, PITCH]] == number] for notes in (own, other)]
        found[f"{name}_f1"] = onset_f1(*(in_groups(notes) for notes in of_group))
    found["groove_agreement"] = groove_agreement(truth, written)
    found |= {f"drum_{pitch}_f1": f1 for pitch, f1 in drum_f1(own, other).items()}
    return {name: value for name, value in found.items() if value is not None}


def drum_f1(truth: np.ndarray, written: np.ndarray) -> dict[int, float]:
    """Onset F1 of each drum that either has: pitch -> F1. Notes of drums are int32 [n, 6]."""
    found = {}
    for pitch in np.union1d(truth[:, PITCH], written[:, PITCH]).tolist():
        value = onset_f1(*(notes[notes[:, PITCH] == pitch] for notes in (truth, written)))
        if value is not None:
            found[pitch] = value
    return found


def in_groups(notes: np.ndarray) -> np.ndarray:
    """Notes int32 [n, 6] with the number of their group in the place of the pitch."""
    grouped = notes.copy()
    grouped[:, PITCH] = _GROUP[notes[:, PITCH]]
    return grouped


def onset_f1(truth: np.ndarray, written: np.ndarray) -> float | None:
    """F1 of onsets, 0 to 1: those of one step and one pitch are the same; None where none is.

    The twice counted overlap of two sets over their sizes' sum, as for the onsets of Raffel et al.,
    "mir_eval" (ISMIR 2014), `transcription`, with steps of a 16th in place of a tolerance.
    truth, written: notes int32 [n, 6]; several of one step and pitch count once.
    """
    own, other = (np.unique(notes[:, STEP] * 128 + notes[:, PITCH]) for notes in (truth, written))
    count = len(own) + len(other)
    return 2 * len(np.intersect1d(own, other)) / count if count else None


def groove_agreement(truth: NoteTable, written: NoteTable) -> float | None:
    """How alike each bar's onset pattern is to that of the truth's bar, 0 to 1; the mean over bars.

    The grooving pattern similarity of Wu and Yang, "The Jazz Transformer on the front line" (ISMIR
    2020), section 5.2, of bar k with bar k: the share of positions, 16 in a bar of 4/4, at which
    either both or none have an onset. Bars are the truth's.
    """
    if not truth.length:
        return None
    own, other = onsets(truth), onsets(written)
    same = own == np.pad(other, (0, max(len(own) - len(other), 0)))[: len(own)]
    lines = bar_lines(truth)
    return float((np.add.reduceat(same, lines[:-1], dtype=float) / np.diff(lines)).mean())
