"""Where arrays lie on a mesh of devices: one table from logical names to mesh axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from m4m_jax.data.packing import PackedBatch
from m4m_jax.errors import M4MError

AXES = ("data", "fsdp", "tensor")
"""The axes a mesh may have: batches are split over the first two, parameters over the last two."""

RULES: dict[str | None, str | None] = {
    "embed": "fsdp",
    "heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
    "rank": None,
    None: None,
}
"""Which mesh axis each logical axis of a parameter is split over."""


def make_mesh(sizes: Mapping[Any, int]) -> Mesh:
    """A mesh over all devices of all hosts. A size of -1 takes what the others leave."""
    devices = len(jax.devices())
    fixed = int(np.prod([n for n in sizes.values() if n > 0]))
    shape = {axis: n if n > 0 else devices // fixed for axis, n in sizes.items()}
    if int(np.prod(list(shape.values()))) != devices:
        raise M4MError(f"mesh {dict(sizes)} does not divide over {devices} devices")
    return jax.make_mesh(
        tuple(shape.values()), tuple(shape), axis_types=(AxisType.Auto,) * len(shape)
    )


def shards(mesh: Mesh) -> int:
    """Into how many shards a batch is split."""
    return int(np.prod([mesh.shape[axis] for axis in _batch_axes(mesh)]))


def _batch_axes(mesh: Mesh) -> tuple[str, ...]:
    return tuple(axis for axis in ("data", "fsdp") if axis in mesh.shape)


def spec(axes: tuple[str | None, ...], mesh: Mesh) -> PartitionSpec:
    """The partition of a parameter with these logical axes."""
    found = (RULES[axis] for axis in axes)
    return PartitionSpec(*(axis if axis in mesh.shape else None for axis in found))


def shard_parameters(state: nnx.State, mesh: Mesh) -> nnx.State:
    """Place variables by the table; those without logical axes go to every device whole."""

    def place(variable: nnx.Variable) -> nnx.Variable:
        axes = variable.get_metadata().get("axes") or ()
        return variable.replace(
            jax.device_put(variable[...], NamedSharding(mesh, spec(axes, mesh)))
        )

    return jax.tree.map(place, state, is_leaf=lambda x: isinstance(x, nnx.Variable))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Place arrays on every device whole."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def complete(tree: Any, mesh: Mesh) -> Any:
    """Place those arrays on every device whole that have no place on the mesh yet."""

    def place(x: jax.Array) -> jax.Array:
        return x if isinstance(x.sharding, NamedSharding) else replicate(x, mesh)

    return jax.tree.map(place, tree)


def shard_batch(batch: PackedBatch, mesh: Mesh) -> PackedBatch:
    """Place a host's part of a packed batch [A, S, ...], its shards in the host's order."""
    sharding = NamedSharding(mesh, PartitionSpec(None, _batch_axes(mesh)))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
