"""Configurations of training runs: YAML files, typed and frozen once loaded.

A file holds the fields of `Config`, and under `presets` groups of changes by name. Both may hold
`systems`, changes for each system. On the command line `preset=NAME` takes a group, and `key=value`
(dotted for nested keys, values in YAML) changes single fields after it.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

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


def _devices(number: int) -> int:
    if number != -1 and number < 1:
        raise ValueError(f"{number} is no number of devices; -1 takes all that are left")
    return number


Devices = Annotated[int, pydantic.AfterValidator(_devices)]


def _few_steps(text: Any) -> str:
    found = re.fullmatch(r"(\d+)\.\.(\d+)", str(text))
    if found is None:
        raise ValueError(f"{text!r} is no range of steps; write FIRST..LAST, such as 100..105")
    first, last = map(int, found.groups())
    if not 1 <= first <= last:
        raise ValueError(f"{text} has no steps; they count from 1, and the first comes first")
    if last - first >= MAX_PROFILED:
        raise ValueError(
            f"{text} are {last - first + 1} steps; {MAX_PROFILED} at most, or nothing can open it"
        )
    return str(text)


MAX_PROFILED = 100
"""Steps that a profile may have: each adds megabytes to one file."""

FewSteps = Annotated[str, pydantic.BeforeValidator(_few_steps)]


Starts = Literal["anywhere", "bars"]
"""Where windows begin: at any step, as those of the published models; or where songs begin too."""

SHIFT_LIMITS = (-5, 6)
"""Semitones that training may move a window by, as the published models were trained."""

_FEW = 5  # semitones that songs of a common key may be moved around it, from lowest to highest


def _shifts(value: Any) -> Any:
    if isinstance(value, bool):
        return SHIFT_LIMITS if value else (0, 0)
    whole = isinstance(value, list | tuple) and [type(end) for end in value] == [int, int]
    if whole and -12 <= value[0] <= 0 <= value[1] <= 12:
        return value
    raise ValueError(
        f"{value!r} is no range of semitones; write true, false or [DOWN, UP] such as [-2, 2], "
        "-12 to 0 and 0 to 12"
    )


Shifts = Annotated[tuple[int, int], pydantic.BeforeValidator(_shifts)]


class Section(pydantic.BaseModel):
    """A group of fields; unknown ones are refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Updates(Section):
    """Low-rank updates: the rank (0 for none), alpha, where alpha / rank scales, the maps."""

    lora_rank: Annotated[int, pydantic.Field(ge=0)] = 16
    lora_alpha: float = 32.0
    lora_targets: tuple[Literal["query", "key", "value", "output"], ...] = ("query", "value")


class Cross(Updates):
    """The links of a cross-attentive adapter, and its low-rank updates.

    n_skip: one layer in so many has a link. gate: what the links' gates start at. whiten: whether
    the links start by hearing all that the first windows' references tell, and not mostly what
    varies most. tune: what trains, the adapter alone or the language model with it.
    """

    system: Literal["cross"] = "cross"
    n_skip: Positive = 2
    width: Positive = 256
    heads: Positive = 4
    gate: float = 0.0
    whiten: bool = False
    tune: Literal["adapter", "all"] = "adapter"

    @pydantic.model_validator(mode="after")
    def _divides(self) -> Cross:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        return self


class SelfAttentive(Updates):
    """The low-rank updates of a self-attentive adapter. tune: as above."""

    system: Literal["self"] = "self"
    lora_rank: Annotated[int, pydantic.Field(ge=0)] = 64
    lora_alpha: float = 128.0
    tune: Literal["adapter", "all"] = "adapter"


class CocoMulla(Section):
    """The length of Coco-Mulla's prefix, the most steps that a stream may have. tune: as above."""

    system: Literal["coco-mulla"] = "coco-mulla"
    steps: Positive = 384
    tune: Literal["adapter", "all"] = "adapter"


System = Literal["lm", "cross", "self", "coco-mulla", "seq2seq"]
SYSTEMS: tuple[str, ...] = get_args(System)
ADAPTERS: dict[str, type[Cross | SelfAttentive | CocoMulla]] = {
    "cross": Cross,
    "self": SelfAttentive,
    "coco-mulla": CocoMulla,
}
"""What may be said of an adapter, by system: those that take over pretrained language models."""

Adapter = Annotated[Cross | SelfAttentive | CocoMulla, pydantic.Field(discriminator="system")]


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


OF_TASK = {"reference", "target", "dedup", "harmony_by_quarter", "common_key"}
"""What of a task a configuration may change."""


