"""The arithmetic of the matrix products of a compiled program."""

from __future__ import annotations

import math
import re

import numpy as np

from m4m_jax.tpu.hlo import Computation, Instruction, dimensions


def operations(inside: Computation, i: Instruction) -> float:
    """Operations of a matrix product, 0 for other instructions."""
    if i.opcode == "convolution":
        return _convolution(inside, i)
    if i.opcode != "dot":
        return 0.0
    left = dimensions(inside.lines[i.operands[0]].shape)
    summed = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.attributes)
    axes = [int(d) for d in summed[1].split(",") if d] if summed else []
    return 2.0 * math.prod(dimensions(i.shape)) * math.prod(left[axis] for axis in axes)


def _convolution(inside: Computation, i: Instruction) -> float:
    """A product in the form of a convolution, as which TPUs compute all of them.

    Axes of a batch are spatial axes, of which each place of the result meets one of the kernel.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.attributes)
    assert labels is not None
    left, right = (dimensions(inside.lines[o].shape) for o in i.operands[:2])
    out = dimensions(i.shape)
    total = 2.0 * right[labels[2].index("i")]
    total *= out[labels[3].index("f")] * out[labels[3].index("b")]
    groups = re.search(r"batch_group_count=(\d+)", i.attributes)
    total /= int(groups[1]) if groups else 1
    spatial = sorted(c for c in labels[1] if c.isdigit())
    window = _window(i.attributes, len(spatial))
    for place, axis in enumerate(spatial):
        sizes = (
            left[labels[1].index(axis)],
            right[labels[2].index(axis)],
            out[labels[3].index(axis)],
        )
        total *= _pairs(*sizes, *(numbers[place] for numbers in window))
    return total


def _window(attributes: str, axes: int) -> tuple[list[int], ...]:
    """Stride, padding before, dilation of input and of kernel, by spatial axis."""
    window = re.search(r"window=\{([^}]*)\}", attributes)
    told = dict(part.split("=") for part in window[1].split()) if window else {}

    def numbers(name: str) -> list[int]:
        return [int(n) for n in told[name].split("x")] if name in told else [1] * axes

    pads = [int(p.split("_")[0]) for p in told["pad"].split("x")] if "pad" in told else [0] * axes
    return numbers("stride"), pads, numbers("lhs_dilate"), numbers("rhs_dilate")


def _pairs(
    left: int, right: int, out: int, stride: int, pad: int, dilate_left: int, dilate_right: int
) -> int:
    """How many pairs of a place of the result and one of the kernel meet a number of the input."""
    place = np.arange(out)[:, None] * stride + np.arange(right)[None, :] * dilate_right - pad
    inside = (place >= 0) & (place <= (left - 1) * dilate_left) & (place % dilate_left == 0)
    return int(inside.sum())
