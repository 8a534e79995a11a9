"""Every figure has a name, and its definition in the documentation."""

from __future__ import annotations

from pathlib import Path

from m4m_jax.evaluation import analysis, chords, drums, general, harmony
from m4m_jax.evaluation.catalogue import METRICS
from m4m_jax.music import beats_to_notes
from tests.evaluation.music import chords as block_chords
from tests.evaluation.music import part

ROOT = Path(__file__).parents[2]


def test_all_figures_have_names():
    triads, song = block_chords("CFGC"), part([(0, 4, 60), (4, 4, 62), (20, 4, 67)], 32)
    beats = beats_to_notes(song)
    kit = part([(k, 1, pitch) for k, pitch in enumerate((36, 38, 42, 45, 49))], 32, drum=True)
    found = general.figures(song) | harmony.figures(song, triads) | chords.figures(triads)
    found |= chords.agreement(triads, triads) | drums.figures(kit, kit)
    found |= analysis.figures(beats, beats)
    likelihood = {"nll_token", "nll_step", "lm_perplexity"}
    single = {f"drum_{pitch}_f1" for pitch in (36, 38, 42, 45, 49)}
    assert set(found) - single == set(METRICS) - likelihood


def test_the_documentation_has_them_all():
    text = (ROOT / "docs" / "evaluation.md").read_text().partition("## Metrics")[2]
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    good = {name.strip(" `"): row[2].strip() for row in rows for name in row[1].split(",")}
    assert good.pop("drum_36_f1") == good.pop("...") == "high"
    assert good == {name: metric.good for name, metric in METRICS.items()}
