from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from flax import nnx

from m4m_jax.bench import torch_systems
from m4m_jax.bench.torch_lm import SIZES, FoundationLM
from m4m_jax.convert.tables import CROSS, FOUNDATION, TABLES, Rule
from m4m_jax.convert.weights import (
    convert_shape,
    convert_tensor,
    match,
    our_name,
    restore_tensor,
    tensors_of,
    their_name,
)
from m4m_jax.errors import M4MError
from m4m_jax.models.adapter import AdapterParam
from m4m_jax.models.coco_mulla import CocoMulla
from m4m_jax.models.cross import CrossAdapter, CrossConfig
from m4m_jax.models.lm import LM, LMConfig, preset
from m4m_jax.models.parameters import by_name
from m4m_jax.models.self_attentive import SelfAdapter
from m4m_jax.models.seq2seq import Seq2Seq, seq2seq_size
from tests.convert.loading import load_tensors
from tests.models.small import CONFIG, small_lm


def reverse(model: nnx.Module, table: list[Rule], wanted) -> dict[str, np.ndarray]:
    """The model's own numbers under the names that the table gives them in PyTorch."""
    return dict(tensors_of(by_name(nnx.state(model, wanted)), table, "the model"))


def foundation() -> LM:
    return LM(preset("1"), rngs=nnx.Rngs(0))


def shapes_in(make, wanted) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's variables, without making it."""
    state = nnx.state(nnx.eval_shape(make), wanted)
    return {".".join(map(str, path)): v.shape for path, v in nnx.to_flat_state(state)}


def two_models() -> CrossAdapter:
    other = LM(LMConfig(64, 3, 2, 96), rngs=nnx.Rngs(0))
    return CrossAdapter(foundation(), reference_lm=other, rngs=nnx.Rngs(0))


SYSTEMS = {
    "lm": (foundation, ...),
    "cross": (lambda: CrossAdapter(foundation(), rngs=nnx.Rngs(0)), AdapterParam),
    "self": (lambda: SelfAdapter(foundation(), rngs=nnx.Rngs(0)), AdapterParam),
    "coco-mulla": (lambda: CocoMulla(foundation(), rngs=nnx.Rngs(0)), AdapterParam),
    "seq2seq": (lambda: Seq2Seq(seq2seq_size("1"), rngs=nnx.Rngs(0)), ...),
}

COUNTS = {
    "lm": 111_847_939,
    "cross": 6_794_502,
    "self": 3_539_840,
    "coco-mulla": 10_921_740,
    "seq2seq": 8_164_355,
}
"""Numbers in the released checkpoints, position tables included."""


def pytorch_shapes(name: str) -> dict[str, tuple[int, ...]]:
    build = {
        "lm": lambda lm: lm,
        "cross": torch_systems.CrossAttentive,
        "self": torch_systems.SelfAttentive,
        "coco-mulla": torch_systems.CocoMulla,
        "seq2seq": lambda lm: torch_systems.Seq2Seq(),
    }
    with torch.device("meta"):
        system = build[name](FoundationLM(SIZES[1]))
    return {key: tuple(value.shape) for key, value in system.state_dict().items()}


@pytest.mark.parametrize("name", SYSTEMS)
def test_tables_pair_all_of_a_released_checkpoint(name):
    parameters, tensors = shapes_in(*SYSTEMS[name]), pytorch_shapes(name)
    places = match(tensors, parameters, TABLES[name], "the file")
    assert len({place.torch for place in places}) == len(tensors) == len(parameters)
    assert len({place.flax for place in places}) == len(parameters)
    for place in places:
        assert their_name(place.flax, TABLES[name]) == place
    for shapes in (tensors, parameters):
        assert sum(math.prod(shape) for shape in shapes.values()) == COUNTS[name]


