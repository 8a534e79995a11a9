"""Tensors of PyTorch into a model that stands already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx

from m4m_jax.convert.tables import Rule
from m4m_jax.convert.weights import match, parameters_of


def load_tensors(
    model: nnx.Module,
    tensors: Mapping[str, np.ndarray],
    table: Sequence[Rule],
    wanted: nnx.filterlib.Filter,
    name: str,
) -> None:
    """Set the variables of `model` that the filter `wanted` names from float tensors, in place.

    Raises M4MError as `match` does; the model is then as it was.
    """
    state = nnx.state(model, wanted)
    variables = {".".join(map(str, path)): v for path, v in nnx.to_flat_state(state)}
    shapes = {k: v.shape for k, v in tensors.items()}
    places = match(shapes, {k: v.shape for k, v in variables.items()}, table, name)
    for key, value in parameters_of(tensors, places):
        # A copy: what is on disk may change.
        variables[key][...] = jnp.array(value, variables[key].dtype)
    nnx.update(model, state)
