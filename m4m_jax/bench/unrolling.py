"""Layers written out one after another, as here, or a loop over stacked weights: which is faster?

    python -m m4m_jax.bench.unrolling [--size 1] [--windows 2]

Times the gradient of a frozen language model's global decoder for its input, with dropout, as an
adapter's training step takes it: the first call, which compiles, and the least of the others.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from m4m_jax.bench.sides import fastest
from m4m_jax.bench.works import WINDOW
from m4m_jax.models.lm import LMConfig, preset
from m4m_jax.models.noise import Noise
from m4m_jax.models.roformer import Stack, causal


class Timing(NamedTuple):
    """Seconds of the first call and of the fastest of the others, and what was computed."""

    first: float
    later: float
    gradient: Array


def new_stack(config: LMConfig) -> Stack:
    """A language model's global decoder."""
    sizes = (config.layers, config.width, config.heads, config.ffn, config.positions)
    return Stack(*sizes, rngs=nnx.Rngs(0))


def unrolled(stack: Stack) -> tuple[Callable[..., Array], Any]:
    """The stack as it is: a function of (weights, h, noise), and its weights."""
    graph, weights = nnx.split(stack)

    def apply(weights: Any, h: Array, noise: Noise) -> Array:
        merged = nnx.merge(graph, weights)
        return merged(h, merged.rope(slice(h.shape[1])), causal(h.shape[1]), noise=noise)

    return apply, weights


def scanned(stack: Stack) -> tuple[Callable[..., Array], Any]:
    """The same as a loop over weights [layers, ...]."""
    graph = nnx.graphdef(stack.layers[0])
    each = [nnx.state(layer) for layer in stack.layers]
    weights = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    table = stack.positions[...]

    def apply(weights: Any, h: Array, noise: Noise) -> Array:
        rope, mask = table[: h.shape[1]], causal(h.shape[1])

        def layer(h: Array, given: tuple[Any, Array]) -> tuple[Array, None]:
            state, number = given
            h, _ = nnx.merge(graph, state)(h, rope, mask, noise=noise.fold(number))
            return h, None

        return jax.lax.scan(layer, h, (weights, jnp.arange(len(each))))[0]

    return apply, weights


def measure(apply: Callable[..., Array], weights: Any, h: Array, times: int = 5) -> Timing:
    """Time the gradient for the input h [B, T, D] of the sum of what is made of it."""
    noise = Noise(jax.random.key(0))
    step = jax.jit(jax.grad(lambda h, weights: jnp.square(apply(weights, h, noise)).sum()))
    began = time.perf_counter()
    gradient = step(h, weights).block_until_ready()
    first = time.perf_counter() - began
    return Timing(first, fastest(lambda: step(h, weights).block_until_ready(), times), gradient)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="1", help="of the language model: 0 to 3, mini or tiny")
    parser.add_argument("--windows", type=int, default=2, help="a batch has")
    given = parser.parse_args(arguments)
    stack = new_stack(preset(given.size))
    h = jax.random.normal(jax.random.key(1), (given.windows, WINDOW, preset(given.size).width))
    for name, make in (("unrolled", unrolled), ("scanned", scanned)):
        timing = measure(*make(stack), h)
        print(f"{name}: first {timing.first:.1f} s, then {timing.later:.3f} s", flush=True)


if __name__ == "__main__":
    main()
