"""Where arrays lie on a mesh of devices: one table from logical names to the axes of the mesh.

Parameters carry the logical name of each of their axes (`nnx` metadata `axes`), and `constrain`
names those of activations where XLA's own choice would be a bad one. Models know no mesh: while a
step is traced, the mesh is JAX's abstract mesh, and without one nothing is constrained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
from flax import nnx
from jax import Array
from jax.sharding import PartitionSpec

AXES = ("data", "fsdp", "tensor")
"""The axes of a mesh: batches are split over the first two, parameters over the last two."""

Split = str | tuple[str, ...] | None


class Place(NamedTuple):
    """Which axes of the mesh a logical axis is split over: in memory, and in computation."""

    kept: Split
    used: Split


RULES: dict[str | None, Place] = {
    "shard": Place(("data", "fsdp"), ("data", "fsdp")),
    "embed": Place("fsdp", None),
    "heads": Place("tensor", "tensor"),
    "mlp": Place("tensor", "tensor"),
    "token": Place("tensor", "tensor"),
    # 3331 and 5123 tokens divide by no useful number: output layers split what they read instead.
    "vocab": Place(None, None),
    "rank": Place(None, None),
    None: Place(None, None),
}
"""shard: of a packed batch. embed: the width of a model. heads: the width of all heads of an
attention. mlp: of a feed-forward part. token: positions of a block. rank: of a low-rank update."""


def kept(axes: Sequence[str | None]) -> PartitionSpec:
    """How a parameter with these logical axes lies in memory.

    Vectors are whole on the devices that share a matrix by its width: they are too small to gather.
    """
    if len(axes) == 1 and axes[0] == "embed":
        return PartitionSpec()
    return PartitionSpec(*(RULES[axis].kept for axis in axes))


def constrain(x: Array, *axes: str | None) -> Array:
    """`x`, split in computation as the table says of its axes; as it is where there is no mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    spec = PartitionSpec(*(RULES[axis].used for axis in axes))
    return jax.lax.with_sharding_constraint(x, spec)


def gathered(variables: nnx.State) -> nnx.State:
    """Parameters as they are computed with: those kept in parts are put together where needed.

    They are held in parts first, so that what is sent is in the precision that they come in, and
    their gradients, which go the other way, are summed in parts.
    """

    def gather(variable: nnx.Variable) -> nnx.Variable:
        axes = variable.get_metadata().get("axes")
        if not axes or jax.sharding.get_abstract_mesh().empty:
            return variable
        parts = jax.lax.with_sharding_constraint(variable[...], kept(axes))
        return variable.replace(constrain(parts, *axes))

    return jax.tree.map(gather, variables, is_leaf=lambda x: isinstance(x, nnx.Variable))
