from __future__ import annotations

import numpy as np
import pytest
from flax import nnx

from m4m_jax.convert.tables import CROSS, FOUNDATION, Rule
from m4m_jax.convert.weights import convert_tensor, load_tensors, our_name
from m4m_jax.errors import M4MError
from m4m_jax.models.adapter import AdapterParam
from m4m_jax.models.cross import CrossAdapter, CrossConfig
from m4m_jax.models.lm import LM, preset
from m4m_jax.models.parameters import by_name
from tests.models.small import CONFIG, small_lm


def reverse(model: nnx.Module, table: list[Rule], wanted) -> dict[str, np.ndarray]:
    """The model's own numbers under the names that the table gives them in PyTorch."""
    back = [Rule(rule.flax, rule.torch, rule.how) for rule in table]
    tensors = {}
    for name, value in by_name(nnx.state(model, wanted)).items():
        torch_name, how = our_name(name, back)
        value = np.asarray(value)
        value = value.T if how == "transpose" else value
        tensors[torch_name] = value[None, None] if how == "flatten" else value
    return tensors


def names_of(make, wanted) -> set[str]:
    """The names of a model's variables, without making it."""
    state = nnx.state(nnx.eval_shape(make), wanted)
    return {".".join(map(str, path)) for path, _ in nnx.to_flat_state(state)}


def foundation() -> LM:
    return LM(preset("1"), rngs=nnx.Rngs(0))


def cross() -> CrossAdapter:
    return CrossAdapter(foundation(), CrossConfig(), rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("make", "wanted", "table"), [(foundation, ..., FOUNDATION), (cross, AdapterParam, CROSS)]
)
def test_every_parameter_has_a_tensor_of_its_own(make, wanted, table):
    names = names_of(make, wanted)
    back = [Rule(rule.flax, rule.torch, rule.how) for rule in table]
    theirs = {name: our_name(name, back) for name in names}
    assert None not in theirs.values()
    assert len(set(theirs.values())) == len(names)
    for name, (torch_name, how) in theirs.items():
        assert our_name(torch_name, table) == (name, how)


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
    assert our_name(theirs, FOUNDATION) == ours


def test_layouts():
    tensor = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(convert_tensor(tensor, "transpose"), tensor.T)
    np.testing.assert_array_equal(convert_tensor(tensor[:1, None], "flatten"), [0, 1, 2])
    assert convert_tensor(tensor, "copy") is tensor


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
        "start_vector is not there",
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
