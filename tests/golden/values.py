"""The weights and figures of this directory, as arrays."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The random float32 value that the figures were computed with, given a parameter's name."""
    draw = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    draw = draw.astype(np.float32)
    if name.endswith("embed_positions.weight"):
        return draw
    if "LayerNorm.weight" in name:
        return 1 + 0.1 * draw
    if name.endswith("gates"):
        return 0.5 + 0.2 * draw
    if name.endswith("bias"):
        return 0.05 * draw
    if "global_sos" in name or "local_embedding" in name:
        return 0.5 * draw
    if any(part in name for part in ("h0p", "z_pos", "embedding")):
        return 0.1 * draw
    return (1.2 / np.sqrt(shape[-1])) * draw


def shapes(system: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `foundation`, `cross` or `cocomulla` at size 0."""
    keys = json.loads((HERE / f"keys_{system}.json").read_text())
    return {name: tuple(shape) for name, shape in keys.items()}


def state(system: str) -> dict[str, np.ndarray]:
    """Weights of `foundation`, `cross` or `cocomulla` at size 0."""
    return {name: value(name, shape) for name, shape in shapes(system).items()}


def figures() -> dict[str, np.ndarray]:
    """Everything in `nll.npz`."""
    with np.load(HERE / "nll.npz") as arrays:
        return dict(arrays)
