"""TPU chips at their published rates, and the least time that a program's costs take on one."""

from __future__ import annotations

from typing import NamedTuple

from m4m_jax import chips
from m4m_jax.errors import M4MError
from m4m_jax.tpu.costs import Costs


class TPU(NamedTuple):
    """What a TPU chip can do, as published.

    chip: its arithmetic, and where all of this is published. memory: bytes of HBM. bandwidth: bytes
    of HBM a second. links: bytes a second that it sends to its neighbours, over all links of its
    torus. network: bytes a second between slices, its part of its host's.
    """

    chip: chips.Chip
    memory: float
    bandwidth: float
    links: float
    network: float


TPUS = {
    "v5e": TPU(chips.CHIPS["TPU v5 lite"], 16 * 2**30, 819e9, 200e9, 25e9 / 8),
    "v5p": TPU(chips.CHIPS["TPU v5p"], 95 * 2**30, 2765e9, 600e9, 50e9 / 8),
    "v6e": TPU(chips.CHIPS["TPU v6 lite"], 32 * 2**30, 1640e9, 400e9, 100e9 / 8),
}
"""The pages give links in both directions together (400, 1200 and 800 GB/s a chip), and the network
as 2 x 100 and 4 x 200 Gbit/s a host of 8 chips (v5e, v6e) or 50 Gbit/s a chip (v5p)."""


def tpu_of(topology: str) -> TPU:
    """The chip of a topology, such as `v5e:16x16`.

    Raises:
        M4MError: there is none of that name.
    """
    kind = topology.partition(":")[0]
    if kind not in TPUS or ":" not in topology:
        raise M4MError(
            f"topology {topology!r} is none; write KIND:SHAPE, such as v5e:16x16, with a kind of "
            f"{', '.join(TPUS)}"
        )
    return TPUS[kind]


class Roofline(NamedTuple):
    """Seconds that a program takes a chip at the least: in arithmetic, in memory, in networks."""

    compute: float
    memory: float
    links: float
    network: float

    @property
    def seconds(self) -> float:
        """If all of it goes on at once: the longest."""
        return max(self)

    @property
    def bound(self) -> str:
        """What that is."""
        return max(self._fields, key=lambda name: getattr(self, name))


def roofline(costs: Costs, tpu: TPU) -> Roofline:
    """What a program's costs take on a chip.

    A collective over some dimensions of the torus has the links of those dimensions alone.
    """
    inside = [c for c in costs.collectives if not c.slices]
    return Roofline(
        costs.flops / tpu.chip.flops,
        costs.bytes / tpu.bandwidth,
        sum(c.bytes / (tpu.links * c.share) for c in inside),
        sum(c.bytes for c in costs.collectives if c.slices) / tpu.network,
    )
