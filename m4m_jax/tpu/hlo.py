"""The text of a compiled program: its computations, the sizes of arrays, groups of devices."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Instruction(NamedTuple):
    """One line of a computation. A constant's and a parameter's `attributes` are its value."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    @property
    def called(self) -> tuple[str, ...]:
        """The computations that it calls, but for a loop's."""
        kinds = "calls|to_apply|true_computation|false_computation"
        names = re.findall(rf"(?:{kinds})=%([\w.\-]+)", self.attributes)
        if branches := re.search(r"branch_computations=\{([^}]*)\}", self.attributes):
            names += re.findall(r"%([\w.\-]+)", branches[1])
        return tuple(names)

    def computation(self, name: str) -> str:
        """The computation of that name, such as a loop's `body`."""
        found = re.search(rf"\b{name}=%([\w.\-]+)", self.attributes)
        assert found is not None
        return found[1]


class Computation(NamedTuple):
    """Instructions by name; the root's value is the computation's."""

    lines: dict[str, Instruction]
    root: str

    def shapes(self, names: tuple[str, ...]) -> list[str]:
        """The shapes of what these instructions give."""
        return [self.lines[name].shape for name in names if name in self.lines]


_HEADER = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
_NAMED = re.compile(r"^  (ROOT )?%([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"([a-z]+\d*[a-z\d]*)\[([\d,]*)\](\{[^{}]*\})?")


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of a compiled module by name, and the name of its entry."""
    found: dict[str, Computation] = {}
    entry = name = ""
    for line in text.splitlines():
        if header := _HEADER.match(line):
            name = header[2]
            found[name] = Computation({}, "")
            entry = name if header[1] else entry
        elif named := _NAMED.match(line):
            lines, root = found[name]
            lines[named[2]] = _instruction(named[2], named[3])
            found[name] = Computation(lines, named[2] if named[1] else root)
    return found, entry


def _instruction(name: str, rest: str) -> Instruction:
    end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    end = _closing("(" + rest) - 1
    if opcode in ("constant", "parameter"):
        return Instruction(name, shape, opcode, (), rest[:end])
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[:end]))
    return Instruction(name, shape, opcode, operands, rest[end + 1 :])


def _closing(text: str) -> int:
    """Where the bracket closes that the text begins with."""
    depth = 0
    for place, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if not depth:
            return place
    return len(text)


class Array(NamedTuple):
    """An array of a shape.

    width: bytes an element. dims: its dimensions. held: bytes that it takes, in whole tiles.
    hbm: whether it lies in HBM; those of another memory space, such as `S(1)` in the layout, lie in
    the chip itself.
    """

    width: int
    dims: tuple[int, ...]
    held: int
    hbm: bool


def arrays(shape: str) -> Iterator[Array]:
    """The arrays of a shape."""
    for kind, told, layout in _ARRAY.findall(shape):
        if kind == "token":
            continue
        bits = re.search(r"\d+", kind)
        width = 1 if bits is None else max(int(bits[0]), 8) // 8
        dims = tuple(_numbers(told))
        yield Array(width, dims, width * _tiled(dims, layout), "S(" not in layout)


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]


def _tiled(dims: tuple[int, ...], layout: str) -> int:
    """Elements of an array in whole tiles, such as T(8,128), of its dimensions of least stride."""
    order = re.match(r"\{([\d,]+)", layout)
    tile = re.search(r"T\(([\d,]+)\)", layout)
    if order is None or tile is None:
        return math.prod(dims)
    sizes = [dims[axis] for axis in _numbers(order[1])]
    for place, step in enumerate(reversed(_numbers(tile[1])[-len(sizes) :])):
        sizes[place] += -sizes[place] % step
    return math.prod(sizes)


def dimensions(shape: str) -> tuple[int, ...]:
    """Of the first array of a shape."""
    return next(arrays(shape)).dims


def size(shape: str) -> int:
    """Bytes of what a shape holds."""
    return sum(a.width * math.prod(a.dims) for a in arrays(shape))


def held(shape: str) -> int:
    """Bytes that the arrays of a shape take in HBM."""
    return sum(a.held for a in arrays(shape) if a.hbm)


def first_group(attributes: str) -> list[int]:
    """The logical devices of a collective's first group, in each of the forms that XLA writes."""
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return [int(n) for n in listed[1].split(",") if n]
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if iota:
        dims = [int(d) for d in iota[3].split(",")]
        order = [int(d) for d in iota[4].split(",")] if iota[4] else list(range(len(dims)))
        devices = np.arange(math.prod(dims)).reshape(dims).transpose(order)
        return devices.reshape(int(iota[1]), int(iota[2]))[0].tolist()
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        return _mesh_group(mesh[1], mesh[2])
    if pairs := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", attributes):
        return [int(pairs[1]), int(pairs[2])]
    return [0]


def _mesh_group(mesh: str, axes: str) -> list[int]:
    """The first group along some axes of a mesh, or along parts of axes, `'a':(before)size`."""
    sizes = {name: int(n) for name, n in re.findall(r"'([^']+)'=(\d+)", mesh)}
    parts = {
        name: (int(before or 1), int(own or sizes[name]))
        for name, before, own in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes)
    }
    shape: list[int] = []
    chosen: list[int] = []
    for name, whole in sizes.items():
        before, own = parts.get(name, (whole, 1))
        chosen += [len(shape) + 1] if name in parts else []
        shape += [before, own, whole // (before * own)]
    rest = [d for d in range(len(shape)) if d not in chosen]
    devices = np.arange(math.prod(shape)).reshape(shape).transpose(rest + chosen)
    return devices.reshape(-1, math.prod(shape[d] for d in chosen))[0].tolist()


def between_slices(attributes: str) -> tuple[str, int] | None:
    """The collective between slices that a transfer stands for: its kind, and their number.

    Hosts do it, over the data centre's network; each slice gives them what it has by itself.
    """
    kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', attributes)
    target = re.search(r'_xla_megascale_target="\{([\d,:]+)\}', attributes)
    if kind is None or target is None:
        return None
    ranges = ([*map(int, part.split(":"))] for part in target[1].split(","))
    return kind[1].lower().replace("_", "-"), sum(part[-1] - part[0] + 1 for part in ranges)
