"""The foundation language model in PyTorch, an oracle for parity tests and a peer for benchmarks.

Built from transformers' RoFormer layers after "Versatile Symbolic Music-for-Music Modeling via
Function Alignment" (ISMIR 2025), padded and eager as the public PyTorch implementation is: every
row is computed in full, PADs included. Parameter names and shapes are those of its checkpoints.

Axes: B songs, T steps, N notes a step at most (2N tokens a row), D model width, d head size,
V vocabulary. Token rows are integers [B, T, 2N]: notes, EOS, PADs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from transformers import DynamicCache, RoFormerConfig
from transformers.models.roformer.modeling_roformer import (
    RoFormerLayer,
    RoFormerSinusoidalPositionalEmbedding,
)

POSITIONS = 1536
VOCABULARY = 3331


@dataclass(frozen=True)
class Size:
    """Sizes of a foundation LM: those of its global stack, then those of both local stacks."""

    width: int
    layers: int
    heads: int
    ffn: int
    local_layers: int = 3
    local_heads: int = 8
    local_ffn: int = 768
    positions: int = POSITIONS


SIZES: dict[int | str, Size] = {
    "tiny": Size(128, 2, 4, 256, local_layers=1, local_heads=4, local_ffn=128),
    0: Size(512, 6, 8, 1024),
    1: Size(768, 12, 12, 3072),
    2: Size(1024, 24, 16, 4096),
    3: Size(1280, 32, 16, 5120),
}


def sines(positions: int, width: int) -> Tensor:
    """Angles pos / 10000^(2i/width): float32 [positions, width], sines first, then cosines."""
    rates = 10000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1).float()


def causal_mask(h: Tensor, first: int = 0) -> Tensor:
    """Additive mask [1, 1, T, first + T] for h [B, T, D]: query i sees the keys up to first + i."""
    queries = h.shape[1]
    mask = torch.full((queries, first + queries), -torch.inf, device=h.device)
    return mask.triu(first + 1)[None, None]


def run_layer(
    layer: RoFormerLayer,
    h: Tensor,
    mask: Tensor | None,
    rope: Tensor,
    cache: DynamicCache | None = None,
    attn_in: Tensor | None = None,
    attn_out: Tensor | None = None,
) -> Tensor:
    """One RoFormer layer [B, T, D] -> [B, T, D] with openings for adapters.

    `attn_in` is added to what queries, keys and values are made from, `attn_out` to the
    attention's output before that sub-layer's residual and LayerNorm.
    """
    source = h if attn_in is None else h + attn_in
    residual = h if attn_out is None else h + attn_out
    attended = layer.attention.self(source, mask, rope, past_key_values=cache)[0]
    return layer.feed_forward_chunk(layer.attention.output(attended, residual))


class Stack(nn.Module):
    """RoFormer layers and their rotary table [positions, d]; no input or final LayerNorm."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        ffn: int,
        positions: int = POSITIONS,
        *,
        cross: bool = False,
    ):
        super().__init__()
        config = RoFormerConfig(
            hidden_size=width,
            num_attention_heads=heads,
            intermediate_size=ffn,
            hidden_act="gelu",
            layer_norm_eps=1e-12,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.1,
            rotary_value=False,
            is_decoder=cross,
            add_cross_attention=cross,
        )
        self.embed_positions = RoFormerSinusoidalPositionalEmbedding(positions, width // heads)
        self.rebuild_positions()
        self.layer = nn.ModuleList([RoFormerLayer(config, i) for i in range(layers)])

    @torch.no_grad()
    def rebuild_positions(self) -> None:
        """Make the position table true sines, whatever it held."""
        self.embed_positions.weight.copy_(sines(*self.embed_positions.weight.shape))

    def rope(self, first: int, length: int) -> Tensor:
        """The table's rows first .. first + length - 1: [1, 1, length, d]."""
        return self.embed_positions.weight[None, None, first : first + length]

    def forward(
        self,
        h: Tensor,
        mask: Tensor | None = None,
        first: int = 0,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """Run all layers on h [B, T, D], whose first position is `first`."""
        rope = self.rope(first, h.shape[1])
        for layer in self.layer:
            h = run_layer(layer, h, mask, rope, cache)
        return h


class System(nn.Module):
    """What the foundation LM and the linked systems share: logits, losses and sampling.

    A system says how a reference is read (`read`), what opens the target (`opening`) and how
    target inputs become global states (`states`); the rest is here.
    """

    @property
    def lm(self) -> FoundationLM:
        """The language model that encodes and decodes the steps."""
        raise NotImplementedError

    def read(self, reference: Tensor | None) -> Any:
        """What `states` needs to know of the reference [B, L, 2N]."""
        raise NotImplementedError

    def opening(self, context: Any, batch: int) -> Tensor:
        """The input that stands before the target's first step: [B, 1, D]."""
        return self.lm.start(batch)

    def states(
        self, inputs: Tensor, context: Any, first: int = 0, cache: DynamicCache | None = None
    ) -> Tensor:
        """Global states [B, T, D] of inputs [B, T, D]; input i predicts target step first + i."""
        raise NotImplementedError

    def new_cache(self) -> Any:
        """An empty key-value cache for sampling."""
        return DynamicCache()

    def embed_target(self, target: Tensor, masked: Tensor | None = None) -> Tensor:
        """Step embeddings [B, T, D] of the target."""
        return self.lm.encode(target)

    def forward(
        self, target: Tensor, reference: Tensor | None = None, masked: Tensor | None = None
    ) -> Tensor:
        """Logits [B, T, 2N, V] of every token of the target [B, T, 2N].

        `masked`, bool [B, T], names target steps that are hidden from the global decoder.
        """
        context = self.read(reference)
        steps = self.embed_target(target, masked)
        inputs = torch.cat([self.opening(context, len(target)), steps[:, :-1]], 1)
        return self.lm.decode(self.states(inputs, context), target)

    def token_nll(
        self, target: Tensor, reference: Tensor | None = None, masked: Tensor | None = None
    ) -> Tensor:
        """Negative log-likelihood of every token in nats, 0 at PAD: float [B, T, 2N]."""
        logits = self(target, reference, masked)
        nll = cross_entropy(
            logits.flatten(0, 2),
            target.flatten().long(),
            ignore_index=self.lm.pad,
            reduction="none",
        )
        return nll.view(target.shape)

    def loss(
        self, target: Tensor, reference: Tensor | None = None, masked: Tensor | None = None
    ) -> Tensor:
        """Mean NLL of the target's tokens that are not PAD: float []."""
        return self.token_nll(target, reference, masked).sum() / (target != self.lm.pad).sum()

    @torch.no_grad()
    def generate(
        self,
        reference: Tensor | None,
        steps: int,
        *,
        prompt: Tensor | None = None,
        max_notes: int = 16,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
        forced: Tensor | None = None,
    ) -> Tensor:
        """Continue the prompt [B, P, 2N] by `steps` rows: int64 [B, steps, 2 * max_notes].

        Temperature 0 takes the likeliest token. Rows are as wide as `max_notes` says, whatever
        width the model was trained with. `forced`, [B, steps, 2 * max_notes], takes the place of
        what was drawn. Call `eval()` first.
        """
        context, cache, first, rows = self.read(reference), self.new_cache(), 0, []
        given = prompt if prompt is not None else reference
        inputs = self.opening(context, 1 if given is None else len(given))
        if prompt is not None:
            inputs = torch.cat([inputs, self.embed_target(prompt)], 1)
        for step in range(steps):
            state = self.states(inputs, context, first, cache)[:, -1:]
            first += inputs.shape[1]
            row = None if forced is None else forced[:, step]
            rows.append(self.lm.sample_row(state, 2 * max_notes, temperature, generator, row))
            inputs = self.embed_target(rows[-1])
        return torch.cat(rows, 1)


class FoundationLM(System):
    """A local encoder (row to step), a causal global decoder, a local decoder (step to row).

    Trained by next-step prediction alone: it takes no reference. The position tables start as
    true sines; a checkpoint's own take their place when it is loaded.
    """

    def __init__(self, size: Size, vocabulary: int = VOCABULARY):
        super().__init__()
        self.size = size
        self.sos, self.eos, self.pad = range(vocabulary - 3, vocabulary)
        local = (size.width, size.local_layers, size.local_heads, size.local_ffn, size.positions)
        self.global_sos = nn.Parameter(torch.randn(size.width))
        self.model = self.global_stack()
        self.local_embedding = nn.Embedding(vocabulary, size.width)
        self.local_encoder = Stack(*local)
        self.local_decoder = Stack(*local)
        self.final_decoder = nn.Linear(size.width, vocabulary)

    def global_stack(self, *, cross: bool = False) -> Stack:
        """A stack of the global decoder's sizes."""
        size = self.size
        whole = (size.width, size.layers, size.heads, size.ffn, size.positions)
        return Stack(*whole, cross=cross)

    @property
    def lm(self) -> FoundationLM:
        """Itself."""
        return self

    def start(self, batch: int) -> Tensor:
        """The learned start vector, for each song: [B, 1, D]."""
        return self.global_sos.expand(batch, 1, -1)

    def encode(self, rows: Tensor) -> Tensor:
        """Step embeddings [B, T, D] of rows [B, T, 2N]: SOS's output; PADs are attended to."""
        tokens = pad(rows.flatten(0, 1).long(), (1, 0), value=self.sos)  # [BT, 1 + 2N]
        return self.local_encoder(self.local_embedding(tokens))[:, 0].view(*rows.shape[:2], -1)

    def decode(self, states: Tensor, rows: Tensor) -> Tensor:
        """Logits [B, T, 2N, V] of rows [B, T, 2N], each given its global state [B, T, D]."""
        tokens = self.local_embedding(rows[..., :-1].flatten(0, 1).long())  # [BT, 2N - 1, D]
        h = torch.cat([states.flatten(0, 1)[:, None], tokens], 1)
        h = self.local_decoder(h, causal_mask(h))
        return self.final_decoder(h).view(*rows.shape, -1)

    def read(self, reference: Tensor | None) -> None:
        """Nothing: the foundation LM takes no reference."""
        if reference is not None:
            raise ValueError("the foundation LM takes no reference")

    def states(
        self, inputs: Tensor, context: None, first: int = 0, cache: DynamicCache | None = None
    ) -> Tensor:
        """The global decoder on inputs [B, T, D]."""
        return self.model(inputs, causal_mask(inputs, first), first, cache)

    def sample_row(
        self,
        state: Tensor,
        width: int,
        temperature: float,
        generator: torch.Generator | None,
        forced: Tensor | None = None,
    ) -> Tensor:
        """Draw one row per song from its state [B, 1, D]: int64 [B, 1, width], PADs after EOS.

        `forced`, [B, width], takes the place of what was drawn.
        """
        cache, h, tokens = DynamicCache(), state, []
        ended = torch.zeros(len(state), dtype=torch.bool, device=state.device)
        for k in range(width):
            h = self.local_decoder(h, None, k, cache)
            token = draw(self.final_decoder(h[:, 0]), temperature, generator)
            token = token if forced is None else forced[:, k].long()
            tokens.append(torch.where(ended, self.pad, token))
            ended |= token == self.eos
            h = self.local_embedding(tokens[-1])[:, None]
        return torch.stack(tokens, 1)[:, None]


def draw(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """One token per row of logits [B, V]: int64 [B]; the likeliest at temperature 0."""
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]


def parameter_count(system: nn.Module) -> int:
    """Numbers in the system's checkpoint: its trainable parameters and its own position tables."""
    return sum(value.numel() for value in system.state_dict().values())
