"""What makes a parameter part of an adapter: its variable type."""

from __future__ import annotations

from collections.abc import Callable

from flax import nnx
from jax import Array

from m4m_jax.models.roformer import Linear


class AdapterParam(nnx.Param):
    """A parameter that a linked system trains while its language models stay frozen.

    `nnx.split(model, AdapterParam, ...)` takes the adapter out. It is a Param too, so a filter
    must name AdapterParam before nnx.Param.
    """


KEEP_VARIANCE = nnx.initializers.lecun_normal()
"""How maps of an adapter start: their output varies as much as what they map."""


class AdapterLinear(Linear):
    """An affine map that belongs to an adapter."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        axes: tuple[str, str],
        *,
        kernel_init: Callable[..., Array] = KEEP_VARIANCE,
        rngs: nnx.Rngs,
    ):
        super().__init__(inputs, outputs, axes, kernel_init=kernel_init, rngs=rngs)
        for name, own in (("kernel", axes), ("bias", axes[1:])):
            setattr(self, name, AdapterParam(getattr(self, name)[...], axes=own))
