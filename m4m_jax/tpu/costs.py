"""What a compiled program costs one device: arithmetic, memory, collectives.

XLA's own cost analysis counts the body of a loop once. Here a body counts as often as the loop
turns, and arrays that lie in the chip itself are no traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from m4m_jax.tpu.hlo import (
    Computation,
    Instruction,
    arrays,
    between_slices,
    first_group,
    held,
    parse,
    size,
)
from m4m_jax.tpu.products import operations


class Collective(NamedTuple):
    """A collective operation of a program.

    kind: such as all-reduce. bytes: what a device sends in all its turns. devices: of a group.
    share: of the torus's dimensions, those that a group extends over. slices: whether it extends
    over several slices.
    """

    kind: str
    bytes: float
    devices: int
    share: float = 1.0
    slices: bool = False


class Costs(NamedTuple):
    """What one device does: operations of matrix products, bytes to and from HBM, collectives."""

    flops: float
    bytes: float
    collectives: tuple[Collective, ...]


Group = Callable[[Sequence[int]], tuple[float, bool]]
"""Logical devices of a group -> (its share of the torus's dimensions, whether it spans slices)."""

_COLLECTIVES = (
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all"),
    *("collective-permute", "collective-broadcast"),
)
_FREE = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota", "after-all"),
    *("partition-id", "replica-id", "optimization-barrier", "domain"),
)


def count(text: str, group: Group | None = None, turns: Sequence[int] = ()) -> Costs:
    """What a compiled module's text costs a device.

    group: where the devices of a group lie. turns: how often loops turn whose number is not in the
    program, by depth.
    """
    computations, entry = parse(text)
    counted = _Count(computations, group, turns)
    counted.walk(entry, 1.0, 0)
    return Costs(counted.flops, counted.bytes, tuple(counted.collectives))


class _Count:
    """Sums over the computations that a program runs through."""

    def __init__(
        self, computations: dict[str, Computation], group: Group | None, turns: Sequence[int]
    ):
        self.computations, self.group, self.turns = computations, group, turns
        self.flops = self.bytes = 0.0
        self.collectives: list[Collective] = []

    def walk(self, name: str, times: float, depth: int) -> None:
        """Add what a computation costs that is run so many times."""
        inside = self.computations[name]
        for i in inside.lines.values():
            if i.opcode == "while":
                turns = self._turns(i.computation("condition"), depth)
                self.walk(i.computation("body"), times * turns, depth + 1)
            elif i.opcode in ("call", "conditional", "async-start"):
                for computation in i.called:
                    self.walk(computation, times, depth)
            elif i.opcode == "fusion":
                self._inside(i.called[0], times)
                self.bytes += times * _fused(inside, i, self.computations[i.called[0]])
            else:
                self.flops += times * operations(inside, i)
                self.bytes += times * _moved(inside, i)
                self._collective(inside, i, times)

    def _inside(self, name: str, times: float) -> None:
        """The matrix products and collectives inside a fusion."""
        inside = self.computations[name]
        for i in inside.lines.values():
            self.flops += times * operations(inside, i)
            self._collective(inside, i, times)
            if i.opcode == "fusion":
                self._inside(i.called[0], times)

    def _turns(self, condition: str, depth: int) -> int:
        """How often a loop turns: the number that its condition compares with, or as was told."""
        lines = self.computations[condition].lines.values()
        found = [int(i.attributes) for i in lines if i.attributes.isdigit()
                 and i.opcode == "constant"]  # fmt: skip
        told = self.turns[depth] if depth < len(self.turns) else 1
        return told if self.turns or not found else max(found)

    def _collective(self, inside: Computation, i: Instruction, times: float) -> None:
        """Add an instruction where it is a collective, in a slice or from slice to slice."""
        kind = i.opcode.removesuffix("-start")
        if kind == "send" and (transfer := between_slices(i.attributes)) is not None:
            (kind, n), share, slices = transfer, 1.0, True
        elif kind in _COLLECTIVES:
            if kind == "all-reduce" and inside.lines[inside.root].opcode == "dynamic-slice":
                kind = "reduce-scatter"  # which TPUs have as a fusion of the two
            members = first_group(i.attributes)
            n = len(members)
            share, slices = (1.0, False) if self.group is None else self.group(members)
        else:
            return
        given = sum(size(shape) for shape in inside.shapes(i.operands))
        sent = times * _sent(kind, n) * given
        self.collectives.append(Collective(kind, sent, n, share, slices))


def _sent(kind: str, n: int) -> float:
    """What a device of n sends, over what it gives to a collective."""
    return {
        "all-reduce": 2 * (n - 1) / n,
        "all-gather": n - 1,
        "reduce-scatter": (n - 1) / n,
        "all-to-all": (n - 1) / n,
    }.get(kind, 1.0)


def _moved(inside: Computation, i: Instruction) -> int:
    """Bytes that an instruction moves to and from HBM."""
    if i.opcode in _FREE or i.opcode.endswith(("-done", "-update")):
        return 0
    if i.opcode in ("copy-start", "send", "recv"):  # between HBM and the chip, or the host
        return held(i.shape)
    if i.opcode == "slice-start":  # the same of a slice: ((whole), slice, a handle)
        whole, part, _ = arrays(i.shape)
        return part.held * (whole.hbm + part.hbm)
    if i.opcode in ("dynamic-slice", "gather", "slice"):
        return 2 * held(i.shape)
    if i.opcode == "dynamic-update-slice":
        return 2 * held(inside.lines[i.operands[1]].shape)
    return sum(held(shape) for shape in (i.shape, *inside.shapes(i.operands)))


def _fused(outside: Computation, i: Instruction, inside: Computation) -> int:
    """Bytes that a fusion reads and writes; of what it only takes slices of, the slices."""
    lines = inside.lines.values()
    parameters = {int(p.attributes): p.name for p in lines if p.opcode == "parameter"}
    root, total = inside.lines[inside.root], held(i.shape)
    if root.opcode == "dynamic-update-slice":
        total = min(total, size(inside.lines[root.operands[1]].shape))
    for place, shape in enumerate(outside.shapes(i.operands)):
        whole = held(shape)
        users = [u for u in lines if parameters[place] in u.operands]
        if users and all(u.opcode in ("dynamic-slice", "gather") for u in users):
            whole = min(whole, sum(size(u.shape) for u in users))
        if users and all(u.opcode == "dynamic-update-slice" for u in users):
            whole = 0
        total += whole
    return total
