"""The PyTorch build, as a benchmark's process holds it."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from m4m_jax.bench.memory import HostMemory
from m4m_jax.bench.sides import fastest
from m4m_jax.bench.torch_lm import FoundationLM, Size
from m4m_jax.bench.torch_systems import CrossAttentive
from m4m_jax.bench.works import Windows
from m4m_jax.models.lm import preset

THREADS = 2
ROOM = 2**31
"""Bytes of an accelerator that stay free for its libraries."""


def new_system(size: str) -> CrossAttentive:
    """A cross-attentive adapter with LoRA, newly initialised."""
    c = preset(size)
    local = (c.local_layers, c.local_heads, c.local_ffn, c.positions)
    torch.manual_seed(0)
    return CrossAttentive(FoundationLM(Size(c.width, c.layers, c.heads, c.ffn, *local)))


class Machine(HostMemory):
    """Where a build runs: the accelerator, in bfloat16, or two threads of the processor."""

    def __init__(self) -> None:
        torch.set_num_threads(THREADS)
        self.accelerated = torch.cuda.is_available()
        self.place = torch.device("cuda" if self.accelerated else "cpu")

    def precision(self) -> contextlib.AbstractContextManager:
        """In which arithmetic is done."""
        if self.accelerated:
            return torch.autocast("cuda", torch.bfloat16)
        return contextlib.nullcontext()

    def wait(self) -> None:
        """Wait for the accelerator."""
        if self.accelerated:
            torch.cuda.synchronize()

    def matmul_rate(self) -> float:
        """Operations a second of a large matrix product, in the precision of the work."""
        n, dtype = (8192, torch.bfloat16) if self.accelerated else (2048, torch.float32)
        x = torch.ones((n, n), dtype=dtype, device=self.place)

        def multiply() -> None:
            torch.matmul(x, x)
            self.wait()

        return 2 * n**3 / fastest(multiply)

    def forget_peak(self) -> None:
        """Begin to watch memory anew."""
        if self.accelerated:
            torch.cuda.reset_peak_memory_stats()
        super().forget_peak()

    def peak_bytes(self) -> int | None:
        """The most memory held, of the accelerator if there is one."""
        return torch.cuda.max_memory_allocated() if self.accelerated else super().peak_bytes()


def _leave_room() -> None:
    """Have torch refuse memory before the driver does: then libraries fail, each in its way."""
    free, total = torch.cuda.mem_get_info()
    mine = torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction((mine + free - ROOM) / total)


class PeerTraining(Machine):
    """Training steps, from rows to new parameters; eager unless `compiled`.

    passes: in how many parts a batch is taken at first. Where an accelerator's memory does not hold
    one, there are twice as many from then on.
    refused_bytes: the memory that was held when a whole batch did not fit; None if it did.
    """

    refused_bytes: int | None = None

    def __init__(self, size: str, compiled: bool = False, passes: int = 1):
        super().__init__()
        self.passes = passes
        self.system = new_system(size).to(self.place).train()
        self.loss = torch.compile(self.system.loss) if compiled else self.system.loss
        trained: list[nn.Parameter] = [p for p in self.system.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, 1e-4, weight_decay=0.01)

    def load(self, windows: Windows) -> None:
        """Take the batches to work on."""
        streams = (windows.target, windows.reference)
        self.rows = [torch.from_numpy(stream).to(self.place) for stream in streams]

    def run(self, number: int) -> int:
        """A step on batch `number`, modulo how many there are; returns in how many passes."""
        target, reference = (stream[number % len(stream)] for stream in self.rows)
        if self.accelerated:
            _leave_room()
        while not self._differentiate(target, reference):
            self.passes *= 2
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.wait()
        return self.passes

    def _differentiate(self, target: Tensor, reference: Tensor) -> bool:
        """Add up the gradients of the parts of a batch; whether memory held them."""
        real = (target != self.system.lm.pad).sum()
        try:
            for part in zip(target.chunk(self.passes), reference.chunk(self.passes), strict=True):
                with self.precision():
                    share = (part[0] != self.system.lm.pad).sum() / real
                    loss = self.loss(*part) * share
                loss.backward()
        except torch.OutOfMemoryError:
            if self.passes >= len(target):
                raise
            if self.passes == 1:
                self.refused_bytes = torch.cuda.max_memory_allocated()
        else:
            return True
        self.optimizer.zero_grad()
        gc.collect()  # frames of what failed hold on to each other and to the arrays
        torch.cuda.empty_cache()
        return False

    def whole_bytes(self) -> int | None:
        """What a whole batch takes at the least, where memory did not hold it."""
        return self.refused_bytes

    def operations(self, number: int) -> int:
        """Arithmetic operations of the matrix products of a step."""
        with FlopCounterMode(display=False) as counter:
            self.run(number)
        return counter.get_total_flops()


class PeerSampling(Machine):
    """Continuations of a prompt, with tokens that are forced after each is drawn."""

    def __init__(self, size: str, windows: Windows, prompt: int, samples: int):
        super().__init__()
        self.system = new_system(size).to(self.place).eval()
        rows: list[Tensor] = [
            torch.from_numpy(stream[0, :1]).to(self.place).repeat(samples, 1, 1)
            for stream in (windows.target, windows.reference)
        ]
        self.target, self.reference = rows
        self.prompt = prompt

    def run(self, steps: int) -> None:
        """So many steps."""
        stop = self.prompt + steps
        options: dict[str, Any] = {
            "prompt": self.target[:, : self.prompt],
            "max_notes": self.target.shape[-1] // 2,
            "temperature": 1.0,
            "forced": self.target[:, self.prompt : stop],
        }
        with self.precision():
            written = self.system.generate(self.reference, steps, **options)
        assert torch.equal(written, self.target[:, self.prompt : stop].long())
        self.wait()
