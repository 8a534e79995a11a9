"""What makes a parameter part of an adapter: its variable type."""

from __future__ import annotations

from flax import nnx

from m4m_jax.models.roformer import KEEP_VARIANCE, Initializer, Linear


class AdapterParam(nnx.Param):
    """A parameter that a linked system trains while its language models stay frozen.

    `nnx.split(model, AdapterParam, ...)` takes the adapter out. It is a Param too, so a filter
    must name AdapterParam before nnx.Param.
    """


class AdapterLinear(Linear):
    """An affine map that belongs to an adapter."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        axes: tuple[str, str],
        *,
        kernel_init: Initializer = KEEP_VARIANCE,
        rngs: nnx.Rngs,
    ):
        super().__init__(inputs, outputs, axes, kernel_init=kernel_init, rngs=rngs)
        for name, own in (("kernel", axes), ("bias", axes[1:])):
            setattr(self, name, AdapterParam(getattr(self, name)[...], axes=own))
