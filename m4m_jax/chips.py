"""What accelerators can do, by their makers' data sheets."""

from __future__ import annotations

from typing import NamedTuple


class Chip(NamedTuple):
    """What one device, as JAX counts them, computes at the most.

    flops: bfloat16 operations a second of matrix products, without sparsity.
    source: where that is published.
    """

    flops: float
    source: str


_TPU = "docs.cloud.google.com/tpu/docs/"
_NVIDIA = "NVIDIA data sheet, bfloat16 tensor cores, half of the rate with sparsity: "

CHIPS: dict[str, Chip] = {
    "TPU v4": Chip(275e12, _TPU + "v4"),
    "TPU v5 lite": Chip(197e12, _TPU + "v5e"),
    "TPU v5": Chip(459e12, _TPU + "v5p"),
    "TPU v5p": Chip(459e12, _TPU + "v5p"),
    "TPU v6 lite": Chip(918e12, _TPU + "v6e"),
    "TPU7x": Chip(2307e12 / 2, _TPU + "tpu7x (a chip is two devices)"),
    "NVIDIA A100-SXM4-40GB": Chip(312e12, _NVIDIA + "A100"),
    "NVIDIA A100-SXM4-80GB": Chip(312e12, _NVIDIA + "A100"),
    "NVIDIA H100 80GB HBM3": Chip(989.4e12, _NVIDIA + "H100 SXM"),
    "NVIDIA H100 PCIe": Chip(756e12, _NVIDIA + "H100 PCIe"),
    "NVIDIA H200": Chip(989.4e12, _NVIDIA + "H200 SXM"),
    "NVIDIA L4": Chip(121e12, _NVIDIA + "L4"),
}
"""By `jax.Device.device_kind`. Others, CPUs among them, have no published rate here."""
