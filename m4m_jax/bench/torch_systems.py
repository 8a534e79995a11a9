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
from torch.nn.functional import dropout, pad
from transformers import DynamicCache, EncoderDecoderCache

from m4m_jax.bench.torch_lm import (
    POSITIONS,
    FoundationLM,
    Size,
    System,
    causal_mask,
    run_layer,
    sines,
)

SEQ2SEQ = Size(256, 3, 4, 512, local_layers=2, local_heads=4, local_ffn=512)


class Adapter(System):
    """A system over a copy of a pretrained LM, whose own weights stay as they are.

    With `rank` 0 the LM is frozen and stays in evaluation mode; otherwise it carries LoRA of that
    rank. The global stack's position table becomes true sines; the local stacks keep theirs.
    """

    def __init__(self, lm: FoundationLM, rank: int):
        super().__init__()
        lm = copy.deepcopy(lm).requires_grad_(False)
        lm.model.rebuild_positions()
        self.frozen = rank == 0
        self.wrapped_model = lm if self.frozen else get_peft_model(lm, lora(rank))
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


def lora(rank: int) -> LoraConfig:
    """LoRA of that rank on every query and value map: scale 2, dropout 0.1."""
    targets = ["query", "value"]
    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.1, target_modules=targets)


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
            link, between = divmod(i, self.skip)
            gain = None if between else self.yinyang_attn[link](h, context[link], first)
            h = run_layer(layer, h, mask, rope, cache, attn_out=gain)
        return h


class CocoMulla(Adapter):
    """Coco-Mulla: a prefix of `STEPS` states carries the reference into every layer of a frozen LM.

    References shorter than the prefix are filled with empty rows.
    """

    STEPS = 384

    def __init__(self, lm: FoundationLM):
        super().__init__(lm, rank=0)
        width, layers = lm.size.width, lm.size.layers
        self.h0p = nn.Parameter(0.02 * torch.randn(1, self.STEPS, width))
        self.z_pos = nn.Parameter(0.02 * torch.randn(layers, 1, self.STEPS, width))
        self.gates = nn.Parameter(torch.zeros(layers))
        self.w_e = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def read(self, reference: Tensor) -> list[Tensor]:
        """What each layer of the prefix stream attends with: [B, STEPS, D] a layer."""
        lm, batch = self.lm, len(reference)
        z = lm.encode(self.fill(reference))
        h = torch.cat([lm.start(batch), self.h0p[:, :-1].expand(batch, -1, -1)], 1)
        rope, prefixes = lm.model.rope(0, self.STEPS), []
        for layer, place, w_e in zip(lm.model.layer, self.z_pos, self.w_e, strict=True):
            told = w_e(z + place)
            prefixes.append(h + told)
            h = run_layer(layer, h, None, rope, attn_in=told)
        return prefixes

    def fill(self, reference: Tensor) -> Tensor:
        """The reference [B, L, 2N] with empty rows behind it: [B, STEPS, 2N]."""
        missing = self.STEPS - reference.shape[1]
        if missing < 0:
            raise ValueError(f"the reference has more than {self.STEPS} steps")
        filled = pad(reference, (0, 0, 0, missing), value=self.lm.pad)
        filled[:, reference.shape[1] :, 0] = self.lm.eos
        return filled

    def states(
        self,
        inputs: Tensor,
        context: list[Tensor],
        first: int = 0,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """The global decoder on the target, with what every layer gains from the prefix.

        The gain is the layer's own attention, unmasked and without rotary positions.
        """
        stack, h, length = self.lm.model, inputs, inputs.shape[1]
        mask, rope = causal_mask(h, first), stack.rope(first, length)
        for layer, gate, prefix in zip(stack.layer, self.gates, context, strict=True):
            query = h + prefix[:, first : first + length]
            attended = layer.attention.self(query, encoder_hidden_states=prefix)[0]
            gain = gate * layer.attention.output.dense(attended)
            h = run_layer(layer, h, mask, rope, cache, attn_out=gain)
        return h


class SelfAttentive(Adapter):
    """The self-attentive adapter: one LM over [start, reference, target] in a row.

    Positions start again at the reference's last step, whose output predicts the target's first;
    a learned vector for each stream is added to the rotary table's rows.
    """

    def __init__(self, lm: FoundationLM, *, rank: int = 64):
        super().__init__(lm, rank)
        head = lm.size.width // lm.size.heads
        self.sentence_embedding = nn.Parameter(torch.zeros(2, head))

    def read(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs of the reference's stream [B, L, D], and its last step [B, 1, D]."""
        steps = self.lm.encode(reference)
        return torch.cat([self.lm.start(len(steps)), steps[:, :-1]], 1), steps[:, -1:]

    def opening(self, context: tuple[Tensor, Tensor], batch: int) -> Tensor:
        """The reference's last step."""
        return context[1]

    def states(
        self,
        inputs: Tensor,
        context: tuple[Tensor, Tensor],
        first: int = 0,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """The global decoder on the target, behind the reference (in the cache if `first` > 0)."""
        stack, (reference, _), length = self.lm.model, context, inputs.shape[1]
        behind = reference.shape[1] + first
        h, rope = inputs, stack.rope(first, length) + self.sentence_embedding[1]
        if first == 0:
            behind, h = 0, torch.cat([reference, inputs], 1)
            rope_l = stack.rope(0, reference.shape[1]) + self.sentence_embedding[0]
            rope = torch.cat([rope_l, rope], 2)
        mask = causal_mask(h, behind)
        for layer in stack.layer:
            h = run_layer(layer, h, mask, rope, cache)
        return h[:, -length:]


class Seq2Seq(System):
    """The encoder-decoder trained from scratch: its global decoder attends to an encoded reference.

    The encoder reads the reference's steps unmasked and unshifted.
    """

    def __init__(self, size: Size = SEQ2SEQ):
        super().__init__()
        self.wrapped_model = FoundationLM(size)
        self.wrapped_model.encoder = self.lm.global_stack()
        self.wrapped_model.model = self.lm.global_stack(cross=True)

    @property
    def lm(self) -> FoundationLM:
        """The local stacks and the global decoder."""
        return self.wrapped_model

    def new_cache(self) -> EncoderDecoderCache:
        """An empty cache for the decoder's both attentions."""
        return EncoderDecoderCache(DynamicCache(), DynamicCache())

    def read(self, reference: Tensor) -> Tensor:
        """The encoded reference: [B, L, D]."""
        return self.lm.encoder(self.lm.encode(reference))

    def states(
        self,
        inputs: Tensor,
        context: Tensor,
        first: int = 0,
        cache: EncoderDecoderCache | None = None,
    ) -> Tensor:
        """The global decoder on the target, attending to the encoded reference."""
        stack, h = self.lm.model, inputs
        mask, rope = causal_mask(h, first), stack.rope(first, h.shape[1])
        for layer in stack.layer:
            h = layer(h, mask, rope, context, None, cache)[0]
        return h
