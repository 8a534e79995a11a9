"""A model as one of the systems that are judged: its samples, and likelihoods under it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import NamedTuple

from etils import epath

from m4m_jax import generation, pretrained
from m4m_jax.errors import M4MError
from m4m_jax.evaluation.draws import Draws
from m4m_jax.evaluation.judging import Setting
from m4m_jax.evaluation.likelihood import Likelihoods, language_model
from m4m_jax.evaluation.pairing import Folder, LeftOut
from m4m_jax.evaluation.writing import settings_of, settle, write_samples
from m4m_jax.progress import progress_bar

MIDI = "midi"
_LIKELIHOODS = "likelihoods.jsonl"


class Side(NamedTuple):
    """What is judged once a model has written: the setting with it, the songs, and remarks."""

    setting: Setting
    stems: list[str]
    left_out: list[LeftOut]
    notes: list[str]


def system_name(path: epath.PathLike) -> str:
    """What a model is called: its directory, or its file without suffix."""
    path = os.fspath(path)
    return epath.Path(path if "://" in path else os.path.abspath(path)).stem


def write(
    setting: Setting,
    path: epath.PathLike,
    bases: Sequence[epath.PathLike],
    out: epath.Path,
    draws: Draws,
    reference: str | None,
    limit: int | None,
) -> Side:
    """Write a model's samples to the songs of a setting; see `command.evaluate`.

    Raises:
        M4MError: there are no songs, the model does not load or was trained for another task, the
            folder holds other samples, or no song can be written to.
    """
    songs, name = setting.songs, system_name(path)
    if songs is None:
        raise M4MError("a model writes to songs: give --data NAME or --truth DIR")
    if name in setting.systems:
        raise M4MError(f"{name} is the model's name; give the folder another, NAME=DIR")
    model = pretrained.load(path, list(bases) or None)
    generation.check_task(model.card.tasks, setting.task)
    model = dataclasses.replace(model, card=model.card.of_task(setting.task))
    settle(out, settings_of(model, setting.task, songs, draws, reference, setting.steps))
    folder = out / MIDI / name
    with progress_bar("writing samples") as progress:
        written = write_samples(
            model,
            setting.task,
            songs,
            folder,
            draws,
            reference=reference,
            steps=setting.steps,
            limit=limit,
            progress=progress,
        )
    if not written.stems:
        reason = written.left_out[0].reason if written.left_out else "there are no songs"
        raise M4MError(f"nothing can be written, {len(written.left_out)} left out: {reason}")
    lm = language_model(model, path, bases[-1] if bases else None)
    views = dataclasses.replace(
        setting.views,
        reference=reference or model.card.reference,
        target=model.card.target,
        names={**setting.views.names, **model.card.parts},
        ours=frozenset([name]),
    )
    setting = dataclasses.replace(
        setting,
        systems={name: Folder(folder), **setting.systems},
        views=views,
        likelihood=Likelihoods(model, lm, out / _LIKELIHOODS),
    )
    notes = [] if lm is not None else ["no perplexity: the model has no language model of its own"]
    return Side(setting, written.stems, written.left_out, notes)