class Component(Section):
    """A part of a mixture: a data set, the view of its songs, and its share of the windows.

    data and task are the run's own where they are left out; so are `reference`, `target`, `dedup`,
    `harmony_by_quarter` and `common_key` where the task is left out, and otherwise they are the
    task's. weight: relative to the other components' weights.
    """

    data: str | None = None
    task: str | None = None
    reference: str | None = None
    target: str | None = None
    dedup: bool | None = None
    harmony_by_quarter: bool | None = None
    common_key: bool | None = None
    weight: Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)] = 1.0


class Config(Section):
    """A training run.

    system: what is trained: a language model (lm), an adapter on one (cross, self, coco-mulla) or
    seq2seq. base: the language model of an adapter, or that `lm` goes on from; of cross also a
    pair, of the reference and of the target. adapter: options of an adapter.
    size: a preset of a new model; `encoder` completes it. A base has its own, and where they are
    given it is checked to have these.
    data, task: a data set by name, and the view of its songs; `reference`, `target`, `dedup`,
    `harmony_by_quarter`, `common_key` and `max_notes` change the task's own, `compress` makes a
    stream coarser.
    mixture: several data sets or tasks at once, in the place of the one. packed: a directory that
    `m4m data pack` wrote, where the windows are read instead of being made from songs. window:
    steps of a training window; `pad_short` fills shorter songs with empty rows instead of leaving
    them out; `starts` has windows begin at any step or on the songs' bars; `pitch_shift` moves
    training windows in pitch, by -5 to 6 semitones where it is true, or from its first number to
    its second.
    batch: windows of the global batch of a step, in `accumulate` parts one after another.
    encoder_dropout: whether equal rows of a batch share the local encoder's dropout, and are read
    but once, or each has its own.
    mask_rate, reference_mask_rate: spans of 10 steps that span masking hides for every 10 steps of
    an adapter's target, in training, and of its reference, always; they may overlap.
    precision: what the arithmetic is done in; parameters stay float32.
    keep: how many of the best checkpoints are kept beside the two latest; `keep_every` keeps one in
    so many steps for good.
    mesh: device mesh by axis; -1 takes all devices that are left.
    remat: compute each layer anew in the backward pass instead of keeping what is inside it.
    profile: steps that JAX's profiler records, FIRST..LAST.
    """

    system: System = "lm"
    size: str | None = None
    encoder: Literal["reference", "masked"] | None = None
    vocabulary: Literal["plain", "velocity"] = "plain"
    base: str | tuple[str, str] | None = None
    adapter: Adapter | None = None
    data: str
    task: str
    reference: str | None = None
    target: str | None = None
    dedup: bool | None = None
    harmony_by_quarter: bool | None = None
    common_key: bool | None = None
    mixture: tuple[Component, ...] = ()
    packed: str | None = None
    max_notes: Annotated[int, pydantic.Field(gt=0, le=32)] | None = None
    compress: Compress = Compress()
    window: Positive = 384
    pad_short: bool = False
    starts: Starts = "anywhere"
    pitch_shift: Shifts = SHIFT_LIMITS
    batch: Positive = 8
    accumulate: Positive = 1
    steps: Positive = 60_000
    optimizer: Optimizer = Optimizer()
    dropout: Rate = 0.1
    lora_dropout: Rate = 0.1
    encoder_dropout: Literal["shared", "per_row"] = "shared"
    mask_rate: Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)] = 0.0
    reference_mask_rate: Rate = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    every: Every = Every()
    validation_batches: Positive = 25
    keep: Positive = 10
    keep_every: Positive | None = None
    mesh: dict[Literal["data", "fsdp", "tensor"], Devices] = {"data": -1}
    remat: bool = False
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)] = 0
    profile: FewSteps | None = None

    @pydantic.field_validator("size", mode="before")
    @classmethod
    def _name(cls, size: Any) -> Any:
        return str(size) if isinstance(size, int) else size

    @pydantic.model_validator(mode="before")
    @classmethod
    def _complete(cls, fields: Any) -> Any:
        """The adapter's options are those of its system; a new model has a size."""
        if not isinstance(fields, Mapping):
            return fields
        fields = _of_first_component(fields)
        system, options = fields.get("system", "lm"), fields.get("adapter")
        if system in ADAPTERS and (options is None or isinstance(options, Mapping)):
            return {**fields, "adapter": {"system": system, **(options or {})}}
        if options:
            raise ValueError(f"system {system} has no adapter; leave its options out")
        given = {key: value for key, value in fields.items() if value is not None}
        if fields.get("base") is None:
            given = {"size": "1", "encoder": "reference", **given}
        return given

    @pydantic.model_validator(mode="after")
    def _consistent(self, info: pydantic.ValidationInfo) -> Config:
        if self.adapter is not None and self.adapter.system != self.system:
            raise ValueError(f"adapter is one of system {self.adapter.system}, not {self.system}")
        baseless = (info.context or {}).get("baseless", False)
        if self.system in ADAPTERS and self.base is None and not baseless:
            raise ValueError(f"system {self.system} needs base=DIR, a language model's directory")
        if self.system == "seq2seq" and self.base is not None:
            raise ValueError("system seq2seq is trained from scratch; leave base out")
        if isinstance(self.base, tuple) and self.system != "cross":
            raise ValueError(f"system {self.system} has one base; only cross links two")
        if self.system not in ADAPTERS and (self.mask_rate or self.reference_mask_rate):
            raise ValueError(f"system {self.system} has no span masking; leave its rates at 0")
        in_one_key = any(part.common_key for part in self.components)
        if in_one_key and self.pitch_shift[1] - self.pitch_shift[0] > _FEW:
            raise ValueError(
                "common_key brings songs to one key, and pitch_shift takes them to many; "
                f"give pitch_shift=false, or a range of {_FEW} semitones at most"
            )
        for task in {part.task for part in self.components}:
            alike = [part for part in self.components if part.task == task]
            for option in ("harmony_by_quarter", "common_key"):
                if len({bool(getattr(part, option)) for part in alike}) > 1:
                    raise ValueError(
                        f"components of task {task} differ in {option}; a model has one way to read"
                        " the songs of a task"
                    )
        if isinstance(self.adapter, CocoMulla):
            longest = self.window // min(self.compress.reference, self.compress.target)
            if longest > self.adapter.steps:
                raise ValueError(
                    f"coco-mulla reads {self.adapter.steps} steps at most; window {self.window} "
                    f"has {longest}"
                )
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} does not divide into {self.accumulate} parts")
        if self.profiled and self.profiled[-1] > self.steps:
            raise ValueError(f"profile {self.profile} goes past the last step, {self.steps}")
        ratio = max(self.compress.reference, self.compress.target)
        if self.window % ratio:
            raise ValueError(f"window {self.window} is no multiple of the compression {ratio}")
        return self

    @property
    def components(self) -> tuple[Component, ...]:
        """What the run is trained on, with nothing left out: one component, or the mixture's."""
        own = self.model_dump(include={"task", *OF_TASK})

        def whole(part: Component) -> Component:
            given = part.model_dump(exclude_none=True)
            view = own if part.task is None else {}
            return Component(**({"data": self.data} | view | given))

        return tuple(map(whole, self.mixture or (Component(),)))

    @property
    def profiled(self) -> range:
        """The steps that are profiled."""
        first, last = map(int, (self.profile or "1..0").split(".."))
        return range(first, last + 1)

    @property
    def bases(self) -> tuple[str, ...]:
        """The directories of base: none, one, or the reference's and the target's."""
        if self.base is None:
            return ()
        return self.base if isinstance(self.base, tuple) else (self.base,)


