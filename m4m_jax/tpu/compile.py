"""`m4m compile`: a configuration's program compiled for a TPU topology, and what it costs there."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from m4m_jax.config import Config
from m4m_jax.errors import M4MError, lacking
from m4m_jax.files import atomic_path
from m4m_jax.runtime import NO_TPU
from m4m_jax.tpu import chips, costs
from m4m_jax.tpu.plan import Plan, plan

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    **NO_TPU,
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_COMPILATION_CACHE_DIR": "",  # a program out of the cache has no text to read
}
"""What libtpu and JAX must be told on a host that has no TPU, before they are loaded."""


@dataclasses.dataclass(frozen=True)
class Target:
    """What to compile for: a topology such as `v5e:16x16`, and how many such slices."""

    topology: str
    slices: int = 1

    @property
    def tpu(self) -> chips.TPU:
        """What its chips can do."""
        return chips.tpu_of(self.topology)


@dataclasses.dataclass(frozen=True)
class Report:
    """What a program costs a device. Sizes in bytes, times in seconds.

    Attributes:
        told: what was assumed, in words.
        turn: what it computes when it is called: a training step, or a window of each sequence.
        chips: devices of the mesh.
        mesh: their number by axis.
        windows: music that all of them go through in a step, in windows.
        parameters: trained, and all.
        memory: by kind; `peak` is all of it at once. Where it does not fit, that of arguments and
            `peak` alone.
        capacity: what a device has; where it does not fit, what XLA may use of it.
        flops: operations of the matrix products of a device.
        useful: those that one device would need, over the number of devices.
        hbm: bytes to and from memory.
        collectives: bytes that a device sends, by kind.
        roofline: the least times, in arithmetic, in memory, in networks; none where it does not
            fit.
        plan_seconds: how long XLA took for it.
    """

    told: str
    turn: str
    chips: int
    mesh: dict[str, int]
    windows: int
    parameters: tuple[int, int]
    memory: dict[str, int]
    capacity: float
    useful: float
    flops: float = 0.0
    hbm: float = 0.0
    collectives: dict[str, float] = dataclasses.field(default_factory=dict)
    roofline: dict[str, float] = dataclasses.field(default_factory=dict)
    plan_seconds: float = 0.0

    @property
    def fits(self) -> bool:
        """Whether a device has room for it."""
        return bool(self.roofline)

    @property
    def seconds(self) -> float:
        """The least time of a step."""
        return max(self.roofline.values())

    @property
    def bound(self) -> str:
        """What takes that long."""
        return max(self.roofline, key=lambda name: self.roofline[name])

    @property
    def needed(self) -> float:
        """Useful operations, without those that XLA finds nothing to depend on."""
        return min(self.useful, self.flops)

    def utilisation(self, target: Target) -> float:
        """The share of the chip's rate that useful arithmetic takes at that time."""
        return self.needed / (self.seconds * target.tpu.chip.flops)


def environment() -> None:
    """Set what libtpu must be told; JAX must not have been imported yet."""
    os.environ.update(ENVIRONMENT)


def devices(target: Target) -> Sequence[Any]:
    """The devices of a topology.

    Raises:
        M4MError: libtpu is not installed, or there is no such topology.
    """
    from jax.experimental import topologies

    chips.tpu_of(target.topology)  # refuses kinds that there are not
    more = {"num_slices": target.slices} if target.slices > 1 else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=target.topology, **more)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        absent = "libtpu" in reason.lower() or "not installed" in reason
        if absent or isinstance(error, ImportError):
            raise lacking("m4m compile needs libtpu", "tpu") from error
        raise M4MError(
            f"topology {target.topology} is none that libtpu knows ({reason}); it knows v5e:16x16, "
            "v5p:4x8x8 and v6e:16x16, for instance"
        ) from error
    return found.devices


def compile_training(config: Config, target: Target, windows: int | None = None) -> Report:
    """Compile the training step of a configuration; `windows` a shard, by default its batch."""
    from m4m_jax.tpu import programs
    from m4m_jax.training import sharding

    mesh = sharding.make_mesh(config.mesh, devices(target))
    return report(programs.training(config, mesh, windows), mesh, target)


def compile_sampling(config: Config, target: Target, sequences: int) -> Report:
    """Compile the sampler of a configuration's system, of so many sequences a device."""
    from m4m_jax.tpu import programs
    from m4m_jax.training import sharding

    mesh = sharding.make_mesh({"data": -1}, devices(target))
    return report(programs.sampling(config, mesh, sequences), mesh, target)


