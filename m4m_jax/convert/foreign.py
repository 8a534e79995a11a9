"""Models from files of weights in PyTorch's layout: `.ckpt`, `.safetensors`, PEFT folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from etils import epath
from flax import nnx
from jax import Array

from m4m_jax.convert import recognize
from m4m_jax.convert.checkpoint import read_checkpoint
from m4m_jax.convert.peft_folder import is_peft, read_peft
from m4m_jax.convert.safetensors_file import read_safetensors
from m4m_jax.convert.tables import TABLES
from m4m_jax.convert.weights import Place, match, parameters_of
from m4m_jax.convert.weights_file import WeightsFile
from m4m_jax.errors import M4MError
from m4m_jax.models import card as cards
from m4m_jax.models import parameters
from m4m_jax.models.card import Base, Card
from m4m_jax.models.lm import LM, LMConfig
from m4m_jax.models.system import System
from m4m_jax.music.tasks import get_task

SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")


class Given(NamedTuple):
    """A language model that an adapter is put on: its sizes, and how to name it."""

    lm: LMConfig
    base: Base


def is_foreign(path: epath.PathLike) -> bool:
    """Whether a path names weights in PyTorch's layout and not a model directory."""
    path = epath.Path(path)
    return (path.suffix in SUFFIXES and not path.is_dir()) or is_peft(path)


def open_weights(path: epath.PathLike) -> WeightsFile:
    """Open a `.ckpt`, a `.safetensors` file or a PEFT folder; M4MError where it is none."""
    path = epath.Path(path)
    if is_peft(path):
        return read_peft(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.is_dir():
        raise M4MError(f"{path} is a folder, but no PEFT folder: it has no adapter_config.json")
    return read_checkpoint(path)


def card_of(
    file: WeightsFile,
    bases: Sequence[Given] = (),
    task: str | None = None,
    max_notes: int | None = None,
) -> Card:
    """What a file's model is: by its own card, otherwise by its contents.

    bases: the language models of an adapter, of its target and of its reference where that is
    another one. task, max_notes: what the user says, which takes precedence; the rest of a card
    stays, and what a file without one was made for is told by `recognize.task_of`.
    Raises M4MError where the file has no known contents, or where bases are missing, are too many
    or are others than the card's.
    """
    if file.card is not None:
        said = {} if task is None or task in file.card.tasks else get_task(task).view
        said |= {"max_notes": max_notes} if max_notes else {}
        card = file.card.model_copy(update=said)
        _check_bases(file, card.system, len(card.bases), bases)
        _check_card(file, card)
        return _on_bases(file, card, bases)
    system = recognize.system_of(file)
    _check_bases(file, system, int(system in cards.ADAPTERS), bases)
    prefix = "wrapped_model." if system == "seq2seq" else ""
    fields: dict[str, Any] = {"system": system, **recognize.task_of(file, task, max_notes)}
    if bases:
        fields["lm"], fields["base"] = bases[0]
        fields["adapter"] = recognize.adapter_config(file, bases[0].lm.layers)
    else:
        fields["lm"] = recognize.lm_config(file.tensors.shapes, file.path, prefix)
    return Card(**fields)


def _check_bases(file: WeightsFile, system: str, wanted: int, bases: Sequence[Given]) -> None:
    if len(bases) > wanted and not wanted:
        raise M4MError(f"{file.path} is a {system} model, which is on no base; leave base out")
    if len(bases) != wanted:
        what = "its language model" if wanted == 1 else "both its language models"
        raise M4MError(f"{file.path} is a {system} adapter; name {what} with base (--base)")


def _check_card(file: WeightsFile, card: Card) -> None:
    """M4MError where a file's card is not of its tensors: what it says is not built before."""
    system = recognize.system_of(file)
    sizes = card.lm
    if system not in cards.ADAPTERS:
        prefix = "wrapped_model." if system == "seq2seq" else ""
        sizes = recognize.lm_config(file.tensors.shapes, file.path, prefix)
        sizes = dataclasses.replace(sizes, encoder=card.lm.encoder)
    if (system, sizes) != (card.system, card.lm):
        raise M4MError(f"{file.path}: its card describes another model than its tensors are of")


def _on_bases(file: WeightsFile, card: Card, bases: Sequence[Given]) -> Card:
    """The card with its bases named as they were given, if they are the right ones."""
    names = ("base", "reference_base")[: len(bases)]
    for name, given in zip(names, bases, strict=True):
        wanted = getattr(card, name).fingerprint
        if given.base.fingerprint != wanted:
            other = given.base.path or "the given one"
            raise M4MError(
                f"{file.path} was trained on another base than {other}: the fingerprint of its "
                f"base is {wanted[:12]}; name the right one"
            )
    named: dict[str, Any] = dict(zip(names, (given.base for given in bases), strict=True))
    sizes = dict(zip(("lm", "reference_lm"), (given.lm for given in bases), strict=False))
    return card.model_copy(update=named | sizes)


def places_of(file: WeightsFile, card: Card) -> list[Place]:
    """Which tensor of a file is which saved parameter of its model; M4MError if any is odd."""
    system = cards.skeleton(card)
    state = nnx.to_flat_state(nnx.state(system, cards.saved(system)))
    wanted = {".".join(map(str, path)): tuple(variable.shape) for path, variable in state}
    return match(file.tensors.shapes, wanted, TABLES[card.system], file.path)


def read_arrays(file: WeightsFile, card: Card) -> dict[str, Array]:
    """The saved parameters of a file's model by name, copied out of it one at a time."""
    places = places_of(file, card)
    return {name: jnp.array(value) for name, value in parameters_of(file.tensors, places)}


def load_system(
    file: WeightsFile, card: Card, lms: Sequence[LM] = (), *, dtype: jnp.dtype = jnp.float32
) -> System:
    """The system that a file and its card describe, on language models that are not changed.

    dtype: of the parameters and so of the arithmetic.
    """
    arrays = read_arrays(file, card)
    graph, state = nnx.split(cards.assemble(cards.skeleton(card), arrays, lms))
    return nnx.merge(graph, parameters.cast(state, dtype))
