"""Meshes of devices, and parameters, optimiser state and batches on them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from m4m_jax.data.packing import BLOCK, PackedBatch
from m4m_jax.errors import M4MError
from m4m_jax.models import placement
from m4m_jax.models.placement import AXES
from m4m_jax.models.system import System


def make_mesh(sizes: Mapping[Any, int], devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over the devices, by default all of all hosts, with all of `AXES`.

    An axis that is not named has size 1, and one of size -1 takes what the others leave. On several
    slices of TPUs, which a slower network links, `data` goes across them.

    Raises:
        M4MError: the sizes do not divide the devices.
    """
    devices = jax.devices() if devices is None else devices
    shape = _shape({axis: sizes.get(axis, 1) for axis in AXES}, len(devices))
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if shape[0] % slices:
        raise M4MError(f"mesh data={shape[0]} does not divide over {slices} slices")
    if slices > 1:
        inner = (shape[0] // slices, *shape[1:])
        found = mesh_utils.create_hybrid_device_mesh(
            inner, (slices, 1, 1), devices, allow_split_physical_axes=True
        )
    else:
        found = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(found, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _shape(sizes: dict[str, int], devices: int) -> tuple[int, ...]:
    """The sizes of all axes, whose product is the number of devices."""
    told = f"mesh {', '.join(f'{axis}={size}' for axis, size in sizes.items())}"
    for axis, size in sizes.items():
        if size < 1 and size != -1:
            raise M4MError(f"{told}: {axis} has {size} devices; give 1 or more, or -1 for the rest")
    rest = [axis for axis, size in sizes.items() if size == -1]
    if len(rest) > 1:
        raise M4MError(f"{told}: only one axis can be -1, which takes the devices that are left")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if devices % fixed:
        raise M4MError(f"{told} takes a multiple of {fixed} devices, not {devices}")
    if not rest and fixed != devices:
        raise M4MError(f"{told} takes {fixed} devices, not {devices}; -1 takes all that are left")
    return tuple(devices // fixed if size == -1 else size for size in sizes.values())


def shards(mesh: Mesh) -> int:
    """Into how many shards a batch is split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


class Part(NamedTuple):
    """What a host reads of every batch: one part, of how many parts, of how many shards each."""

    number: int
    parts: int
    shards: int


def host_part(mesh: Mesh, host: int) -> Part:
    """The part of a batch that a host reads: the shards that its devices hold, in their order.

    Hosts that `tensor` goes across hold the same shards, and all read them.

    Raises:
        M4MError: hosts hold some of their shards together with others, but not all.
    """
    held: dict[int, set[int]] = defaultdict(set)
    for shard, devices in enumerate(mesh.devices.reshape(shards(mesh), -1)):
        for device in devices:
            held[device.process_index].add(shard)
    parts = sorted({frozenset(found) for found in held.values()}, key=min)
    if sum(map(len, parts)) != shards(mesh):
        raise M4MError(
            f"mesh tensor={mesh.shape['tensor']} does not divide the {mesh.size // len(held)} "
            f"devices of each of {len(held)} hosts, nor is it a multiple of them"
        )
    return Part(parts.index(frozenset(held[host])), len(parts), len(held[host]))


def check_divides(system: System, mesh: Mesh) -> None:
    """Raise M4MError where the mesh does not divide what it is to split of a system."""
    tensor, fsdp = mesh.shape["tensor"], mesh.shape["fsdp"]
    if BLOCK % tensor:
        raise M4MError(f"mesh tensor={tensor} does not divide a block of {BLOCK} tokens")
    for path, module in nnx.iter_modules(system):
        heads = getattr(module, "heads", tensor)
        if heads % tensor:
            where = ".".join(map(str, path))
            raise M4MError(f"mesh tensor={tensor} does not divide the {heads} heads of {where}")
    for path, variable in nnx.to_flat_state(nnx.state(system)):
        axes = variable.get_metadata().get("axes") or ()
        split = zip(variable.shape, placement.kept(axes), strict=False)
        for size, axis in split:
            if axis is not None and size % mesh.shape[axis]:
                number = tensor if axis == "tensor" else fsdp
                where = ".".join(map(str, path))
                raise M4MError(f"mesh {axis}={number} does not divide the {size} rows of {where}")


def places(tree: Any, mesh: Mesh) -> Any:
    """Where the arrays of a pytree lie: a NamedSharding in the place of each.

    Parameters, and moments with them, lie as the table says of their logical axes; arrays without
    any lie whole on every device.
    """

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, nnx.Variable):
            return NamedSharding(mesh, PartitionSpec())
        axes = leaf.get_metadata().get("axes") or ()
        return leaf.replace(NamedSharding(mesh, placement.kept(axes)))

    return jax.tree.map(place, tree, is_leaf=lambda x: isinstance(x, nnx.Variable))


def place(tree: Any, mesh: Mesh) -> Any:
    """A pytree with its arrays on the mesh; see `places`.

    Of several hosts each gives the same arrays, and takes of them what its devices keep.
    """
    if jax.process_count() > 1:  # an array on a device of this host cannot go to another's
        tree = jax.tree.map(lambda x: np.asarray(x) if x.is_fully_addressable else x, tree)
    return jax.device_put(tree, places(tree, mesh))


def batch_place(mesh: Mesh) -> NamedSharding:
    """Where the arrays of a packed batch [A, S, ...] lie."""
    return NamedSharding(mesh, PartitionSpec(None, placement.RULES["shard"].kept))


def shard_batch(batch: PackedBatch, mesh: Mesh) -> PackedBatch:
    """Place a host's part of a packed batch [A, S, ...], its shards in the host's order."""
    where = batch_place(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(where, x), batch)
