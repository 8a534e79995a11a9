"""Whether a file of weights means here what it means in PyTorch, tried on a piece of music."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from m4m_jax import pretrained
from m4m_jax.convert import commands, foreign
from m4m_jax.convert.checkpoint import import_torch
from m4m_jax.convert.piece import ode_to_joy
from m4m_jax.errors import lacking
from m4m_jax.models.card import Card
from m4m_jax.music.compression import compress_rows
from m4m_jax.music.inspect import select_notes
from m4m_jax.music.notes import NoteTable, read_midi
from m4m_jax.music.simunote import by_name, to_rows, to_tokens
from m4m_jax.pretrained import Model

WORST, MEAN = 5e-4, 5e-5
"""How far NLLs in nats a token may lie apart, in float32."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """NLLs of a piece's target tokens under the PyTorch build and under ours.

    steps, tokens: how many. nll: their mean in PyTorch. worst, mean: absolute differences.
    """

    card: Card
    steps: int
    tokens: int
    nll: float
    worst: float
    mean: float

    @property
    def agrees(self) -> bool:
        """Whether the differences are what float32 leaves."""
        return self.worst <= WORST and self.mean <= MEAN

    def summary(self) -> list[str]:
        """Lines for the console."""
        verdict = "the two agree" if self.agrees else "THE TWO DISAGREE"
        return [
            f"{self.tokens} tokens of {self.steps} steps, {self.nll:.4f} nats each in PyTorch",
            f"difference at most {self.worst:.2e} (allowed {WORST:.0e})",
            f"difference on average {self.mean:.2e} (allowed {MEAN:.0e})",
            verdict,
        ]


def verify(
    path: epath.PathLike,
    bases: Sequence[epath.PathLike] = (),
    *,
    midi: epath.PathLike | None = None,
    steps: int = 128,
    task: str | None = None,
    max_notes: int | None = None,
) -> Comparison:
    """Compare the two on a file of weights.

    bases, task, max_notes: as for `commands.to_flax`. midi: the piece (default: one from here), of
    which the first `steps` steps are read.
    """
    _import_build()
    song, name = (ode_to_joy(), "the piece") if midi is None else (read_midi(midi), str(midi))
    file = foreign.open_weights(path)
    models = [pretrained.load(base) for base in bases]
    lms = [model.system for model in models]
    given = [
        foreign.Given(m.card.lm, pretrained.base_of(m.system, base, path))
        for m, base in zip(models, bases, strict=True)
    ]
    card = foreign.card_of(file, given, task, max_notes)
    commands.check_public(card, path)
    target, reference = token_rows(song, card, steps, name)
    ours = Model(foreign.load_system(file, card, lms), card)
    with jax.default_matmul_precision("highest"):
        got = ours.token_nll(target, reference)
    want = _pytorch_nll(card, file.tensors, bases, target, reference)
    real = target != by_name(card.lm.vocabulary).pad
    apart = np.abs(got - want)[real]
    return Comparison(
        card,
        target.shape[1],
        int(real.sum()),
        float(want[real].mean()),
        float(apart.max()),
        float(apart.mean()),
    )


def token_rows(
    song: NoteTable, card: Card, steps: int, name: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """The parts of a song that a model writes and reads: int32 [1, T, 2N] each."""
    vocabulary = by_name(card.lm.vocabulary)

    def tokens(part: str, ratio: int) -> np.ndarray:
        notes = select_notes(song, part, name, names=card.parts).notes
        rows = to_rows(notes, song.length, card.max_notes, dedup=card.dedup)[:steps]
        return to_tokens(compress_rows(rows, ratio), vocabulary)[None]

    target = tokens(card.target, card.compress.target)
    if card.reference is None:
        return target, None
    return target, tokens(card.reference, card.compress.reference)


def _import_build() -> Callable[..., Any]:
    """What builds a system in PyTorch; M4MError where a package that it needs is not installed."""
    import_torch()
    try:
        from m4m_jax.bench.torch_checkpoints import build
    except ImportError as error:
        raise lacking(f"the PyTorch build needs {error.name}", "convert") from error
    return build


def _pytorch_nll(
    card: Card,
    tensors: Mapping[str, np.ndarray],
    bases: Sequence[epath.PathLike],
    target: np.ndarray,
    reference: np.ndarray | None,
) -> np.ndarray:
    torch, build = import_torch(), _import_build()
    lm = None
    for base in bases:
        lm_card, lm_tensors = commands.torch_tensors(base)
        lm = build(lm_card, lm_tensors)
    system = build(card, tensors, lm)
    rows = [None if x is None else torch.from_numpy(x) for x in (target, reference)]
    with torch.no_grad():
        return system.token_nll(*rows).numpy()
