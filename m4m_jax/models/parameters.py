"""A model's variables by name, and a fingerprint of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from m4m_jax.models.roformer import PositionTable


def by_name(state: nnx.State) -> dict[str, Any]:
    """Arrays by dotted name, such as `decoder.layers.0.attention.query.kernel`."""
    return {".".join(map(str, path)): v.get_value() for path, v in nnx.to_flat_state(state)}


def fill(state: nnx.State, arrays: Mapping[str, Any]) -> nnx.State:
    """The state with the arrays of those names, of which none may be missing or left over."""
    flat = nnx.to_flat_state(state)
    names = [".".join(map(str, path)) for path, _ in flat]
    if set(names) != set(arrays):
        odd = sorted(set(names) ^ set(arrays))
        raise ValueError(f"names that only one side has: {', '.join(odd)}")
    filled = [(p, v.replace(arrays[n])) for n, (p, v) in zip(names, flat, strict=True)]
    return nnx.from_flat_state(filled)


def fingerprint(state: nnx.State) -> str:
    """A SHA-256 over names, shapes and float32 values, hexadecimal.

    It does not depend on where or in which precision-preserving format the arrays are stored.
    """
    return fingerprint_of(sorted(by_name(state).items()))


def fingerprint_of(arrays: Iterable[tuple[str, Any]]) -> str:
    """The fingerprint of arrays in the order of their names, of which one is held at a time."""
    digest = hashlib.sha256()
    for name, array in arrays:
        values = np.asarray(array, "<f4")
        digest.update(f"{name}{list(values.shape)}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def cast(variables: nnx.State, dtype: jnp.dtype) -> nnx.State:
    """Parameters in the precision to compute in; position tables keep theirs."""

    def convert(variable: nnx.Variable) -> nnx.Variable:
        if isinstance(variable, PositionTable):
            return variable
        return variable.replace(variable[...].astype(dtype))

    return jax.tree.map(convert, variables, is_leaf=lambda x: isinstance(x, nnx.Variable))


def count(state: Any) -> int:
    """The number of numbers in a pytree of arrays."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(state))


def named_leaves(tree: Any) -> dict[str, Array]:
    """The arrays of any pytree by their place in it."""
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def with_leaves(tree: Any, arrays: Mapping[str, Array]) -> Any:
    """A pytree of the structure of `tree` with the arrays that `named_leaves` named."""
    return jax.tree_util.tree_map_with_path(lambda p, _: arrays[jax.tree_util.keystr(p)], tree)


def abstract(tree: Any) -> Any:
    """Shapes, dtypes and shardings of a pytree of arrays, as Orbax wants them for restoring."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
