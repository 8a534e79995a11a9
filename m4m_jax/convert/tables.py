"""Which tensor of a PyTorch checkpoint is which parameter of ours, one table a system.

A rule pairs two names; `{i}` stands for a number. "transpose" turns PyTorch's [out, in] into our
[in, out]; "flatten" drops leading axes of length one; "copy" keeps the tensor as it is.
"""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """One line of a mapping table."""

    torch: str
    flax: str
    how: str = "copy"


STACKS = {"model": "decoder", "local_encoder": "encoder", "local_decoder": "local_decoder"}
"""The stacks' names, theirs and ours."""

LAYER = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "intermediate.dense": "up",
    "output.dense": "down",
}
"""The linear maps of a layer."""

NORMS = {"attention.output.LayerNorm": "attention_norm", "output.LayerNorm": "norm"}
"""The LayerNorms of a layer."""


def linear(torch: str, flax: str) -> list[Rule]:
    """The two rules of a linear map."""
    return [
        Rule(f"{torch}.weight", f"{flax}.kernel", "transpose"),
        Rule(f"{torch}.bias", f"{flax}.bias"),
    ]


def stack(torch: str, flax: str) -> list[Rule]:
    """The rules of a stack of layers and its position table."""
    rules = [Rule(f"{torch}.embed_positions.weight", f"{flax}.positions")]
    theirs, ours = f"{torch}.layer.{{i}}", f"{flax}.layers.{{i}}"
    for name, own in LAYER.items():
        rules += linear(f"{theirs}.{name}", f"{ours}.{own}")
    for name, own in NORMS.items():
        rules.append(Rule(f"{theirs}.{name}.weight", f"{ours}.{own}.scale"))
        rules.append(Rule(f"{theirs}.{name}.bias", f"{ours}.{own}.bias"))
    return rules


def lora(prefix: str, targets: tuple[str, ...] = ("query", "value")) -> list[Rule]:
    """The rules of low-rank updates on the attention of all three stacks."""
    return [
        Rule(
            f"{prefix}.{torch}.layer.{{i}}.attention.self.{target}.lora_{part}.default.weight",
            f"base.{flax}.layers.{{i}}.attention.{target}.lora.{part.lower()}",
            "transpose",
        )
        for torch, flax in STACKS.items()
        for target in targets
        for part in "AB"
    ]


FOUNDATION = [
    Rule("global_sos", "start_vector"),
    Rule("local_embedding.weight", "embedding.embedding"),
    *linear("final_decoder", "head"),
    *(rule for torch, flax in STACKS.items() for rule in stack(torch, flax)),
]

LINKS = {
    "q_linear": "query",
    "k_linear": "key",
    "v_linear": "value",
    "pos_linear": "position",
    "out_proj": "output",
}

CROSS = [
    Rule("masked_embedding", "masked_embedding", "flatten"),
    *lora("wrapped_model.base_model.model"),
    Rule("yinyang_attn.{i}.gates", "links.{i}.gate"),
    *(
        rule
        for torch, flax in LINKS.items()
        for rule in linear(f"yinyang_attn.{{i}}.{torch}", f"links.{{i}}.{flax}")
    ),
]
