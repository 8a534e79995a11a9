"""What a model is: the contents of `model.json`, and the system built from it."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pydantic
from flax import nnx

from m4m_jax.config import ADAPTERS, Starts
from m4m_jax.config import System as SystemName
from m4m_jax.errors import M4MError
from m4m_jax.models import parameters
from m4m_jax.models.adapter import AdapterParam
from m4m_jax.models.coco_mulla import CocoMulla, CocoMullaConfig
from m4m_jax.models.cross import CrossAdapter, CrossConfig
from m4m_jax.models.lm import LM, LMConfig
from m4m_jax.models.self_attentive import SelfAdapter, SelfConfig
from m4m_jax.models.seq2seq import Seq2Seq
from m4m_jax.models.system import System
from m4m_jax.music.compression import Compression

FORMAT = 1

Adapter = Annotated[
    CrossConfig | SelfConfig | CocoMullaConfig, pydantic.Field(discriminator="system")
]


class Base(pydantic.BaseModel, frozen=True, extra="forbid"):
    """The language model that an adapter was trained on.

    fingerprint: see `parameters.fingerprint`. path: where it was, relative to the adapter's
    directory where that is possible; any model of the same fingerprint serves.
    """

    fingerprint: str
    path: str


class Part(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A component of the mixture that a model was trained on; fields as in `Card`.

    weight: its share of the windows, relative to the others' weights.
    """

    task: str
    reference: str | None
    target: str
    dedup: bool
    harmony_by_quarter: bool = False
    common_key: bool = False
    data: str
    parts: dict[str, str]
    weight: float


class Card(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A model's description: what it is made of, and what it was made for.

    lm: sizes of the language model that writes. reference_lm: of the one that reads references,
    where a cross-attentive adapter links two. base, reference_base: the language models that an
    adapter was trained on, unless it holds them itself, tuned with it.
    task: a task's name; reference, target (part selectors), dedup, harmony_by_quarter and
    common_key as it was trained with them.
    max_notes: notes a row, N, for reference and target. compress: how much coarser than the song
    they are. window: steps of a song that it was trained on. starts: where these began, and begin
    when a song is written: anywhere, or on its bars.
    parts: the names that its data set gives to part selectors.
    mixture: what it was trained on, where that were several data sets or tasks; the fields above
    are those of the first.
    """

    format: Annotated[int, pydantic.Field(ge=FORMAT, le=FORMAT)] = FORMAT
    system: SystemName
    lm: LMConfig
    reference_lm: LMConfig | None = None
    adapter: Adapter | None = None
    base: Base | None = None
    reference_base: Base | None = None
    task: str
    reference: str | None
    target: str
    dedup: bool = False
    harmony_by_quarter: bool = False
    common_key: bool = False
    max_notes: int
    compress: Compression = Compression()
    window: int
    starts: Starts = "anywhere"
    data: str | None = None
    parts: dict[str, str] = {}
    mixture: tuple[Part, ...] = ()
    versions: dict[str, str] = pydantic.Field(default_factory=lambda: versions())

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Card:
        given = None if self.adapter is None else self.adapter.system
        if given != (self.system if self.system in ADAPTERS else None):
            raise ValueError(f"system {self.system} does not go with adapter {given}")
        if self.reference_lm is not None and self.system != "cross":
            raise ValueError(f"system {self.system} has no reference_lm")
        alone = self.adapter is None or self.adapter.tune == "all"
        wanted = [not alone, not alone and self.reference_lm is not None]
        if [self.base is not None, self.reference_base is not None] != wanted:
            needed = [name for name, w in zip(("base", "reference_base"), wanted, strict=True) if w]
            raise ValueError(f"system {self.system} needs {' and '.join(needed) or 'no base'} here")
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it was trained for."""
        return tuple(dict.fromkeys([self.task, *(part.task for part in self.mixture)]))

    def of_task(self, task: str) -> Card:
        """The card with the parts of one of its tasks; of several alike, the first's."""
        part = next((part for part in self.mixture if part.task == task), None)
        return self if part is None else self.model_copy(update=part.model_dump(exclude={"weight"}))

    @property
    def bases(self) -> tuple[Base, ...]:
        """The language models that are kept elsewhere: of the target, of the reference."""
        return tuple(base for base in (self.base, self.reference_base) if base is not None)


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
    """The variable type that a model directory holds: the adapter, or everything."""
    return AdapterParam if system.trained is AdapterParam else nnx.Variable


def build(
    card: Card, lm: LM | None = None, reference_lm: LM | None = None, *, rngs: nnx.Rngs
) -> System:
    """The system that a card describes, newly initialised; adapters take over the given models."""
    adapter = card.adapter
    if adapter is None:
        return LM(card.lm, rngs=rngs) if card.system == "lm" else Seq2Seq(card.lm, rngs=rngs)
    assert lm is not None
    if isinstance(adapter, CrossConfig):
        return CrossAdapter(lm, adapter, reference_lm=reference_lm, rngs=rngs)
    if isinstance(adapter, SelfConfig):
        return SelfAdapter(lm, adapter, rngs=rngs)
    return CocoMulla(lm, adapter, rngs=rngs)


def skeleton(card: Card) -> System:
    """The system that a card describes with shapes in the place of arrays."""

    def make() -> System:
        rngs = nnx.Rngs(0)
        sizes = (card.lm, card.reference_lm) if card.adapter is not None else ()
        return build(card, *(LM(c, rngs=rngs) for c in sizes if c is not None), rngs=rngs)

    return nnx.eval_shape(make)


def assemble(system: System, arrays: Mapping[str, Any], lms: Sequence[LM] = ()) -> System:
    """A `skeleton` with its saved arrays by name, and those of the models that it is on.

    lms: what `Card.bases` names, in that order; they share their arrays and are not changed. Raises
    ValueError where names are missing or left over.
    """
    graph, own, rest = nnx.split(system, saved(system), ...)
    given = {
        f"{place}.{name}": array
        for place, lm in zip(("base", "reference_base"), lms, strict=False)
        for name, array in parameters.by_name(nnx.state(lm)).items()
    }
    system = nnx.merge(graph, parameters.fill(own, arrays), parameters.fill(rest, given))
    if lms:
        for lm in (system.lm, system.reference_lm):
            lm.decoder.reset_positions()
    return system
