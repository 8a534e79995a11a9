from __future__ import annotations

import json
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from m4m_jax.config import SYSTEMS
from m4m_jax.errors import M4MError
from m4m_jax.models import placement
from m4m_jax.training import sharding
from tests.devices import run_with_devices
from tests.models.small import small_cross, small_system

EIGHT = range(8)  # a mesh is refused before its devices are looked at


@pytest.mark.parametrize(
    ("sizes", "fault"),
    [
        ({"data": 3}, "mesh data=3, fsdp=1, tensor=1 takes a multiple of 3 devices, not 8"),
        (
            {"data": -1, "tensor": 3},
            "mesh data=-1, fsdp=1, tensor=3 takes a multiple of 3 devices, not 8",
        ),
        ({"fsdp": 4}, "takes 4 devices, not 8; -1 takes all"),
        ({"data": 16}, "takes a multiple of 16 devices, not 8"),
        ({"data": 0}, "data has 0 devices; give 1 or more, or -1"),
        ({"data": 8, "fsdp": -2}, "fsdp has -2 devices"),
        ({"data": -1, "fsdp": -1}, "only one axis can be -1"),
    ],
)
def test_a_mesh_that_does_not_divide_the_devices_is_refused_with_the_numbers(sizes, fault):
    with pytest.raises(M4MError, match=fault):
        sharding.make_mesh(sizes, EIGHT)


def test_axes_that_are_not_named_have_size_one():
    mesh = sharding.make_mesh({"fsdp": -1}, jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1}


class Shape:
    """A mesh of which only the shape is looked at."""

    def __init__(self, **sizes: int):
        self.shape = {axis: sizes.get(axis, 1) for axis in placement.AXES}


