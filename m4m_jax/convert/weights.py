"""PyTorch tensors into a model's parameters, by a mapping table, with nothing left over."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx

from m4m_jax.convert.tables import Rule
from m4m_jax.errors import M4MError


def our_name(name: str, table: Sequence[Rule]) -> tuple[str, str] | None:
    """The parameter that a tensor's name maps to, and how; None where the table has no rule."""
    for rule in table:
        pattern = re.escape(rule.torch).replace(r"\{i\}", r"(\d+)")
        if match := re.fullmatch(pattern, name):
            number = match[1] if match.groups() else ""
            return rule.flax.replace("{i}", number), rule.how
    return None


def convert_tensor(tensor: np.ndarray, how: str) -> np.ndarray:
    """A PyTorch tensor in our layout (see `tables`)."""
    if how == "transpose":
        return tensor.T
    if how == "flatten":
        return tensor.reshape(tensor.shape[-1])
    return tensor


def load_tensors(
    model: nnx.Module,
    tensors: Mapping[str, np.ndarray],
    table: Sequence[Rule],
    wanted: nnx.filterlib.Filter,
    name: str,
) -> None:
    """Set the variables of `model` that the filter `wanted` names from float tensors, in place.

    Raises M4MError that lists every tensor without a place, every parameter without a tensor and
    every difference of shape; the model is then as it was.
    """
    state = nnx.state(model, wanted)
    variables = {".".join(map(str, path)): v for path, v in nnx.to_flat_state(state)}
    values, wrong = {}, []
    for key, tensor in tensors.items():
        found = our_name(key, table)
        if found is None or found[0] not in variables:
            wrong.append(f"{key} has no place")
            continue
        value = convert_tensor(np.asarray(tensor), found[1])
        shape = variables[found[0]].shape
        if value.shape != shape:
            wrong.append(f"{key} has shape {value.shape}, {found[0]} wants {shape}")
        values[found[0]] = value
    wrong += [f"{key} is not there" for key in variables if key not in values]
    if wrong:
        raise M4MError(f"{name} does not fit the model: {'; '.join(wrong)}")
    for key, value in values.items():
        variables[key][...] = jnp.asarray(value, variables[key].dtype)
    nnx.update(model, state)
