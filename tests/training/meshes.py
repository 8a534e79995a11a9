"""Systems trained on meshes of eight virtual devices and on one device, and how far they end apart.

Run as a program, in a process with eight devices (`tests.devices`):

    XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu \
      python -m tests.training.meshes --size tiny --steps 20

Prints a line of JSON for each system and mesh: the largest difference of the losses, relative, and
the largest over all tensors of norm(difference) / norm(tensor). Biases of keys are left out:
their true gradient is 0, and AdamW blows rounding errors up to the size of all other gradients.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from m4m_jax.config import SYSTEMS
from m4m_jax.models import nll
from m4m_jax.models.card import Base, Card, build
from m4m_jax.models.coco_mulla import CocoMullaConfig
from m4m_jax.models.cross import CrossConfig
from m4m_jax.models.lm import LM, preset
from m4m_jax.models.parameters import by_name
from m4m_jax.models.self_attentive import SelfConfig
from m4m_jax.models.seq2seq import SIZES
from m4m_jax.models.system import System
from m4m_jax.training import sharding
from m4m_jax.training.optim import Hyper, Schedule
from m4m_jax.training.state import init_state, split
from m4m_jax.training.step import make_step
from tests.models.conftest import random_rows
from tests.models.small import ABOUT, in_double, microbatches

DEVICES, STEPS, WINDOW, N = 8, 20, 16, 3
MESHES = {
    "data": {"data": 8},
    "fsdp": {"fsdp": 8},
    "tensor": {"data": 2, "tensor": 4},
    "all": {"data": 2, "fsdp": 2, "tensor": 2},
}
ADAPTERS = {
    "cross": CrossConfig(),
    "self": SelfConfig(),
    "coco-mulla": CocoMullaConfig(WINDOW),
}
# Shards of these few tokens fill no larger chunk, and logits are most of the work.
nll.CHUNK = 2
HYPER = Hyper(1e-3, 0.01, 1.0, 0.1, 0.1, 0.2)


def system_of(name: str, size: str) -> System:
    """A new system of a preset's size."""
    sizes = SIZES.get(size, SIZES["1"]) if name == "seq2seq" else preset(size)
    adapter, rngs = ADAPTERS.get(name), nnx.Rngs(0)
    base = None if adapter is None else Base(fingerprint="none", path="none")
    card = Card(system=name, lm=sizes, adapter=adapter, base=base, **ABOUT)
    return build(card, None if adapter is None else LM(sizes, rngs=rngs), rngs=rngs)


def batches(number: int, linked: bool) -> Iterator[Any]:
    """Packed batches in eight shards, whatever the mesh, so that all see the same noise."""
    for seed in range(number):
        target = random_rows(seed, DEVICES, WINDOW, N)
        reference = random_rows(seed + 100, DEVICES, WINDOW, N) if linked else None
        yield microbatches(target, reference, 1, DEVICES)


def train(system: System, mesh: Mesh, steps: int, dtype: Any, linked: bool) -> tuple[Any, Any]:
    """The losses, and the parameters by name after so many steps."""
    graph, params, base = split(system)
    params, base, state = (sharding.place(x, mesh) for x in (params, base, init_state(params)))
    places = sharding.places(state, mesh)
    step = jax.jit(
        make_step(graph, Schedule(), dtype, mesh), out_shardings=(places, None), donate_argnums=1
    )
    losses = []
    for batch in batches(steps, linked):
        batch = sharding.shard_batch(batch, mesh)
        state, metrics = step(base, state, batch, HYPER, jax.random.key(0))
        losses.append(float(metrics["nll"]))
    return np.array(losses), {k: np.asarray(x) for k, x in by_name(state.params).items()}


def compare(name: str, size: str, steps: int, double: bool, meshes: list[str]) -> Iterator[dict]:
    """How far each mesh ends from one device."""
    system, dtype = system_of(name, size), np.float64 if double else np.float32
    system = in_double(system) if double else system
    linked = name != "lm"
    start = {k: np.asarray(x) for k, x in by_name(split(system)[1]).items()}
    one = sharding.make_mesh({"data": 1}, jax.devices()[:1])
    losses, params = train(system, one, steps, dtype, linked)
    moved = [k for k in params if not np.array_equal(params[k], start[k])]
    for mesh in meshes:
        found, there = train(system, sharding.make_mesh(MESHES[mesh]), steps, dtype, linked)
        apart = {
            k: float(np.linalg.norm(there[k] - x) / np.linalg.norm(x))
            for k, x in params.items()
            if not k.endswith("key.bias")
        }
        worst = max(apart, key=lambda k: apart[k])
        yield {
            "system": name,
            "mesh": mesh,
            "size": size,
            "dtype": np.dtype(dtype).name,
            "loss": float(np.abs(found / losses - 1).max()),
            "worst": apart[worst],
            "tensor": worst,
            "moved": [len(moved), len(params)],
            "losses": [losses[0], losses[-1]],
        }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--meshes", default=",".join(MESHES))
    parser.add_argument("--single", action="store_true", help="in float32")
    given = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", not given.single)
    jax.config.update("jax_disable_most_optimizations", True)
    for name in given.systems.split(","):
        for found in compare(
            name, given.size, given.steps, not given.single, given.meshes.split(",")
        ):
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