def on_hosts(hosts: int, **sizes: int) -> Shape:
    """A mesh whose devices lie on so many hosts, equally many on each, in order."""
    mesh = Shape(**sizes)
    numbers = [SimpleNamespace(process_index=k) for k in range(hosts)]
    mesh.size = math.prod(mesh.shape.values())
    mesh.devices = np.repeat(np.array(numbers, object), mesh.size // hosts)
    mesh.devices = mesh.devices.reshape([*mesh.shape.values()])
    return mesh


@pytest.mark.parametrize(
    ("hosts", "sizes", "parts"),
    [
        (1, {"data": 8}, [(0, 1, 8)]),
        (2, {"data": 2, "fsdp": 4}, [(0, 2, 4), (1, 2, 4)]),
        (2, {"data": 4, "tensor": 2}, [(0, 2, 2), (1, 2, 2)]),
        (4, {"data": 2, "tensor": 4}, [(0, 2, 1), (0, 2, 1), (1, 2, 1), (1, 2, 1)]),
        (4, {"tensor": 8}, [(0, 1, 1)] * 4),
    ],
)
def test_a_host_reads_the_shards_that_its_devices_hold(hosts, sizes, parts):
    mesh = on_hosts(hosts, **sizes)
    assert [sharding.host_part(mesh, host) for host in range(hosts)] == parts


def test_shards_of_hosts_may_lie_in_any_order():
    mesh = on_hosts(2, data=4)
    mesh.devices = mesh.devices[[0, 2, 1, 3]]
    assert [sharding.host_part(mesh, host) for host in range(2)] == [(0, 2, 2), (1, 2, 2)]


def test_hosts_that_share_some_of_their_shards_are_refused_with_the_numbers():
    fault = "tensor=3 does not divide the 4 devices of each of 3 hosts, nor is it a multiple"
    with pytest.raises(M4MError, match=fault):
        sharding.host_part(on_hosts(3, data=4, tensor=3), 0)


@pytest.mark.parametrize(
    ("mesh", "fault"),
    [
        (Shape(tensor=4), "mesh tensor=4 does not divide the 2 heads of"),
        (Shape(tensor=3), "mesh tensor=3 does not divide a block of 64 tokens"),
        (Shape(fsdp=5), r"mesh fsdp=5 does not divide the 32 rows of base\."),
    ],
)
def test_a_mesh_that_does_not_divide_the_model_is_refused_with_the_numbers(mesh, fault):
    with pytest.raises(M4MError, match=fault):
        sharding.check_divides(small_cross(), mesh)
    sharding.check_divides(small_cross(), Shape(data=3, fsdp=4, tensor=2))


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_parameter_names_its_axes(name):
    for path, variable in nnx.to_flat_state(nnx.state(small_system(name), nnx.Param)):
        axes = variable.get_metadata().get("axes")
        assert axes is not None, path
        assert len(axes) == variable.ndim, path
        assert set(axes) <= set(placement.RULES), path


def test_matrices_are_kept_in_parts_and_vectors_whole():
    assert placement.kept(("embed", "heads")) == PartitionSpec("fsdp", "tensor")
    assert placement.kept(("heads",)) == PartitionSpec("tensor")
    assert placement.kept(("embed",)) == PartitionSpec()


PLACED = """
import jax, numpy as np
from flax import nnx
from m4m_jax.training import sharding
from m4m_jax.training.optim import Schedule
from m4m_jax.training.state import init_state, split
from m4m_jax.training.step import make_step
from tests.models.small import MICRO, small_cross
from tests.training.small import CALM, batches

mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
graph, params, base = split(small_cross(config=MICRO))
state = sharding.place(init_state(params), mesh)
base = sharding.place(base, mesh)
batch = sharding.shard_batch(next(batches(1, shards=4)), mesh)
assert {len(x.addressable_shards[0].index) and x.addressable_shards[0].data.shape[1]
        for x in jax.tree.leaves(batch)} == {1}
step = jax.jit(make_step(graph, Schedule(), mesh=mesh), donate_argnums=1,
               out_shardings=(sharding.places(state, mesh), None))
after, _ = step(base, state, batch, CALM, jax.random.key(0))
split_params = [x for x in jax.tree.leaves(after.params) if not x.is_fully_replicated]
assert len(split_params) > 10
for tree in (after.params, base):
    for path, variable in nnx.to_flat_state(tree):
        parts = variable[...].size // variable[...].addressable_shards[0].data.size
        axes = variable.get_metadata().get("axes") or ()
        want = 1 if axes == ("embed",) else 2 ** len({"embed", "heads", "mlp"} & set(axes))
        assert parts == want, (path, axes, parts)
where = jax.tree.leaves(jax.tree.map(lambda x: x.sharding, after.params))
for moments in (after.moments[1][0].mu, after.moments[1][0].nu):
    assert jax.tree.leaves(jax.tree.map(lambda x: x.sharding, moments)) == where
print("placed")
"""


@pytest.mark.slow
def test_parameters_moments_base_and_batches_lie_as_the_table_says():
    assert "placed" in run_with_devices(PLACED)


def found(*arguments: str) -> list[dict]:
    """What `tests.training.meshes` finds."""
    program = f"from tests.training import meshes; meshes.main({list(arguments)})"
    return [json.loads(line) for line in run_with_devices(program).splitlines()]


def check(lines: list[dict], most: float) -> None:
    for line in lines:
        done, whole = line["moved"]
        assert done == whole, line
        assert line["worst"] < most, line
        assert line["loss"] < most, line


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_meshes_of_eight_train_as_one_device_does(name):
    lines = found("--systems", name, "--meshes", "data,fsdp,tensor")
    assert len(lines) == 3
    check(lines, 1e-9)


@pytest.mark.slow
def test_a_mesh_with_all_axes_trains_size_0_as_one_device_does():
    check(found("--systems", "cross", "--meshes", "all", "--size", "0", "--steps", "3"), 1e-9)


@pytest.mark.slow
def test_losses_in_float32_agree():
    (line,) = found("--systems", "lm", "--meshes", "all", "--single")
    assert line["loss"] < 1e-5
