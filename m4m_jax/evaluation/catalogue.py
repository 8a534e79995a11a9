"""What figures are called, and which way they are good.

What each of them is, and whose definition, is said by the function that computes it and by
docs/evaluation.md.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Good = Literal["high", "low", "as truth"]


class Metric(NamedTuple):
    """One figure.

    Attributes:
        name: in `report.json`.
        title: in tables.
        good: whether more is better, less is, or what is near the truth's own value.
        about: what it is, in a few words.
    """

    name: str
    title: str
    good: Good
    about: str


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("nll_token", "NLL a token", "low", "nats, under the model, given the reference"),
        Metric("nll_step", "NLL a step", "low", "nats, under the model, given the reference"),
        Metric(
            "lm_perplexity", "LM perplexity", "as truth", "a token, under the language model alone"
        ),
        Metric("root", "root", "high", "share of time in which chords have the truth's root"),
        Metric("majmin", "majmin", "high", "the same, major and minor told apart"),
        Metric("sevenths", "sevenths", "high", "the same, sevenths told apart too"),
        Metric("beat_f", "beat F", "high", "F-measure of beats, within 70 ms"),
        Metric("downbeat_f", "downbeat F", "high", "F-measure of downbeats, within 70 ms"),
        Metric("drum_f1", "onset F1, by drum", "high", "onsets of the same drum on the same step"),
        Metric("group_f1", "onset F1, groups", "high", "onsets of the same group of drums"),
        Metric("kick_f1", "onset F1, kick", "high", "of that group alone"),
        Metric("snare_f1", "onset F1, snare", "high", "of that group alone"),
        Metric("hats_f1", "onset F1, hats", "high", "of that group alone"),
        Metric("toms_f1", "onset F1, toms", "high", "of that group alone"),
        Metric("cymbals_f1", "onset F1, cymbals", "high", "of that group alone"),
        Metric("groove_agreement", "groove, to truth", "high", "onset patterns of the same bars"),
        Metric("chord_tone_ratio", "chord-tone ratio", "high", "melody's time on chord tones"),
        Metric("ctnctr", "CTnCTR", "high", "chord tones and proper non-chord tones"),
        Metric("pcs", "PCS", "high", "consonance of melody and chord, -1 to 1"),
        Metric("mctd", "MCTD", "low", "distance of melody and chord in tonal space"),
        Metric("coverage", "coverage", "as truth", "share of the melody's steps with a chord"),
        Metric("che", "CHE", "as truth", "entropy of the chords, nats"),
        Metric("cc", "CC", "as truth", "how many chords there are"),
        Metric("ctd", "CTD", "as truth", "distance of neighbouring chords in tonal space"),
        Metric("note_density", "notes a step", "as truth", "notes over steps"),
        Metric("empty_steps", "empty steps", "as truth", "share of steps without a note"),
        Metric("polyphony", "polyphony", "as truth", "pitches at once, where any sounds"),
        Metric("pitch_range", "pitch range", "as truth", "semitones"),
        Metric("pitch_class_entropy", "pitch-class entropy", "as truth", "bits"),
        Metric("scale_consistency", "scale consistency", "as truth", "share of notes in one scale"),
        Metric("groove_similarity", "groove similarity", "as truth", "onset patterns of all bars"),
    )
}
"""All figures of a part, in the order of tables."""