def test_links_between_two_models_have_names_too():
    parameters = shapes_in(two_models, AdapterParam)
    names = {their_name(name, CROSS) for name in parameters}
    assert None not in names
    assert len({place.torch for place in names}) == len(parameters)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("global_sos", ("start_vector", "copy")),
        ("local_embedding.weight", ("embedding.embedding", "copy")),
        ("final_decoder.weight", ("head.kernel", "transpose")),
        ("model.embed_positions.weight", ("decoder.positions", "copy")),
        (
            "local_encoder.layer.2.attention.self.key.weight",
            ("encoder.layers.2.attention.key.kernel", "transpose"),
        ),
        ("model.layer.11.output.LayerNorm.weight", ("decoder.layers.11.norm.scale", "copy")),
        ("modelXembed_positions.weight", None),
        ("model.layer.x.output.dense.bias", None),
        ("model.layer.1.output.dense.bias.more", None),
    ],
)
def test_names(theirs, ours):
    place = our_name(theirs, FOUNDATION)
    assert (place and (place.flax, place.rule.how)) == ours


@pytest.mark.parametrize(
    ("rule", "shape", "ours"),
    [
        (Rule("a", "b"), (2, 3), (2, 3)),
        (Rule("a", "b", "transpose"), (2, 3), (3, 2)),
        (Rule("a", "b", "drop", (0, 1)), (1, 1, 3), (3,)),
        (Rule("a", "b", "drop", (1,)), (2, 1, 4, 3), (2, 4, 3)),
    ],
)
def test_layouts(rule, shape, ours):
    tensor = np.arange(np.prod(shape)).reshape(shape)
    value = convert_tensor(tensor, rule)
    assert value.shape == convert_shape(shape, rule) == ours
    np.testing.assert_array_equal(restore_tensor(value, rule), tensor)
    if rule.how == "transpose":
        assert value[1, 0] == tensor[0, 1]


def test_loaded_tensors_are_the_models_numbers():
    source = small_lm(4)
    tensors = reverse(source, FOUNDATION, ...)
    model = small_lm(5)
    load_tensors(model, tensors, FOUNDATION, ..., "the file")
    for name, value in by_name(nnx.state(model)).items():
        np.testing.assert_array_equal(value, by_name(nnx.state(source))[name])


def test_all_that_does_not_fit_is_named_and_nothing_is_changed():
    model = small_lm(5)
    before = {k: np.array(v) for k, v in by_name(nnx.state(model)).items()}
    tensors = reverse(small_lm(4), FOUNDATION, ...)
    del tensors["global_sos"]
    tensors["final_decoder.bias"] = np.zeros(7)
    tensors["optimizer.state"] = np.zeros(1)
    tensors[f"model.layer.{CONFIG.layers}.output.dense.bias"] = np.zeros(32)
    with pytest.raises(M4MError) as error:
        load_tensors(model, tensors, FOUNDATION, ..., "the file")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("the file does not fit the model: ")
    for part in (
        "global_sos is not there",
        "final_decoder.bias has shape (7,), head.bias wants shape",
        "optimizer.state has no place",
        "model.layer.2.output.dense.bias has no place",
    ):
        assert part.replace("wants shape", "wants") in message
    for name, value in by_name(nnx.state(model)).items():
        np.testing.assert_array_equal(value, before[name])


def test_what_is_not_wanted_is_left():
    system = CrossAdapter(small_lm(1), CrossConfig(width=16, heads=2), rngs=nnx.Rngs(0))
    tensors = reverse(system, CROSS, AdapterParam)
    assert tensors["masked_embedding"].shape == (1, 1, 32)
    tensors["yinyang_attn.0.gates"] = np.full(1, 0.5, np.float32)
    base = np.array(system.lm.head.kernel[...])
    load_tensors(system, tensors, CROSS, AdapterParam, "the file")
    assert system.links[0].gate[...] == 0.5
    np.testing.assert_array_equal(system.lm.head.kernel[...], base)
    with pytest.raises(M4MError, match=r"head\.kernel|global_sos has no place"):
        load_tensors(
            system, tensors | {"global_sos": np.zeros(32)}, CROSS, AdapterParam, "the file"
        )