def _of_first_component(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Data and task of the mixture's first component that has them, where the run has none."""
    mixture = fields.get("mixture")
    if not isinstance(mixture, list | tuple):
        return fields
    parts = [part for part in mixture if isinstance(part, Mapping)]
    first = {
        key: next(part[key] for part in parts if key in part)
        for key in ("data", "task")
        if fields.get(key) is None and any(key in part for part in parts)
    }
    return {**fields, **first}


def load_config(
    path: epath.PathLike, overrides: Sequence[str] = (), *, baseless: bool = False
) -> Config:
    """The configuration of a YAML file with changes.

    Args:
        path: the file; see `configs/`.
        overrides: `key=value`, as on the command line of `m4m train`: keys dotted where they are
            nested, values in YAML, `preset=NAME` for a group of changes of the file's.
        baseless: an adapter may go without a base, on a language model of `size`.

    Raises:
        M4MError: there is no such file, or what is wrong in it or in the changes.
    """
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
    told = [value for keys, value in changes if keys == ["system"]]
    system = told[-1] if told else fields.get("system", "lm")
    chosen = [str(value) for keys, value in changes if keys == ["preset"]]
    for name in chosen:
        if name not in presets:
            there = ", ".join(presets) or "none"
            raise M4MError(f"{path} has no preset {name!r}; it has {there}")
    resolved: dict[str, Any] = {}
    for group in (fields, *(presets[name] for name in chosen)):
        _merge(resolved, _of_system(group, system, path))
    for keys, value in changes:
        if keys != ["preset"]:
            _merge(resolved, _nested(keys, value))
    return make_config(resolved, str(path), baseless=baseless)


def _of_system(group: Mapping[str, Any], system: Any, path: epath.Path) -> dict[str, Any]:
    """A group of fields with those that its `systems` has for one system."""
    fields = copy.deepcopy(dict(group))
    systems = fields.pop("systems", None) or {}
    if not isinstance(systems, dict) or not all(isinstance(s, dict) for s in systems.values()):
        raise M4MError(f"{path}: systems must be groups of changes by system")
    if unknown := [name for name in systems if name not in SYSTEMS]:
        raise M4MError(f"{path}: {unknown[0]!r} is no system; they are {', '.join(SYSTEMS)}")
    _merge(fields, systems.get(str(system), {}))
    return fields


def change_config(fields: Mapping[str, Any], overrides: Sequence[str], where: str) -> Config:
    """A configuration from plain values with `key=value` changes; M4MError as `make_config`."""
    resolved = copy.deepcopy(dict(fields))
    for keys, value in map(_parse, overrides):
        _merge(resolved, _nested(keys, value))
    return make_config(resolved, where)


def make_config(fields: Mapping[str, Any], where: str, *, baseless: bool = False) -> Config:
    """A configuration from plain values; M4MError, one line, where they are wrong."""
    try:
        return Config.model_validate(fields, context={"baseless": baseless})
    except pydantic.ValidationError as error:
        faults = dict.fromkeys(map(_explain, error.errors()))
        raise M4MError(f"{where}: {'; '.join(faults)}") from error


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


# What is wrong with a value, by pydantic's name of it; {value} and what pydantic knows go in.
_FAULTS = {
    "literal_error": "{value} is none of {expected}",
    "union_tag_invalid": "{tag!r} is none of {expected_tags}",
    "greater_than": "{value} is too small; give more than {gt}",
    "greater_than_equal": "{value} is too small; give {ge} or more",
    "less_than": "{value} is too large; give less than {lt}",
    "less_than_equal": "{value} is too large; give {le} at most",
    "finite_number": "{value} is no finite number",
    "value_error": "{error}",
}
_KINDS = {
    "int": "no whole number",
    "float": "no number",
    "bool": "neither true nor false",
    "string": "no text",
    "tuple": "no list",
    "dict": "no group of keys",
    "model": "no group of keys",
}


def _explain(error: Any) -> str:
    loc = tuple(map(str, error["loc"]))
    kind = ADAPTERS.get(loc[1]) if loc[0:1] == ("adapter",) and len(loc) > 1 else None
    loc = loc if kind is None else ("adapter", *loc[2:])
    place = ".".join(part for part in loc if part != "[key]")
    if error["type"] == "missing":
        return f"{place} is not given; add {place}=..."
    if error["type"] == "extra_forbidden":
        if kind is not None and place in _keys(Config):
            return f"system {kind.model_fields['system'].default} has no {place}; it has " + (
                ", ".join(_options(kind))
            )
        return f"unknown key {place}; the nearest known one is {_nearest(place)}"
    if loc[0:1] == ("base",):
        return f"base: {error['input']!r} is neither a directory nor a pair of them"
    message = _fault(error)
    return f"{place}: {message}" if place else message


def _fault(error: Any) -> str:
    """What is wrong with a value."""
    known, value = error["type"], repr(error["input"])
    if known in _FAULTS:
        return _FAULTS[known].format(value=value, **error.get("ctx", {}))
    kind = _KINDS.get(known.partition("_")[0])
    return error["msg"] if kind is None else f"{value} is {kind}"


def _options(adapter: type[Section]) -> list[str]:
    """What may be said of an adapter, dotted."""
    return [f"adapter.{name}" for name in adapter.model_fields if name != "system"]


def _nearest(key: str) -> str:
    """The known key that an unknown one, dotted, is most like, or whose last word is."""
    known = list(_keys(Config))
    last = key.rpartition(".")[2]

    def likeness(candidate: str) -> tuple[float, float]:
        pairs = ((key, candidate), (last, candidate.rpartition(".")[2]))
        whole, end = (difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)
        return max(whole, end), whole

    return max(known, key=likeness)


def _keys(section: type[pydantic.BaseModel]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield name
        if name == "adapter":
            for adapter in ADAPTERS.values():
                yield from _options(adapter)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from (f"{name}.{key}" for key in _keys(field.annotation))
