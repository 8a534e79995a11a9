"""Counting the arithmetic of a program, whatever it computes and wherever it runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def matmul_flops(jaxpr: Any) -> int:
    """Floating-point operations of the matrix products of a program, over all its devices.

    A product of [m, k] and [k, n] is 2 m k n operations. Loops count as often as they go round,
    which XLA's own cost analysis does not see; of the branches of a condition the costliest counts.
    A loop whose rounds the program does not fix counts as one round.

    Args:
        jaxpr: a `jax.extend.core.Jaxpr`, or a closed one, such as `jax.jit(f).trace(...).jaxpr`.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


_FUSED = {"dot_product_attention_fwd_wrapper": 2, "dot_product_attention_bwd_wrapper": 5}
"""The products of cuDNN's attention, which is one operation to JAX; backward it has one again."""


def _of_equation(equation: Any) -> int:
    if equation.primitive.name == "dot_general":
        return _of_product(equation)
    if equation.primitive.name in _FUSED:
        query, key = (x.aval for x in equation.invars[:2])  # [B, T, H, d], [B, S, H, d]
        return _FUSED[equation.primitive.name] * 2 * query.size * key.shape[1]
    inner = [matmul_flops(jaxpr) for jaxpr in _programs(equation.params)]
    if equation.primitive.name == "cond":
        return max(inner)
    return _rounds(equation) * sum(inner)


def _of_product(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)


def _rounds(equation: Any) -> int:
    """How often what is inside an equation is computed."""
    if equation.primitive.name == "scan":
        return equation.params["length"]
    if equation.primitive.name == "shard_map":
        return equation.params["mesh"].size
    if equation.primitive.name == "pallas_call":
        return math.prod(equation.params["grid_mapping"].grid)
    return 1


def _programs(parameters: dict[str, Any]) -> Iterator[Any]:
    """The programs inside an equation."""
    for value in jax.tree.leaves(parameters, is_leaf=_is_program):
        if _is_program(value):
            yield value


def _is_program(value: Any) -> bool:
    return isinstance(value, Jaxpr | ClosedJaxpr)
