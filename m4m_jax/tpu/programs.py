"""The programs of a configuration without weights, data or devices: what they are called with."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from m4m_jax.config import Config
from m4m_jax.data import packing
from m4m_jax.data.packing import BLOCK, PackedBatch, Size
from m4m_jax.data.supply import tasks_of
from m4m_jax.errors import M4MError
from m4m_jax.flops import matmul_flops
from m4m_jax.models import card as cards
from m4m_jax.models.card import Base, Card, read_card
from m4m_jax.models.lm import LMConfig, preset
from m4m_jax.models.parameters import cast
from m4m_jax.models.seq2seq import seq2seq_size
from m4m_jax.models.system import System
from m4m_jax.music.simunote import by_name
from m4m_jax.music.tasks import Task
from m4m_jax.pretrained import CARD
from m4m_jax.sampling import sampler
from m4m_jax.sampling.sampler import Sampling
from m4m_jax.tpu import fills
from m4m_jax.training import sharding
from m4m_jax.training.building import adapter_of
from m4m_jax.training.optim import Hyper, Schedule
from m4m_jax.training.state import init_state, save_memory, split
from m4m_jax.training.step import make_step


class Program(NamedTuple):
    """A traced program.

    Attributes:
        lowered: what can be compiled.
        sizes: bytes a device of its arguments, by kind.
        windows: music that it goes through at once, over all devices, in windows.
        parameters: trained, and all.
        flops: of the matrix products of all devices, without what is computed anew for memory.
        turns: how often loops turn whose number the music decides, by depth.
        turn: what it computes when it is called, in a word or two.
        told: what was assumed, in words.
    """

    lowered: Any
    sizes: dict[str, int]
    windows: int
    parameters: tuple[int, int]
    flops: float
    turns: tuple[int, ...]
    turn: str
    told: str


def training(config: Config, mesh: Mesh, windows: int | None = None) -> Program:
    """The training step of a configuration on a mesh; `windows` a shard, by default its batch."""
    config = _with_batch(config, mesh, windows)
    shards = sharding.shards(mesh)
    system, task = abstract_system(config), _task(config)
    sharding.check_divides(system, mesh)
    masked = system.lm.masked or system.reference_lm.masked
    size = _size(config, task, shards, masked)
    batch = _batch(config, task, size, mesh, masked)
    flops = _products(config, system, batch)
    if config.remat:
        save_memory(system)
    graph, params, base = split(system)
    state = _placed(jax.eval_shape(init_state, params), mesh)
    schedule = Schedule(config.optimizer.schedule, config.steps, config.optimizer.warmup)
    step = jax.jit(
        make_step(graph, schedule, jnp.dtype(config.precision), mesh),
        donate_argnums=1,
        out_shardings=(sharding.places(state, mesh), None),
    )
    base = _placed(base, mesh)
    sizes = {
        "parameters": _bytes(state.params) + _bytes(base),
        "optimiser": _bytes(state.moments),
        "batch": _bytes(batch),
    }
    real = f"{size.rows} distinct rows and {size.blocks} blocks of {BLOCK} target tokens a shard"
    told = f"of {real}, as of {fills.kind_of(task)} made up"
    lowered = step.lower(base, state, batch, _abstract(Hyper()), _key())
    counts = _count(params), _count(params) + _count(base)
    return Program(lowered, sizes, config.batch, counts, flops, (), "step", told)


def sampling(config: Config, mesh: Mesh, sequences: int) -> Program:
    """The sampler on a mesh, of so many sequences a device; parameters are whole on each.

    A row has as many tokens as one of the music has that stands for the data.
    """
    system, task = abstract_system(config), _task(config)
    devices, width, steps = mesh.size, 2 * task.max_notes, config.window
    batch = sequences * devices
    split_up = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    whole = NamedSharding(mesh, PartitionSpec())
    graph, weights = nnx.split(system)
    dtype = jnp.dtype(config.precision)
    weights = jax.eval_shape(lambda w: cast(w, dtype), weights)
    sizes = system.lm.config
    reference = None
    if task.reference is not None:
        heard = steps // config.compress.reference
        reference = jax.ShapeDtypeStruct((batch, heard, system.reference_lm.config.width), dtype)
    prompt = jax.ShapeDtypeStruct((batch, 0, sizes.width), dtype)
    state, carry = jax.eval_shape(
        lambda *a: sampler.begin(graph, steps, width, *a), weights, reference, prompt, _number()
    )

    def place(tree: Any) -> Any:
        def one(x: Any) -> Any:
            where = split_up if x.ndim and x.shape[0] == batch else whole
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

        return jax.tree.map(one, tree)

    rows = jax.ShapeDtypeStruct((batch, steps, width), jnp.int32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
    arguments = (weights, state, carry, rows, _number(), _number(), keys)
    arguments = place(arguments)
    lowered = sampler.write_rows.lower(graph, *arguments, _abstract(Sampling(1.0)), None, None)
    size = _size(config.model_copy(update={"batch": sequences}), task, 1, system.lm.masked)
    tokens = min(width, round(size.blocks * BLOCK / (sequences * steps)) + 1)
    kept = {"parameters": _bytes(arguments[0]), "caches": _bytes(arguments[2])}
    told = f"of {tokens} tokens a row, as of {fills.kind_of(task)} made up; {steps} rows a window"
    counts = 0, _count(weights)
    return Program(lowered, kept, batch, counts, 0.0, (steps, tokens), "window", told)


def abstract_system(config: Config) -> System:
    """The system of a configuration with shapes in the place of arrays; no weights are read."""
    bases = [_card_of(place).lm for place in config.bases]
    *reader, writer = bases or [_new_size(config)]
    adapter = adapter_of(config)
    named = Base(fingerprint="none", path="none")
    frozen = adapter is not None and adapter.tune == "adapter"
    return cards.skeleton(
        Card(
            system=config.system,
            lm=writer,
            reference_lm=reader[0] if reader else None,
            adapter=adapter,
            base=named if frozen else None,
            reference_base=named if frozen and reader else None,
            task=config.task,
            reference=None,
            target="all",
            max_notes=16,
            window=config.window,
        )
    )


def _card_of(place: str) -> Card:
    path = epath.Path(place) / CARD
    if not path.is_file():
        raise M4MError(f"base={place} is not a model directory: it has no {CARD}; leave base out")
    return read_card(path.read_text(), str(path))


def _new_size(config: Config) -> LMConfig:
    """A new language model's sizes; an adapter's without a base, of size 1 by default."""
    sized = seq2seq_size if config.system == "seq2seq" else preset
    encoder = config.encoder or "reference"
    return sized(config.size or "1", vocabulary=config.vocabulary, encoder=encoder)


def _with_batch(config: Config, mesh: Mesh, windows: int | None) -> Config:
    """The configuration with a batch that divides: of so many windows a shard, or its own."""
    shards = sharding.shards(mesh)
    parts = config.accumulate * shards
    if windows is not None:
        config = config.model_copy(update={"batch": windows * shards})
    if config.batch % parts:
        raise M4MError(
            f"a batch of {config.batch} does not divide into {parts} parts ({config.accumulate} to "
            f"accumulate on {shards} shards); give --per-device-batch or batch=..."
        )
    return config


def _task(config: Config) -> Task:
    """A run's (first) task; a language model's has no reference."""
    task = tasks_of(config)[0]
    return dataclasses.replace(task, reference=None) if config.system == "lm" else task


def _size(config: Config, task: Task, shards: int, masked: bool) -> Size:
    parts = config.accumulate * shards
    return fills.usual_size(
        task,
        windows=config.batch // parts,
        shards=parts,
        window=config.window,
        vocabulary=config.vocabulary,
        masked=masked,
    )


def _products(config: Config, system: System, batch: PackedBatch) -> float:
    """Operations of the matrix products of a step, whatever the mesh."""
    graph, params, base = split(system)
    step = make_step(graph, Schedule(), jnp.dtype(config.precision))
    state = jax.eval_shape(init_state, params)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    return matmul_flops(jax.make_jaxpr(step)(base, state, batch, _abstract(Hyper()), _key()))


def _batch(config: Config, task: Task, size: Size, mesh: Mesh, masked: bool) -> PackedBatch:
    """An abstract packed batch [A, S, ...]."""
    shards, where = sharding.shards(mesh), sharding.batch_place(mesh)
    windows, vocabulary = config.batch // (config.accumulate * shards), by_name(config.vocabulary)

    def silence(ratio: int) -> np.ndarray:
        rows = np.full((windows, config.window // ratio, 2 * task.max_notes), vocabulary.pad)
        rows[..., 0] = vocabulary.eos
        return rows.astype(np.int32)

    reference = None if task.reference is None else silence(config.compress.reference)
    shard = packing.pack(
        silence(config.compress.target),
        reference,
        vocabulary=vocabulary,
        sizes=[size],
        masked=masked,
    )
    whole = (config.accumulate, shards)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((*whole, *x.shape[1:]), x.dtype, sharding=where), shard
    )


def _placed(tree: Any, mesh: Mesh) -> Any:
    """Abstract arrays with their places."""
    return jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        tree,
        sharding.places(tree, mesh),
    )


def _abstract(numbers: Any) -> Any:
    return jax.tree.map(lambda _: jax.ShapeDtypeStruct((), jnp.float32), numbers)


def _number() -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), jnp.int32)


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def _bytes(tree: Any) -> int:
    """Bytes a device of placed abstract arrays."""
    leaves = [x for x in jax.tree.leaves(tree) if not jnp.issubdtype(x.dtype, jax.dtypes.extended)]
    return sum(
        x.dtype.itemsize * int(jnp.prod(jnp.array(x.sharding.shard_shape(x.shape)))) for x in leaves
    )


def _count(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))
