"""The linked systems in PyTorch: a reference sequence of notes conditions a target sequence.

Cross-attentive and self-attentive adapters, Coco-Mulla and seq2seq, after "Versatile Symbolic
Music-for-Music Modeling via Function Alignment" (ISMIR 2025). The adapters wrap a foundation LM
and save only what trains, under the names of the public implementation's checkpoints. L is the
reference's number of steps; all else is as in `torch_lm`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import dropout
from transformers import DynamicCache

from m4m_jax.bench.torch_lm import (
    POSITIONS,
    FoundationLM,
    System,
    causal_mask,
    run_layer,
    sines,
)


class Adapter(System):
    """A system over a copy of a pretrained LM, whose own weights stay as they are.

    With `rank` 0 the LM is frozen and stays in evaluation mode; otherwise every `query` and
    `value` map carries LoRA of that rank (scale 2, dropout 0.1). The global stack's position
    table becomes true sines; the local stacks keep theirs.
    """

    def __init__(self, lm: FoundationLM, rank: int):
        super().__init__()
        lm = copy.deepcopy(lm).requires_grad_(False)
        lm.model.rebuild_positions()
        self.frozen = rank == 0
        lora = LoraConfig(
            r=rank or 1, lora_alpha=2 * rank, lora_dropout=0.1, target_modules=["query", "value"]
        )
        self.wrapped_model = lm if self.frozen else get_peft_model(lm, lora)
        self.masked_embedding = nn.Parameter(torch.zeros(1, 1, lm.size.width))

    @property
    def lm(self) -> FoundationLM:
        """The wrapped LM, LoRA included."""
        return self.wrapped_model if self.frozen else self.wrapped_model.base_model.model

    def train(self, mode: bool = True) -> Adapter:
        """Switch dropout on or off; a frozen LM has none."""
        super().train(mode)
        if self.frozen:
            self.wrapped_model.eval()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What trains, and nothing of the LM."""
        trained = {name for name, value in self.named_parameters() if value.requires_grad}
        state = super().state_dict(*args, **kwargs)
        return {name: value for name, value in state.items() if name in trained}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load what trains; with `strict`, names must be exactly those of `state_dict()`."""
        unlike = set(state_dict) ^ set(self.state_dict())
        if strict and unlike:
            raise RuntimeError(f"names that only one side has: {', '.join(sorted(unlike))}")
        return super().load_state_dict({**super().state_dict(), **state_dict}, strict, assign)

    def embed_target(self, target: Tensor, masked: Tensor | None = None) -> Tensor:
        """Step embeddings [B, T, D], the learned vector at masked steps (bool [B, T])."""
        steps = self.lm.encode(target)
        if masked is None:
            return steps
        return torch.where(masked[..., None], self.masked_embedding, steps)


class LowRankAttention(nn.Module):
    """Attention of width 256 from target to reference states, behind a gate that starts at 0."""

    HEADS, WIDTH = 4, 256

    def __init__(self, width: int):
        super().__init__()
        self.gates = nn.Parameter(torch.zeros(1))
        self.q_linear = nn.Linear(width, self.WIDTH)
        self.k_linear = nn.Linear(width, self.WIDTH)
        self.v_linear = nn.Linear(width, self.WIDTH)
        self.pos_linear = nn.Linear(width, self.WIDTH)
        self.out_proj = nn.Linear(self.WIDTH, width)
        table = sines(POSITIONS, width).unflatten(1, (2, -1)).transpose(1, 2).flatten(1)
        self.register_buffer("table", table, persistent=False)  # sine, cosine, sine, cosine, ...

    def forward(self, target: Tensor, reference: Tensor, first: int) -> Tensor:
        """Gain [B, T, D] of target [B, T, D], from index `first` on, from reference [B, L, D]."""
        places = self.pos_linear(self.table)  # [positions, 256]
        here, there = places[first : first + target.shape[1]], places[: reference.shape[1]]
        q = split_heads(self.q_linear(target) + here, self.HEADS)
        k = split_heads(self.k_linear(reference) + there, self.HEADS)
        v = split_heads(self.v_linear(reference) + there, self.HEADS)
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)  # [B, heads, T, L]
        mixed = dropout(weights, 0.1, self.training) @ v
        return self.gates * self.out_proj(mixed.transpose(1, 2).flatten(2))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, heads * d] -> [B, heads, T, d]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class CrossAttentive(Adapter):
    """The cross-attentive adapter: both streams through one LM, linked at every `skip`-th layer.

    The reference is shifted by one like any sequence, so its last step is never read.
    """

    def __init__(self, lm: FoundationLM, *, rank: int = 16, skip: int = 2):
        super().__init__(lm, rank)
        self.skip = skip
        links = -(-lm.size.layers // skip)
        self.yinyang_attn = nn.ModuleList(LowRankAttention(lm.size.width) for _ in range(links))

    def read(self, reference: Tensor) -> list[Tensor]:
        """The reference's input [B, L, D] of every linked layer."""
        lm = self.lm
        h = torch.cat([lm.start(len(reference)), lm.encode(reference)[:, :-1]], 1)
        mask, rope, inputs = causal_mask(h), lm.model.rope(0, h.shape[1]), []
        for layer in lm.model.layer:
            inputs.append(h)
            h = run_layer(layer, h, mask, rope)
        return inputs[:: self.skip]

    def states(
        self,
        inputs: Tensor,
        context: list[Tensor],
        first: int = 0,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """The global decoder on the target, with what linked layers gain from the reference."""
        stack, h = self.lm.model, inputs
        mask, rope = causal_mask(h, first), stack.rope(first, h.shape[1])
        for i, layer in enumerate(stack.layer):
            link, linked = divmod(i, self.skip)
            gain = 0.0 if linked else self.yinyang_attn[link](h, context[link], first)
            h = run_layer(layer, h, mask, rope, cache, attn_out=gain)
        return h
