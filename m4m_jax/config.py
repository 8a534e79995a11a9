"""Configurations of training runs: YAML files, typed and frozen once loaded.

A file holds the fields of `Config`, and under `presets` groups of changes by name. On the command
line `preset=NAME` takes such a group, and `key=value` (dotted for nested keys, values in YAML)
changes single fields after it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic
import yaml
from etils import epath

from m4m_jax.errors import M4MError

Positive = Annotated[int, pydantic.Field(gt=0)]
Rate = Annotated[float, pydantic.Field(ge=0, lt=1)]


def _power_of_two(ratio: int) -> int:
    if ratio & (ratio - 1):
        raise ValueError(f"a compression of {ratio} is no power of two")
    return ratio


Ratio = Annotated[int, pydantic.Field(gt=0), pydantic.AfterValidator(_power_of_two)]


class Section(pydantic.BaseModel):
    """A group of fields; unknown ones are refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Adapter(Section):
    """The links of a cross-attentive adapter, and its low-rank updates (none at `lora_rank` 0).

    n_skip: one layer in so many has a link. gate: what the links' gates start at.
    """

    n_skip: Positive = 2
    width: Positive = 256
    heads: Positive = 4
    gate: float = 0.0
    lora_rank: Annotated[int, pydantic.Field(ge=0)] = 16
    lora_alpha: float = 32.0
    lora_targets: tuple[Literal["query", "key", "value", "output"], ...] = ("query", "value")

    @pydantic.model_validator(mode="after")
    def _divides(self) -> Adapter:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        return self


class Optimizer(Section):
    """AdamW. `clip` is the largest norm of the gradient, none by default."""

    learning_rate: Annotated[float, pydantic.Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, pydantic.Field(ge=0)] = 0.01
    clip: Annotated[float, pydantic.Field(gt=0)] = float("inf")
    schedule: Literal["constant", "one_cycle"] = "constant"
    warmup: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.005


class Every(Section):
    """How often something is done, in steps: logs, validation, checkpoints."""

    log: Positive = 50
    validation: Positive = 500
    checkpoint: Positive = 500


class Compress(Section):
    """How many steps of the song one step of each stream stands for, powers of two."""

    reference: Ratio = 1
    target: Ratio = 1


class Config(Section):
    """A training run.

    system: what is trained, a language model (lm) or an adapter on one (cross, with `base`).
    size: a preset of the language model; `encoder` and `vocabulary` complete it.
    data, task: a data set by name, and the view of its songs; `reference`, `target`, `dedup` and
    `max_notes` change the task's own, `compress` makes a stream coarser. window: steps of a
    training window; `pad_short` fills shorter songs with empty rows instead of leaving them out.
    batch: windows of the global batch of a step, in `accumulate` parts one after another.
    precision: what the arithmetic is done in; parameters stay float32.
    keep: how many of the best checkpoints are kept beside the latest.
    mesh: device mesh by axis; -1 takes all devices that are left.
    """

    system: Literal["lm", "cross"] = "lm"
    size: str = "1"
    encoder: Literal["reference", "masked"] = "reference"
    vocabulary: Literal["plain", "velocity"] = "plain"
    base: str | None = None
    adapter: Adapter = Adapter()
    data: str
    task: str
    reference: str | None = None
    target: str | None = None
    dedup: bool | None = None
    max_notes: Annotated[int, pydantic.Field(gt=0, le=32)] | None = None
    compress: Compress = Compress()
    window: Positive = 384
    pad_short: bool = False
    batch: Positive = 8
    accumulate: Positive = 1
    steps: Positive = 60_000
    optimizer: Optimizer = Optimizer()
    dropout: Rate = 0.1
    lora_dropout: Rate = 0.1
    mask_rate: Rate = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    every: Every = Every()
    validation_batches: Positive = 25
    keep: Positive = 10
    mesh: dict[Literal["data", "fsdp", "tensor"], int] = {"data": -1}
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)] = 0

    @pydantic.field_validator("size", mode="before")
    @classmethod
    def _name(cls, size: Any) -> Any:
        return str(size) if isinstance(size, int) else size

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.system == "lm" and self.base is not None:
            raise ValueError("base is for adapters; system lm trains a language model from scratch")
        if self.system != "lm" and self.base is None:
            raise ValueError(f"system {self.system} needs base=DIR, a language model's directory")
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} does not divide into {self.accumulate} parts")
        ratio = max(self.compress.reference, self.compress.target)
        if self.window % ratio:
            raise ValueError(f"window {self.window} is no multiple of the compression {ratio}")
        return self


def load_config(path: epath.PathLike, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file with `key=value` changes; M4MError where it is wrong."""
    path = epath.Path(path)
    if not path.is_file():
        raise M4MError(f"{path}: there is no such configuration file")
    try:
        fields = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise M4MError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(fields, dict):
        raise M4MError(f"{path} is not a configuration: it holds no keys")
    changes = [_parse(text) for text in overrides]
    presets = fields.pop("presets", None) or {}
    if not isinstance(presets, dict) or not all(isinstance(p, dict) for p in presets.values()):
        raise M4MError(f"{path}: presets must be groups of changes by name")
    for keys, value in changes:
        if keys == ["preset"]:
            if str(value) not in presets:
                there = ", ".join(presets) or "none"
                raise M4MError(f"{path} has no preset {str(value)!r}; it has {there}")
            _merge(fields, presets[str(value)])
    for keys, value in changes:
        if keys != ["preset"]:
            _merge(fields, _nested(keys, value))
    return make_config(fields, str(path))


def make_config(fields: Mapping[str, Any], where: str) -> Config:
    """A configuration from plain values; M4MError, one line, where they are wrong."""
    try:
        return Config.model_validate(fields)
    except pydantic.ValidationError as error:
        raise M4MError(f"{where}: {'; '.join(_explain(e) for e in error.errors())}") from error


def run_name(path: epath.PathLike, overrides: Sequence[str] = ()) -> str:
    """What a run is called by default: the file's stem, and what was chosen of system and size.

    The same command gives the same name, so that it finds its run again.
    """
    chosen = [text.partition("=")[::2] for text in overrides]
    words = [value for key, value in chosen if key in ("system", "size", "preset", "data", "seed")]
    return "-".join([epath.Path(path).stem, *(word.replace("/", "_") for word in words)])


def _parse(text: str) -> tuple[list[str], Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise M4MError(f"{text!r} is no change of a configuration; write key=value")
    try:
        return key.split("."), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise M4MError(f"the value of {text!r} is not YAML") from error


def _nested(keys: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return value


def _merge(fields: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(fields.get(key), dict):
            _merge(fields[key], value)
        else:
            fields[key] = value


def _explain(error: Any) -> str:
    place = ".".join(map(str, error["loc"]))
    if error["type"] != "extra_forbidden":
        message = error["msg"].removeprefix("Value error, ")
        return f"{place}: {message}" if place else message
    return f"unknown key {place}; the nearest known one is {_nearest(place)}"


def _nearest(key: str) -> str:
    """The known key that an unknown one, dotted, is most like, or whose last word is."""
    known = list(_keys(Config))
    last = key.rpartition(".")[2]

    def likeness(candidate: str) -> float:
        pairs = ((key, candidate), (last, candidate.rpartition(".")[2]))
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    return max(known, key=likeness)


def _keys(section: type[pydantic.BaseModel]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from (f"{name}.{key}" for key in _keys(field.annotation))
