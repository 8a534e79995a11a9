"""Small programs compiled for four TPU chips, and what is counted in them; run as a program.

Prints a line of JSON for each: a product, the same in a loop, attention-like batched products, a
gradient that is summed over devices, one kept in parts, a copy, what is told of a program that
does not fit, what is sent between slices, and what hosts of a pod read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from m4m_jax.tpu import compile as compiling

compiling.environment()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

from m4m_jax.flops import matmul_flops  # noqa: E402
from m4m_jax.models import placement  # noqa: E402
from m4m_jax.tpu import costs, hlo  # noqa: E402
from m4m_jax.tpu.plan import plan  # noqa: E402
from m4m_jax.tpu.programs import Program  # noqa: E402
from m4m_jax.training import sharding  # noqa: E402
from m4m_jax.training.step import on_mesh  # noqa: E402

TARGET = compiling.Target("v5e:2x2")


def looped(x: Any, w: Any) -> Any:
    return jax.lax.scan(lambda h, _: (jnp.tanh(h @ w), None), x, length=7)[0]


def batched(q: Any, k: Any) -> Any:
    return jnp.einsum("bthd,bshd->bhts", q, k)


def loss(w: Any, x: Any) -> Any:
    return jax.grad(lambda w: ((x @ w) ** 2).sum())(w)


def narrowed(w: Any, x: Any) -> Any:
    """The gradient by a float32 parameter that is kept in parts, computed in bfloat16."""

    def loss(w: Any) -> Any:
        param = nnx.Param(w.astype(jnp.bfloat16), axes=("embed", "heads"))
        return ((x @ placement.gathered(nnx.State({"w": param}))["w"][...]) ** 2).sum()

    return w - jax.grad(loss)(w)


def programs(mesh: Any) -> Iterator[tuple[str, Callable, tuple[Any, ...], Any]]:
    def array(*shape: int, spec: Any = None) -> Any:
        where = NamedSharding(mesh, spec or PartitionSpec())
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=where)

    data, parts = PartitionSpec("data"), PartitionSpec("fsdp")
    yield "product", jnp.matmul, (array(512, 256), array(256, 1024)), None
    yield "looped", looped, (array(512, 256), array(256, 256)), None
    yield "batched", batched, (array(4, 128, 8, 64), array(4, 256, 8, 64)), None
    yield "summed", loss, (array(256, 512), array(4096, 256, spec=data)), PartitionSpec()
    yield "parts", loss, (array(256, 512, spec=parts), array(4096, 256, spec=data)), parts
    wide = jax.ShapeDtypeStruct(
        (512, 256), jnp.float32, sharding=NamedSharding(mesh, placement.kept(("embed", "heads")))
    )
    yield (
        "narrowed",
        on_mesh(narrowed, mesh),
        (wide, array(4096, 512, spec=parts)),
        PartitionSpec("fsdp"),
    )
    yield "copied", lambda x: x[::-1] * 2, (array(4096, 4096),), None


def too_large(devices: Any) -> compiling.Report:
    """The report of a program that has three arrays of 8 GB each."""
    mesh = sharding.make_mesh({"data": 4}, devices)
    x = jax.ShapeDtypeStruct(
        (2**16, 2**16), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec())
    )
    lowered = jax.jit(jnp.matmul).lower(x, x)
    program = Program(lowered, {}, 1, (0, 0), 1.0, (), "step", "for the test")
    return compiling.report(program, mesh, TARGET)


def over_slices() -> dict[str, Any]:
    """What is sent for a gradient that is summed over two slices of eight chips."""
    target = compiling.Target("v5e:2x4", slices=2)
    mesh = sharding.make_mesh({"data": -1}, compiling.devices(target))
    w = jax.ShapeDtypeStruct((256, 512), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    x = jax.ShapeDtypeStruct(
        (4096, 256), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data"))
    )
    lowered = jax.jit(loss, out_shardings=w.sharding).lower(w, x)
    program = Program(lowered, {}, 1, (0, 0), 1.0, (), "step", "for the test")
    report = compiling.report(program, mesh, target)
    return {"collectives": report.collectives, "network": report.roofline["network"]}


def parts(**mesh: int) -> list[sharding.Part]:
    """What each host of a pod of 16 hosts with 4 chips each reads of a batch."""
    placed = sharding.make_mesh(mesh, compiling.devices(compiling.Target("v5e:8x8")))
    return [sharding.host_part(placed, host) for host in range(16)]


def held(text: str) -> int:
    """Bytes that a program's arguments take."""
    computations, entry = hlo.parse(text)
    lines = computations[entry].lines.values()
    return sum(hlo.held(i.shape) for i in lines if i.opcode == "parameter")


def main() -> None:
    devices = compiling.devices(TARGET)
    large = too_large(devices)
    print(json.dumps({"name": "large", "told": [*compiling.lines(large, TARGET)]}), flush=True)
    print(json.dumps({"name": "slices", **over_slices()}), flush=True)
    hosts = [parts(data=-1), parts(data=-1, tensor=4), parts(tensor=4, fsdp=16)]
    print(json.dumps({"name": "hosts", "parts": hosts}), flush=True)
    for name, function, arguments, result in programs(sharding.make_mesh({"data": 4}, devices)):
        sizes = {"parts": {"data": 2, "fsdp": 2}, "narrowed": {"fsdp": 4}}.get(name, {"data": 4})
        mesh = sharding.make_mesh(sizes, devices)
        ((_, function, arguments, result),) = (p for p in programs(mesh) if p[0] == name)
        where = None if result is None else NamedSharding(mesh, result)
        lowered = jax.jit(function, out_shardings=where).lower(*arguments)
        planned, compiled = plan(lowered), lowered.compile()
        cost = costs.count(planned.text, compiling.groups(mesh))
        memory = compiled.memory_analysis()
        line = {
            "name": name,
            "flops": cost.flops,
            "traced": matmul_flops(jax.make_jaxpr(function)(*arguments)),
            "xla": compiled.cost_analysis().get("flops"),
            "bytes": cost.bytes,
            "compiled": costs.count(compiled.as_text(), compiling.groups(mesh))[:2],
            "held": [held(planned.text), planned.arguments, planned.results],
            "xla held": [memory.argument_size_in_bytes, memory.output_size_in_bytes],
            "sent": [[c.kind, c.bytes, c.devices, c.share, c.slices] for c in cost.collectives],
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
