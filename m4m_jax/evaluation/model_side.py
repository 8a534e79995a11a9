"""A model as one of the systems that are judged: its samples, and likelihoods under it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import NamedTuple

from etils import epath

from m4m_jax import generation, pretrained
from m4m_jax.errors import M4MError
from m4m_jax.evaluation.draws import Draws
from m4m_jax.evaluation.judged import TRUTH
from m4m_jax.evaluation.judging import Setting
from m4m_jax.evaluation.likelihood import Likelihoods, language_model
from m4m_jax.evaluation.pairing import Folder, LeftOut, Source
from m4m_jax.evaluation.writing import MadeOf, settings_of, write_samples
from m4m_jax.files import absolute
from m4m_jax.pretrained import Model
from m4m_jax.progress import progress_bar

MIDI = "midi"
_LIKELIHOODS = "likelihoods.jsonl"


class Writer(NamedTuple):
    """A model that is judged: its name, itself as of the task, and its language model, if any."""

    name: str
    model: Model
    lm: Model | None


class Side(NamedTuple):
    """What is judged once a model has written: the setting with it, the songs, what was left."""

    setting: Setting
    stems: list[str]
    left_out: list[LeftOut]


def system_name(path: epath.PathLike) -> str:
    """What a model is called: its directory, with the step of a step folder, or its file's stem."""
    place, step = pretrained.place_of(absolute(path))
    if step is not None:
        return f"{place.name}-{step}"
    return place.name if place.is_dir() else place.stem


def check(path: epath.PathLike, songs: Source | None, systems: Collection[str]) -> None:
    """Find out before a model is loaded whether it can be judged beside others.

    Raises:
        M4MError: there are no songs, or its name is another's.
    """
    if songs is None:
        raise M4MError("a model writes to songs: give --data NAME or --truth DIR")
    if (name := system_name(path)) in systems:
        raise M4MError(f"{name} is the model's name; give the folder another, NAME=DIR")
    if name == TRUTH:
        raise M4MError(f"{path}: {TRUTH} is what the songs' own parts are called; rename the model")


def load(path: epath.PathLike, bases: Sequence[epath.PathLike], task: str) -> Writer:
    """Load a model that is to be judged for a task; see `pretrained.load`.

    Raises:
        M4MError: it does not load, or was trained for another task.
    """
    model = pretrained.load(path, list(bases) or None)
    generation.check_task(model.card.tasks, task)
    model = dataclasses.replace(model, card=model.card.of_task(task))
    return Writer(
        system_name(path), model, language_model(model, path, bases[-1] if bases else None)
    )


def write(setting: Setting, writer: Writer, out: epath.Path, draws: Draws) -> Side:
    """Write a model's samples to the songs of a setting, into the folder `out`.

    Raises:
        M4MError: the folder holds other samples, or no song can be written to.
    """
    songs, name, model = setting.songs, writer.name, writer.model
    assert songs is not None
    made_of = MadeOf(out, settings_of(setting, model, draws))
    folder = out / MIDI / name
    with progress_bar("writing samples") as progress:
        written = write_samples(setting, songs, model, folder, draws, made_of, progress)
    left_out = list(written.strangers)
    if not written.songs:
        reason = f"{left_out[0].what}: {left_out[0].reason}" if left_out else "there are no songs"
        raise M4MError(f"nothing can be written, {len(left_out)} left out: {reason}")
    judged = dataclasses.replace(
        setting,
        systems={name: Folder(folder), **setting.systems},
        views=dataclasses.replace(setting.views, ours=frozenset([name])),
        paired={name: written._replace(strangers=())},
        likelihood=Likelihoods(model, writer.lm, out / _LIKELIHOODS, setting.skip),
    )
    return Side(judged, list(written.songs), left_out)
