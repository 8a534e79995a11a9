"""This library's build, as a benchmark's process holds it."""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from m4m_jax.bench import limits
from m4m_jax.bench.memory import HostMemory
from m4m_jax.bench.sides import fastest
from m4m_jax.bench.works import Windows
from m4m_jax.data import packing
from m4m_jax.data.packing import PackedBatch
from m4m_jax.models.cross import CrossAdapter, CrossConfig
from m4m_jax.models.lm import LM, preset
from m4m_jax.models.parameters import cast
from m4m_jax.music.simunote import PLAIN
from m4m_jax.sampling.sampler import Sampling, sample_keys, write_window
from m4m_jax.training.optim import Hyper, Schedule
from m4m_jax.training.state import init_state, split
from m4m_jax.training.step import make_step


def new_system(size: str, encoder: str) -> CrossAdapter:
    """A cross-attentive adapter with LoRA, newly initialised."""
    lm = LM(preset(size, encoder=encoder), rngs=nnx.Rngs(0))
    return CrossAdapter(lm, CrossConfig(), rngs=nnx.Rngs(1))


class Memory(HostMemory):
    """The most memory that the accelerator, or this process where there is none, has held."""

    def peak_bytes(self) -> int | None:
        """Bytes; on an accelerator since the process began."""
        told = jax.local_devices()[0].memory_stats()
        return super().peak_bytes() if told is None else told["peak_bytes_in_use"]


def on_accelerator() -> bool:
    """Whether there is one."""
    return jax.default_backend() != "cpu"


class Machine(Memory):
    """What a build tells of the machine, whose accelerator it shares with another process."""

    def __init__(self) -> None:
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # read when a backend starts

    def accelerated(self) -> bool:
        """Whether it has an accelerator."""
        return on_accelerator()

    def device(self) -> str:
        """What it is."""
        return jax.devices()[0].device_kind

    def matmul_rate(self) -> float:
        """Operations a second of a large matrix product, in the precision of the work."""
        n, dtype = (8192, jnp.bfloat16) if on_accelerator() else (2048, jnp.float32)
        x = jnp.ones((n, n), dtype)
        multiply = jax.jit(jnp.matmul)
        return 2 * n**3 / fastest(lambda: multiply(x, x).block_until_ready())

    def memory_rate(self) -> float:
        """Bytes a second that are read of a large array."""
        x = jnp.ones(2**28 if on_accelerator() else 2**26, jnp.float32)
        add = jax.jit(jnp.sum)
        return x.nbytes / fastest(lambda: add(x).block_until_ready())


class OursTraining(Machine):
    """Training steps, from rows to new parameters."""

    def __init__(self, size: str, encoder: str):
        super().__init__()
        dtype = jnp.dtype("bfloat16" if on_accelerator() else "float32")
        self.system = new_system(size, encoder)
        graph, params, self.base = split(self.system)
        self.state = init_state(params)
        self.step = jax.jit(make_step(graph, Schedule(), dtype), donate_argnums=1)
        self.hyper, self.key = jax.tree.map(jnp.float32, Hyper()), jax.random.key(0)
        self.packed: dict[int, PackedBatch] = {}

    def load(self, windows: Windows) -> None:
        """Take the batches to work on."""
        self.windows = windows

    def batch(self, number: int) -> PackedBatch:
        """Batch `number` (modulo how many there are), packed: leaves [1, 1, ...]."""
        k = number % len(self.windows.target)
        packed = packing.pack(
            self.windows.target[k],
            self.windows.reference[k],
            vocabulary=PLAIN,
            sizes=self.windows.sizes,
            masked=self.system.lm.masked,
        )
        return jax.tree.map(lambda x: x[None], packed)

    def run(self, number: int) -> None:
        """A step; meanwhile the next batch is packed, as in training."""
        batch = self.packed.pop(number, None) or jax.device_put(self.batch(number))
        self.state, metrics = self.step(self.base, self.state, batch, self.hyper, self.key)
        self.packed = {number + 1: jax.device_put(self.batch(number + 1))}
        jax.block_until_ready((self.state, metrics))

    def operations(self, number: int) -> int:
        """Arithmetic operations of the matrix products of a step."""
        counts = limits.packed(self.batch(number))
        return limits.step_operations(counts, self.system.lm.config, self.system.config)


class OursSampling(Machine):
    """Continuations of a prompt, with tokens that are forced after each is drawn."""

    def __init__(self, size: str, windows: Windows, prompt: int, samples: int):
        super().__init__()
        self.system = new_system(size, "reference")
        if on_accelerator():
            graph, weights = nnx.split(self.system)
            self.system = nnx.merge(graph, cast(weights, jnp.dtype("bfloat16")))
        self.prompt = prompt
        repeat = (samples, 1, 1)
        self.rows = np.tile(windows.target[0, :1], repeat)
        self.reference = windows.reference[0, :1]
        self.keys = sample_keys(0, samples)

    def run(self, steps: int) -> None:
        """So many steps."""
        stop = self.prompt + steps
        written = write_window(
            self.system,
            self.reference,
            self.rows[:, : self.prompt],
            stop,
            self.keys,
            Sampling(),
            window=self.rows.shape[1],
            forced=self.rows,
        )
        assert np.array_equal(written, self.rows[:, :stop])
