"""What a model is: the contents of `model.json`, and the system built from it."""

from __future__ import annotations

import importlib.metadata
import json
from typing import Annotated, Literal

import pydantic
from flax import nnx

from m4m_jax.errors import M4MError
from m4m_jax.models.adapter import AdapterParam
from m4m_jax.models.cross import CrossAdapter, CrossConfig
from m4m_jax.models.lm import LM, LMConfig
from m4m_jax.models.system import System
from m4m_jax.music.compression import Compression

FORMAT = 1
SYSTEMS = ("lm", "cross")


class Base(pydantic.BaseModel, frozen=True, extra="forbid"):
    """The language model that an adapter was trained on.

    fingerprint: see `parameters.fingerprint`. path: where it was, relative to the adapter's
    directory where that is possible; any model of the same fingerprint serves.
    """

    fingerprint: str
    path: str


class Card(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A model's description: what it is made of, and what it was made for.

    task: a task's name; reference, target (part selectors) and dedup as it was trained with them.
    max_notes: notes a row, N, for reference and target. compress: how much coarser than the song
    they are. window: steps of a song that it was trained on.
    parts: the names that its data set gives to part selectors.
    """

    format: Annotated[int, pydantic.Field(ge=FORMAT, le=FORMAT)] = FORMAT
    system: Literal["lm", "cross"]
    lm: LMConfig
    adapter: CrossConfig | None = None
    base: Base | None = None
    task: str
    reference: str | None
    target: str
    dedup: bool = False
    max_notes: int
    compress: Compression = Compression()
    window: int
    data: str | None = None
    parts: dict[str, str] = {}
    versions: dict[str, str] = pydantic.Field(default_factory=lambda: versions())

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Card:
        if self.system != "lm" and (self.adapter is None or self.base is None):
            raise ValueError(f"system {self.system} needs adapter and base")
        return self


def versions() -> dict[str, str]:
    """The versions of the packages that the numbers depend on."""
    return {name: importlib.metadata.version(name) for name in ("m4m_jax", "jax", "flax", "optax")}


def read_card(text: str, where: str) -> Card:
    """The card of a `model.json`; M4MError where it is not one."""
    try:
        return Card.model_validate(json.loads(text))
    except json.JSONDecodeError as error:
        raise M4MError(f"{where} does not describe a model: not JSON ({error})") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        reason = f"{place}: {first['msg']}" if place else first["msg"]
        raise M4MError(f"{where} does not describe a model: {reason}") from error


def saved(system: System) -> type[nnx.Variable]:
    """The variable type that a model directory holds: all of an LM, the adapter of the rest."""
    return nnx.Variable if isinstance(system, LM) else AdapterParam


def build(card: Card, base: LM | None, *, rngs: nnx.Rngs) -> System:
    """The system that a card describes, newly initialised; adapters take over `base`."""
    if card.system == "lm":
        return LM(card.lm, rngs=rngs)
    assert base is not None
    return CrossAdapter(base, card.adapter, rngs=rngs)
