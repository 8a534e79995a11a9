"""What a file of weights holds, whatever its format: tensors by their PyTorch names, and a card."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from m4m_jax.models.card import Card


class Tensors(Mapping[str, np.ndarray]):
    """Tensors that are read when they are asked for, each anew; their shapes are known before.

    They come as float32, which holds bfloat16 and float16 exactly; float64 is rounded, as PyTorch
    rounds it on loading.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], np.ndarray]):
        self.shapes = dict(shapes)
        self._read = read

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.shapes:
            raise KeyError(name)
        value = self._read(name)
        return value if value.dtype == np.float32 else value.astype(np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """A file (or folder) of weights in PyTorch's names and layout.

    path: where it lies, for messages. hyper: the hyper-parameters that it names, plain values;
    nothing in them is followed as a path. card: the model's description, where this package wrote
    the file.
    """

    path: str
    tensors: Tensors
    hyper: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    card: Card | None = None
