"""The whole road in minutes, on real music: `m4m quickstart`.

Bach's chorales come inside the music21 package. A tiny language model is pretrained on them, an
adapter on it learns to write alto, tenor and bass to a soprano, and harmonises chorales that
neither has seen.
"""

from __future__ import annotations

import json
import time
from typing import NamedTuple

import numpy as np
from etils import epath

from m4m_jax import datasets, generation, pretrained
from m4m_jax.config import make_config
from m4m_jax.data import pipeline
from m4m_jax.datasets.bach_chorales.bach_chorales_dataset_builder import corpus_folder
from m4m_jax.files import atomic_path, check_folder
from m4m_jax.music import simunote
from m4m_jax.music.simunote import to_tokens
from m4m_jax.music.tasks import get_task
from m4m_jax.progress import progress_bar
from m4m_jax.sampling.songs import fill
from m4m_jax.training.run import run

DATA, TASK, WINDOW, MAX_NOTES = "bach_chorales", "harmonize", 128, 4

COMMON = {
    "size": "tiny",
    "data": DATA,
    "window": WINDOW,
    "max_notes": MAX_NOTES,
    "pad_short": True,
    # Few steps learn more of the keys that there are than of all keys.
    "pitch_shift": False,
    "batch": 4,
    "optimizer": {"learning_rate": 4e-3, "schedule": "one_cycle", "warmup": 0.1, "clip": 1.0},
    # Too few steps to overfit: dropout would only cost time.
    "dropout": 0.0,
    "lora_dropout": 0.0,
    "every": {"log": 25, "validation": 150, "checkpoint": 150},
    "validation_batches": 4,
    "keep": 1,
}
LM = COMMON | {"system": "lm", "encoder": "masked", "task": "continuation", "steps": 450}
ADAPTER = COMMON | {
    "system": "cross",
    "task": TASK,
    "steps": 450,
    "adapter": {
        "n_skip": 1,
        "width": 128,
        "gate": 1.0,
        "lora_rank": 32,
        "lora_alpha": 64.0,
        "lora_targets": ["query", "key", "value", "output"],
    },
}


class Match(NamedTuple):
    """NLL a target token, in nats, over unseen chorales: given their own soprano, and another's."""

    songs: int
    own: float
    shuffled: float


def unseen(out: epath.Path) -> tuple[np.ndarray, np.ndarray]:
    """The first window of each test chorale: reference and target token rows [songs, T, 2N]."""
    task, vocabulary = get_task(TASK), simunote.PLAIN
    held = datasets.open_split(DATA, "test", out / "data")
    views = [view for _, view in pipeline.songs(held, task, max_notes=MAX_NOTES)]

    def first(rows: np.ndarray) -> np.ndarray:
        return fill(to_tokens(rows, vocabulary)[:WINDOW], WINDOW, vocabulary)

    references = np.stack([first(v.reference) for v in views if v.reference is not None])
    return references, np.stack([first(v.target) for v in views])


def compare_references(model: pretrained.Model, out: epath.Path) -> Match:
    """How much the adapter listens: the NLL with right references, and with them shuffled."""
    references, targets = unseen(out)
    tokens = (targets != simunote.PLAIN.pad).sum()
    own, shuffled = (
        float(model.token_nll(targets, given).sum() / tokens)
        for given in (references, np.roll(references, 1, axis=0))
    )
    return Match(len(targets), own, shuffled)


def harmonize(model: pretrained.Model, out: epath.Path) -> list[epath.Path]:
    """Harmonise the first test chorale into a MIDI file and a piano roll."""
    song = datasets.open_split(DATA, "test", out / "data").song(0)
    written = generation.generate(model, song.table, name=song.name, temperature=0.8, top_p=0.95)
    return generation.write_samples(written, out / "harmonised.mid", out / "harmonised.png")


def prepare(out: epath.Path) -> None:
    """Build the data set, unless it is there."""
    if datasets.is_built(DATA, out / "data"):
        return
    with progress_bar("building the chorales") as progress:
        report = datasets.build(DATA, data_dir=out / "data", progress=progress)
    print(f"{sum(report.splits.values())} chorales: {report.splits}")


def quickstart(path: epath.PathLike) -> None:
    """Run it all in the directory `path`, going on where an earlier run stopped.

    Raises:
        M4MError: music21 is not installed, or `path` is no folder.
    """
    began, out = time.monotonic(), epath.Path(path)
    corpus_folder()
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    prepare(out)

    lm = run(make_config(LM, "quickstart"), out / "lm", out / "data")
    settings = make_config(ADAPTER | {"base": str(out / "lm")}, "quickstart")
    adapter = run(settings, out / "adapter", out / "data")
    model = pretrained.load(out / "adapter")
    match = compare_references(model, out)
    written = harmonize(model, out)
    report = {
        "language_model": {"before": lm.before, "best": lm.best},
        "adapter": {"before": adapter.before, "best": adapter.best},
        **match._asdict(),
        "seconds": round(time.monotonic() - began),
        "files": [str(file) for file in written],
    }
    with atomic_path(out / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    for name, result in (("language model", lm), ("adapter", adapter)):
        print(
            f"{name}: validation NLL {result.before:.3f} -> {result.best:.3f} nats a token"
            f" ({result.path})"
        )
    print(
        f"{match.songs} unseen chorales: NLL {match.own:.3f} with their own soprano, "
        f"{match.shuffled:.3f} with another chorale's"
    )
    print(f"{report['seconds']} seconds; wrote")
    for file in [*written, out / "report.json"]:
        print(f"  {file}")
