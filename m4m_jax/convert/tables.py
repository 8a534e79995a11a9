"""Which tensor of a PyTorch checkpoint is which parameter of ours, one table a system.

A rule pairs two names; `{i}` stands for a number. "transpose" turns PyTorch's [out, in] into our
[in, out]; "drop" takes out the axes of length one that it lists; "copy" keeps the tensor as it is.
"""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple


class Rule(NamedTuple):
    """One line of a mapping table."""

    torch: str
    flax: str
    how: str = "copy"
    axes: tuple[int, ...] = ()


STACKS = {"model": "decoder", "local_encoder": "encoder", "local_decoder": "local_decoder"}
"""The stacks' names, theirs and ours."""

ATTENTION = {
    "self.query": "query",
    "self.key": "key",
    "self.value": "value",
    "output.dense": "output",
}
"""The linear maps of an attention, in our order."""


def linear(torch: str, flax: str) -> list[Rule]:
    """The rules of a linear map."""
    return [
        Rule(f"{torch}.weight", f"{flax}.kernel", "transpose"),
        Rule(f"{torch}.bias", f"{flax}.bias"),
    ]


def norm(torch: str, flax: str) -> list[Rule]:
    """The rules of a LayerNorm."""
    return [Rule(f"{torch}.weight", f"{flax}.scale"), Rule(f"{torch}.bias", f"{flax}.bias")]


def attention(torch: str, flax: str, after: str) -> list[Rule]:
    """The rules of an attention, and of the LayerNorm after it."""
    maps = (linear(f"{torch}.{t}", f"{flax}.{f}") for t, f in ATTENTION.items())
    return [*chain.from_iterable(maps), *norm(f"{torch}.output.LayerNorm", after)]


def stack(torch: str, flax: str) -> list[Rule]:
    """The rules of a stack of layers and its position table."""
    theirs, ours = f"{torch}.layer.{{i}}", f"{flax}.layers.{{i}}"
    return [
        Rule(f"{torch}.embed_positions.weight", f"{flax}.positions"),
        *attention(f"{theirs}.attention", f"{ours}.attention", f"{ours}.attention_norm"),
        *linear(f"{theirs}.intermediate.dense", f"{ours}.up"),
        *linear(f"{theirs}.output.dense", f"{ours}.down"),
        *norm(f"{theirs}.output.LayerNorm", f"{ours}.norm"),
    ]


def foundation(torch: str, flax: str) -> list[Rule]:
    """The rules of a language model whose names begin so, dots included."""
    return [
        Rule(f"{torch}global_sos", f"{flax}start_vector"),
        Rule(f"{torch}local_embedding.weight", f"{flax}embedding.embedding"),
        *linear(f"{torch}final_decoder", f"{flax}head"),
        *chain.from_iterable(stack(torch + t, flax + f) for t, f in STACKS.items()),
    ]


LORA_PREFIX = "wrapped_model.base_model.model"
"""Where peft keeps the language model that it has put low-rank updates on."""

READER_PREFIX = "reference_model.base_model.model"
"""The same for a second language model that reads the reference; only this package has one."""


def lora(torch: str, flax: str) -> list[Rule]:
    """The rules of low-rank updates on the attention of all three stacks."""
    return [
        Rule(
            f"{torch}.{stack}.layer.{{i}}.attention.{theirs}.lora_{part}.default.weight",
            f"{flax}.{own}.layers.{{i}}.attention.{ours}.lora.{part.lower()}",
            "transpose",
        )
        for stack, own in STACKS.items()
        for theirs, ours in ATTENTION.items()
        for part in "AB"
    ]


FOUNDATION = foundation("", "")

LORA = lora(LORA_PREFIX, "base")

TUNED = foundation(f"{LORA_PREFIX}.", "base.")
"""The language model itself, where it was tuned together with its adapter."""

READER = [
    *lora(READER_PREFIX, "reference_base"),
    *foundation(f"{READER_PREFIX}.", "reference_base."),
]
"""The same of a second language model."""

MASK = Rule("masked_embedding", "masked_embedding", "drop", (0, 1))
"""The vector that stands for hidden steps."""

LINKS = {
    "q_linear": "query",
    "k_linear": "key",
    "v_linear": "value",
    "pos_linear": "position",
    "out_proj": "output",
}
"""The linear maps of a link."""

CROSS = [
    MASK,
    *LORA,
    *TUNED,
    *READER,
    Rule("masked_reference", "masked_reference", "drop", (0, 1)),
    Rule("yinyang_attn.{i}.gates", "links.{i}.gate"),
    *chain.from_iterable(
        linear(f"yinyang_attn.{{i}}.{torch}", f"links.{{i}}.{flax}")
        for torch, flax in LINKS.items()
    ),
]

SELF = [MASK, *LORA, *TUNED, Rule("sentence_embedding", "stream_vectors")]

COCO_MULLA = [
    MASK,
    *TUNED,
    Rule("h0p", "prefix", "drop", (0,)),
    Rule("z_pos", "prefix_positions", "drop", (1,)),
    Rule("gates", "gates"),
    *linear("w_e.{i}", "maps.{i}"),
]

SEQ2SEQ = [
    *foundation("wrapped_model.", "core."),
    *stack("wrapped_model.encoder", "reader"),
    *attention(
        "wrapped_model.model.layer.{i}.crossattention",
        "core.decoder.layers.{i}.cross_attention",
        "core.decoder.layers.{i}.cross_norm",
    ),
]

TABLES = {
    "lm": FOUNDATION,
    "cross": CROSS,
    "self": SELF,
    "coco-mulla": COCO_MULLA,
    "seq2seq": SEQ2SEQ,
}
"""The table of each system."""
