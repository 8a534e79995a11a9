"""Models small enough to test in seconds, with no parameter at a value that hides faults."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from m4m_jax.data.packing import PackedBatch, largest, pack
from m4m_jax.models.adapter import AdapterParam
from m4m_jax.models.card import Base, Card, skeleton
from m4m_jax.models.coco_mulla import CocoMullaConfig
from m4m_jax.models.cross import CrossAdapter, CrossConfig
from m4m_jax.models.lm import LM, LMConfig
from m4m_jax.models.lora import LoRAConfig
from m4m_jax.models.noise import Noise
from m4m_jax.models.parameters import by_name
from m4m_jax.models.roformer import PositionTable, sinusoids
from m4m_jax.models.self_attentive import SelfConfig
from m4m_jax.models.system import System
from m4m_jax.music.simunote import PLAIN
from m4m_jax.training.state import split
from tests.models.conftest import random_rows

CONFIG = LMConfig(32, 2, 2, 64, local_layers=1, local_heads=2, local_ffn=64)
MICRO = dataclasses.replace(CONFIG, layers=1)
UPDATES = LoRAConfig(rank=2, alpha=8.0)
LINKS = CrossConfig(every=1, width=16, heads=2, lora=UPDATES)
ADAPTERS = {"cross": LINKS, "self": SelfConfig(UPDATES), "coco-mulla": CocoMullaConfig(14)}
ABOUT = {"task": "made", "reference": "a", "target": "b", "max_notes": 4, "window": 12}


def filled(system: nnx.Module, seed: int):
    """An abstract system with random numbers: no value is special, every LayerNorm near 1."""
    rng, flat = np.random.default_rng(seed), nnx.to_flat_state(nnx.state(system))
    values = []
    for path, variable in flat:
        if isinstance(variable, PositionTable):
            value = sinusoids(*variable.shape)
        else:
            value = rng.normal(path[-1] == "scale", 0.15, variable.shape).astype(np.float32)
        values.append((path, variable.replace(jnp.asarray(value))))
    return nnx.merge(nnx.graphdef(system), nnx.from_flat_state(values))


def small_lm(seed: int = 0, config: LMConfig = CONFIG) -> LM:
    return filled(nnx.eval_shape(lambda: LM(config, rngs=nnx.Rngs(0))), seed)


def small_cross(
    seed: int = 0, config: LMConfig = CONFIG, links: CrossConfig = LINKS, *, new: bool = False
) -> CrossAdapter:
    """An adapter on `small_lm(seed)`; where `new`, with its zeros as at the start of training."""
    lm = small_lm(seed, config)
    system = nnx.eval_shape(lambda: CrossAdapter(small_lm(seed, config), links, rngs=nnx.Rngs(0)))
    system = filled(system, seed + 1)
    nnx.update(system, nnx.State({"base": nnx.state(lm)}))
    if new:
        for path, variable in nnx.to_flat_state(nnx.state(system, AdapterParam)):
            if path[-1] in ("gate", "b"):
                variable[...] = jnp.zeros(variable.shape)
    return system


def small_card(
    name: str, config: LMConfig = CONFIG, reference_config: LMConfig | None = None, **changes
) -> Card:
    """The card of a small system of any kind; `changes` are of its adapter."""
    adapter = ADAPTERS.get(name)
    if adapter is not None:
        adapter = dataclasses.replace(adapter, **changes)
    base = Base(fingerprint="none", path="none")
    kept = adapter is not None and adapter.tune == "adapter"
    return Card(
        system=name,
        lm=config,
        reference_lm=reference_config,
        adapter=adapter,
        base=base if kept else None,
        reference_base=base if kept and reference_config else None,
        **ABOUT,
    )


def small_system(name: str, seed: int = 0, *args, **kwargs) -> System:
    """A small system of any kind, its numbers random; see `small_card`."""
    return filled(skeleton(small_card(name, *args, **kwargs)), seed)


def in_double(system: System) -> System:
    """The system with all its numbers in float64; needs `jax.enable_x64`."""
    graph, state = nnx.split(system)
    return nnx.merge(graph, jax.tree.map(lambda x: x.astype(jnp.float64), state))


def packed(
    target: np.ndarray,
    reference: np.ndarray | None = None,
    shards: int = 1,
    vocabulary=PLAIN,
    *,
    masked: bool = False,
) -> PackedBatch:
    """Pack at a size that depends on the shapes alone, so that one program serves many batches."""
    heard = None if reference is None else reference.shape[1]
    size = largest(target.shape[0] // shards, *target.shape[1:], heard, masked=masked)
    how = {"vocabulary": vocabulary, "shards": shards, "masked": masked}
    return pack(target, reference, sizes=[size], **how)


def batch_of(
    seed: int = 0, batch: int = 2, steps: int = 12, max_notes: int = 4, *, linked: bool = True
) -> PackedBatch:
    """A packed batch of random rows."""
    target = random_rows(seed, batch, steps, max_notes)
    return packed(target, random_rows(seed + 1, batch, steps, max_notes) if linked else None)


@nnx.jit
def packed_logits(system: System, batch: PackedBatch) -> jax.Array:
    """Logits [S, K, P, V] of each packed target token."""
    return system.lm.head(system.packed_states(batch))


@nnx.jit
def token_nlls(system: System, batch: PackedBatch) -> jax.Array:
    return system.packed_nll(batch)


@functools.partial(jax.jit, static_argnums=0)
def _loss_and_gradients(graph, trained, rest, batch, noise):
    def loss(trained):
        return nnx.merge(graph, trained, rest).loss(batch, noise)[0]

    return jax.value_and_grad(loss)(trained)


def loss_and_gradients(
    system: System, batch: PackedBatch, noise: Noise | None = None
) -> tuple[float, dict[str, np.ndarray]]:
    """The loss, and its gradients by every trained parameter's name."""
    value, grads = _loss_and_gradients(*split(system), batch, noise)
    return float(value), {k: np.asarray(g) for k, g in by_name(grads).items()}


def microbatches(target: np.ndarray, reference: np.ndarray | None, parts: int, shards: int = 1):
    """A packed batch as the training step takes it, leaves [A, S, ...]."""
    batch = packed(target, reference, parts * shards)
    return jax.tree.map(lambda x: x.reshape(parts, shards, *x.shape[1:]), batch)
