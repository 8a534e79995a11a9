"""Figures of any part by itself; a model's part and the song's own should be alike in them.

Dong et al., "MusPy: a toolkit for symbolic music generation" (ISMIR 2020), section 5, has the
definitions, on notes and beats; here they are on notes and steps of a 16th.
"""

from __future__ import annotations

import numpy as np

from m4m_jax.evaluation.sounding import begun_from, from_step, pitch_roll, pitched
from m4m_jax.music.labels import bar_lines
from m4m_jax.music.notes import PITCH, STEP, NoteTable

_MAJOR = np.isin(np.arange(12), (0, 2, 4, 5, 7, 9, 11))
# [12, 12]: the pitch classes of each major scale, which are those of its relative minor scale.
_SCALES = np.stack([np.roll(_MAJOR, root) for root in range(12)])


def figures(table: NoteTable, skip: int = 0) -> dict[str, float]:
    """All of this module's figures of a part; what it has too few notes for is left out.

    table: the part's notes, with the song's length and meters. skip: steps at the beginning that
    are not judged. Notes that ring on from there sound, but are not counted.
    """
    sounding, begun = from_step(table, skip), begun_from(table, skip)
    found = {
        "note_density": note_density(begun),
        "empty_steps": empty_steps(sounding),
        "polyphony": polyphony(sounding),
        "pitch_range": pitch_range(sounding),
        "pitch_class_entropy": pitch_class_entropy(begun),
        "scale_consistency": scale_consistency(begun),
        "groove_similarity": groove_similarity(begun),
    }
    return {name: value for name, value in found.items() if value is not None}


def note_density(table: NoteTable) -> float | None:
    """Notes a step; None for a table without steps."""
    return len(table.notes) / table.length if table.length else None


def empty_steps(table: NoteTable) -> float | None:
    """Share of the steps at which no note sounds; as MusPy's `empty_beat_rate`, on steps."""
    sounds = pitch_roll(table.notes, table.length).any(axis=1)
    return float(1 - sounds.mean()) if table.length else None


def polyphony(table: NoteTable) -> float | None:
    """Pitches that sound at once, the mean over steps at which any does.

    As MusPy's `polyphony`, which leaves drums out; here they count.
    """
    count = pitch_roll(table.notes, table.length).sum(axis=1)
    return float(count[count > 0].mean()) if count.any() else None


def pitch_range(table: NoteTable) -> float | None:
    """Semitones from the lowest note to the highest, drums aside; MusPy's `pitch_range`."""
    pitch = pitched(table.notes)[:, PITCH]
    return float(pitch.max() - pitch.min()) if len(pitch) else None


def _class_shares(table: NoteTable) -> np.ndarray | None:
    """The share of each pitch class among the notes, drums aside, [12]."""
    count = np.bincount(pitched(table.notes)[:, PITCH] % 12, minlength=12)
    return count / count.sum() if count.any() else None


def pitch_class_entropy(table: NoteTable) -> float | None:
    """Shannon entropy in bits of the notes' pitch classes, drums aside: 0 to 3.58.

    Wu and Yang, "The Jazz Transformer on the front line" (ISMIR 2020), over the whole part, as
    MusPy's `pitch_class_entropy`.
    """
    shares = _class_shares(table)
    if shares is None:
        return None
    used = shares[shares > 0]
    return float(abs((used * np.log2(used)).sum()))


def scale_consistency(table: NoteTable) -> float | None:
    """Share of the notes, drums aside, in that major or minor scale that holds the most of them.

    Mogren, "C-RNN-GAN" (2016), as MusPy's `scale_consistency`; minor is natural minor.
    """
    shares = _class_shares(table)
    return None if shares is None else float((_SCALES @ shares).max())


def groove_similarity(table: NoteTable) -> float | None:
    """How alike the bars' onset patterns are, 0 to 1: the mean over all pairs of bars.

    Wu and Yang, "The Jazz Transformer on the front line" (ISMIR 2020), section 5.2: the grooving
    pattern of a bar says at which positions notes begin, and the similarity of two bars is the
    share of positions at which they agree. Here a bar of 4/4 has 16 positions, and only bars of
    equal length are paired; None where there are no two, or no notes. (MusPy's `groove_consistency`
    takes neighbouring bars only.)
    """
    if not len(table.notes):
        return None
    onset = onsets(table)
    lines = bar_lines(table)
    starts, lengths = lines[:-1], np.diff(lines)
    agreeing = pairs = 0.0
    for length in np.unique(lengths).tolist():
        bars = onset[starts[lengths == length, None] + np.arange(length)]  # [bars, positions]
        count, hits = len(bars), bars.sum(axis=0)
        differing = (hits * (count - hits)).sum() / length
        pairs += count * (count - 1) / 2
        agreeing += count * (count - 1) / 2 - differing
    return float(agreeing / pairs) if pairs else None


def onsets(table: NoteTable) -> np.ndarray:
    """At which steps notes begin, bool [length]."""
    return np.bincount(table.notes[:, STEP], minlength=table.length) > 0
