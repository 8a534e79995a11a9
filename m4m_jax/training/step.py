"""The training step: a pure function of base, state, batch, numbers and key."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh, use_abstract_mesh

from m4m_jax.data.packing import PackedBatch
from m4m_jax.models.noise import Noise
from m4m_jax.models.parameters import cast
from m4m_jax.models.placement import gathered
from m4m_jax.models.system import System
from m4m_jax.training.optim import Hyper, Schedule, adamw
from m4m_jax.training.state import TrainState

Metrics = dict[str, Array]
Step = Callable[[Any, TrainState, PackedBatch, Hyper, Array], tuple[TrainState, Metrics]]


def assemble(graph: nnx.GraphDef, params: Any, base: Any, dtype: jnp.dtype) -> System:
    """The system of its parts, computing in `dtype`."""
    return nnx.merge(graph, *(gathered(cast(part, dtype)) for part in (params, base)))


def make_step(
    graph: nnx.GraphDef,
    schedule: Schedule,
    dtype: jnp.dtype = jnp.float32,
    mesh: Mesh | None = None,
) -> Step:
    """A training step for systems of one structure.

    step(base, state, batch, hyper, key) -> (state, metrics). Leaves of the batch lead with
    microbatches, [A, S, ...], whose gradients are accumulated: the loss is the sum of the NLL over
    the real target tokens of all of them, over their number. Random numbers depend on the key and
    on the state's step alone. mesh: on which the arguments lie, and the computation is split.
    """

    def loss(params: Any, base: Any, batch: PackedBatch, noise: Noise) -> tuple[Array, Array]:
        return assemble(graph, params, base, dtype).loss(batch, noise)

    def gradients(
        base: Any, params: Any, batch: PackedBatch, hyper: Hyper, key: Array
    ) -> tuple[Array, Array, Any]:
        """Sums over microbatches: NLL, tokens and the gradient of the NLL."""
        parts = batch.target.shape[0]

        def one(index: Array, part: PackedBatch) -> tuple[Array, Array, Any]:
            random = jax.random.fold_in(key, index)
            noise = Noise(random, hyper.dropout, hyper.lora_dropout, hyper.mask_rate)
            (value, tokens), grads = jax.value_and_grad(loss, has_aux=True)(
                params, base, part, noise
            )
            return value, tokens, grads

        first = one(jnp.asarray(0), jax.tree.map(lambda x: x[0], batch))
        if parts == 1:
            return first

        def add(total, indexed):
            return jax.tree.map(jnp.add, total, one(*indexed)), None

        rest = (jnp.arange(1, parts), jax.tree.map(lambda x: x[1:], batch))
        return jax.lax.scan(add, first, rest)[0]

    def step(
        base: Any, state: TrainState, batch: PackedBatch, hyper: Hyper, key: Array
    ) -> tuple[TrainState, Metrics]:
        random = jax.random.fold_in(key, state.step)
        value, tokens, grads = gradients(base, state.params, batch, hyper, random)
        grads = jax.tree.map(lambda g: g / tokens, grads)
        optimizer = adamw(hyper, schedule, state.step)
        updates, moments = optimizer.update(grads, state.moments, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "nll": value / tokens,
            "tokens": tokens,
            "gradient_norm": optax.global_norm(grads),
            "learning_rate": hyper.learning_rate * jnp.asarray(schedule(state.step)[0]),
        }
        return TrainState(params, moments, state.step + 1), metrics

    return step if mesh is None else on_mesh(step, mesh)


def on_mesh(function: Callable, mesh: Mesh) -> Callable:
    """The function, whose computation is split over a mesh when it is traced."""

    @functools.wraps(function)
    def traced(*arguments: Any) -> Any:
        with use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return traced


def make_evaluation(
    graph: nnx.GraphDef, dtype: jnp.dtype = jnp.float32, mesh: Mesh | None = None
) -> Callable:
    """evaluate(base, params, batch) -> (sum of the NLL, tokens) of a packed batch [A, S, ...]."""

    def evaluate(base: Any, params: Any, batch: PackedBatch) -> tuple[Array, Array]:
        system = assemble(graph, params, base, dtype)
        sums = jax.lax.map(system.loss, batch)
        return sums[0].sum(), sums[1].sum()

    return evaluate if mesh is None else on_mesh(evaluate, mesh)