def report(program: Any, mesh: Any, target: Target) -> Report:
    """Plan a `programs.Program` and count what it costs a device of the mesh."""
    about = {
        "told": program.told,
        "turn": program.turn,
        "chips": mesh.size,
        "mesh": dict(mesh.shape),
        "windows": program.windows,
        "parameters": program.parameters,
        "capacity": target.tpu.memory,
        "useful": program.flops / mesh.size,
    }
    began = time.monotonic()
    try:
        planned = plan(program.lowered)
    except Exception as error:
        if (room := _room(str(error))) is None:
            raise
        needed, about["capacity"] = room
        return Report(memory={**program.sizes, "peak": needed}, **about)
    seconds = time.monotonic() - began
    cost = costs.count(planned.text, groups(mesh), program.turns)
    sent: dict[str, float] = defaultdict(float)
    for collective in cost.collectives:
        sent[collective.kind + (" between slices" if collective.slices else "")] += collective.bytes
    if not about["useful"]:
        about["useful"] = cost.flops
    return Report(
        memory=_memory(planned, program.sizes),
        flops=cost.flops,
        hbm=cost.bytes,
        collectives=dict(sent),
        roofline=chips.roofline(cost, target.tpu)._asdict(),
        plan_seconds=seconds,
        **about,
    )


def _memory(planned: Plan, sizes: dict[str, int]) -> dict[str, int]:
    """Bytes by kind: the arguments', and what the program needs beside them."""
    return {
        **sizes,
        "activations": planned.temporary,
        "results": planned.results,
        "peak": planned.arguments + planned.results + planned.temporary,
    }


def _room(message: str) -> tuple[int, int] | None:
    """Bytes that a program needs and that there are, of XLA's message that it has no room."""
    size = r"([\d.]+)([KMG])"
    found = re.search(rf"Used {size} of {size} hbm", message) or re.search(
        rf"memory required .*\({size}\) exceeds available HBM \({size}\)", message
    )
    if found is None:
        return None
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return int(float(found[1]) * units[found[2]]), int(float(found[3]) * units[found[4]])


def groups(mesh: Any) -> costs.Group:
    """Where the devices of a collective's group lie on the torus."""
    order = mesh.devices.reshape(-1)

    def lie(members: Sequence[int]) -> tuple[float, bool]:
        met = [order[n] for n in members]
        places = {tuple(d.coords) for d in met}
        whole = [len({d.coords[axis] for d in order}) > 1 for axis in range(len(order[0].coords))]
        along = [len({place[axis] for place in places}) > 1 for axis in range(len(whole))]
        slices = len({getattr(d, "slice_index", 0) for d in met}) > 1
        return max(sum(along), 1) / max(sum(whole), 1), slices

    return lie


def write(report: Report, path: epath.PathLike) -> None:
    """Write a report as JSON."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(report), indent=1) + "\n")


def read(path: epath.PathLike) -> Report:
    """A report that `write` wrote."""
    return Report(**json.loads(epath.Path(path).read_text()))


def lines(report: Report, target: Target) -> Iterator[str]:
    """A report as it is printed."""
    chip, mesh = target.tpu.chip, ", ".join(f"{axis}={n}" for axis, n in report.mesh.items())
    trained, whole = report.parameters
    yield f"{report.chips} chips of {target.topology}, {mesh}"
    yield f"{report.windows} windows a {report.turn}, {report.told}"
    yield f"{_short(whole)} parameters, {_short(trained)} of them trained"
    yield "memory of a device"
    for kind, size in report.memory.items():
        yield f"  {kind:<12} {size / 2**30:8.3f} GiB"
    spare = (report.capacity - report.memory["peak"]) / 2**30
    room = f"of {report.capacity / 2**30:.4g} GiB"
    if not report.fits:
        yield f"does not fit: {-spare:.2f} GiB more than the device has {room}"
        return
    yield f"fits: {spare:.2f} GiB to spare {room}"
    yield f"a {report.turn} of a device (planned in {report.plan_seconds:.0f} s)"
    yield f"  {report.flops / 1e12:.3f} TFLOP in matrix products, {report.needed / 1e12:.3f} useful"
    yield f"  {report.hbm / 1e9:.2f} GB to and from memory"
    for kind, sent in report.collectives.items():
        yield f"  {sent / 1e6:.2f} MB sent in {kind}"
    times = ", ".join(f"{name} {1e3 * t:.2f} ms" for name, t in report.roofline.items())
    yield f"roofline ({chip.source}): {times}"
    share = report.utilisation(target)
    yield (
        f"{1e3 * report.seconds:.2f} ms a {report.turn} at the least, bound by {report.bound}; "
        f"utilisation {share:.0%} at the most"
    )


def _short(number: int) -> str:
    return f"{number / 1e6:.1f} M"
