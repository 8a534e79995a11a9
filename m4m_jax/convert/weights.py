"""PyTorch tensors into a model's parameters and back, by a mapping table: nothing is left over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from m4m_jax.convert.tables import Rule
from m4m_jax.errors import M4MError

Shapes = Mapping[str, tuple[int, ...]]


class Place(NamedTuple):
    """Which tensor is which parameter, by which rule."""

    torch: str
    flax: str
    rule: Rule


def our_name(name: str, table: Sequence[Rule]) -> Place | None:
    """The parameter that a tensor maps to, and how; None where the table has no rule."""
    for rule in table:
        if (number := _number(rule.torch, name)) is not None:
            return Place(name, rule.flax.replace("{i}", number), rule)
    return None


def their_name(name: str, table: Sequence[Rule]) -> Place | None:
    """The tensor that a parameter maps to, and how; None where the table has no rule."""
    for rule in table:
        if (number := _number(rule.flax, name)) is not None:
            return Place(rule.torch.replace("{i}", number), name, rule)
    return None


def _number(pattern: str, name: str) -> str | None:
    """What `{i}` in a rule's name stands for (nothing, where it has none); None if it differs."""
    before, _, after = pattern.partition("{i}")
    if not after:
        return "" if name == pattern else None
    number = name.removeprefix(before).removesuffix(after)
    fits = name == before + number + after and number.isascii() and number.isdigit()
    return number if fits else None


def convert_shape(shape: tuple[int, ...], rule: Rule) -> tuple[int, ...]:
    """The shape of a tensor of `shape` in our layout."""
    if rule.how == "transpose":
        return shape[::-1]
    if all(axis < len(shape) and shape[axis] == 1 for axis in rule.axes):
        return tuple(size for axis, size in enumerate(shape) if axis not in rule.axes)
    return shape


def convert_tensor(tensor: np.ndarray, rule: Rule) -> np.ndarray:
    """A PyTorch tensor in our layout (see `tables`)."""
    return tensor.T if rule.how == "transpose" else tensor.squeeze(rule.axes)


def restore_tensor(value: np.ndarray, rule: Rule) -> np.ndarray:
    """A parameter of ours in PyTorch's layout: the inverse of `convert_tensor`."""
    return value.T if rule.how == "transpose" else np.expand_dims(value, rule.axes)


def match(tensors: Shapes, parameters: Shapes, table: Sequence[Rule], name: str) -> list[Place]:
    """Pair all tensors with all parameters, by name and shape.

    Raises M4MError that lists every tensor without a place, every parameter without a tensor and
    every difference of shape. `name` says what holds the tensors.
    """
    places, wrong = [], []
    for key, shape in tensors.items():
        place = our_name(key, table)
        if place is None or place.flax not in parameters:
            wrong.append(f"{key} has no place")
            continue
        want = parameters[place.flax]
        if convert_shape(shape, place.rule) != want:
            wrong.append(f"{key} has shape {shape}, {place.flax} wants {want}")
        places.append(place)
    there = {place.flax for place in places}
    for key in parameters.keys() - there:
        missing = their_name(key, table)
        wrong.append(f"{missing.torch if missing else key} is not there")
    if wrong:
        raise M4MError(f"{name} does not fit the model: {'; '.join(sorted(wrong))}")
    return places


def parameters_of(
    tensors: Mapping[str, np.ndarray], places: Sequence[Place]
) -> Iterator[tuple[str, np.ndarray]]:
    """The parameters by our names, one at a time, in our layout."""
    return ((p.flax, convert_tensor(tensors[p.torch], p.rule)) for p in places)


def tensors_of(
    parameters: dict[str, Any], table: Sequence[Rule], name: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Parameters by PyTorch's names, one at a time, in its layout.

    They are taken out of `parameters` on the way, so that nothing is held twice. Raises M4MError
    that lists every parameter for which PyTorch has no name.
    """
    places = {key: their_name(key, table) for key in parameters}
    if odd := [key for key, place in places.items() if place is None]:
        raise M4MError(f"{name} holds what PyTorch has no name for: {', '.join(sorted(odd))}")
    return (
        (place.torch, restore_tensor(np.asarray(parameters.pop(key)), place.rule))
        for key, place in places.items()
        if place is not None
    )
