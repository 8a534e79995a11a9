"""Our models against the PyTorch build out of transformers' layers, and against the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from m4m_jax.bench.torch_lm import FoundationLM, Size, causal_mask, run_layer
from m4m_jax.bench.torch_systems import CocoMulla as TorchCocoMulla
from m4m_jax.bench.torch_systems import CrossAttentive, SelfAttentive
from m4m_jax.bench.torch_systems import Seq2Seq as TorchSeq2Seq
from m4m_jax.convert.tables import FOUNDATION, TABLES
from m4m_jax.data.packing import pack, unpack
from m4m_jax.models.adapter import AdapterParam
from m4m_jax.models.coco_mulla import CocoMulla
from m4m_jax.models.cross import CrossAdapter
from m4m_jax.models.lm import LM, LMConfig, preset
from m4m_jax.models.roformer import causal
from m4m_jax.models.self_attentive import SelfAdapter
from m4m_jax.models.seq2seq import Seq2Seq
from m4m_jax.models.system import System
from m4m_jax.music.simunote import PLAIN
from tests.convert.loading import load_tensors
from tests.golden import values as golden
from tests.models.conftest import random_rows
from tests.models.small import packed_logits

pytestmark = pytest.mark.usefixtures("quick_compile")

TOLERANCE = 1e-4  # of logits, in float32 with matmul precision "highest"
NLL_WORST, NLL_MEAN = 5e-4, 5e-5  # nats a token, against the reference's own figures
SMALL = Size(96, 4, 4, 160, local_layers=2, local_heads=2, local_ffn=112)
SEQ2SEQ = Size(64, 2, 4, 96, local_layers=2, local_heads=2, local_ffn=80)


def exercise(system: torch.nn.Module) -> torch.nn.Module:
    """Give every parameter and position table random numbers, so that nothing hides behind 0."""
    with torch.no_grad():
        for name, tensor in system.state_dict(keep_vars=True).items():
            # Maps that shrink a little: float32 itself must not be what two builds differ by.
            shrink = 0.8 if tensor.ndim == 2 and "embed" not in name else 1.0
            value = shrink * golden.value(name, tuple(tensor.shape))
            tensor.copy_(torch.from_numpy(value))
    return system.eval()


def numbers(system: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in system.state_dict().items()}


def flax_lm(tensors: dict[str, np.ndarray], config: LMConfig) -> LM:
    lm = LM(config, rngs=nnx.Rngs(0))
    load_tensors(lm, tensors, FOUNDATION, ..., "the foundation's state")
    return lm


ADAPTERS = {
    "cross": (CrossAttentive, CrossAdapter),
    "self": (SelfAttentive, SelfAdapter),
    "coco-mulla": (TorchCocoMulla, CocoMulla),
}


def flax_adapter(name: str, tensors: dict[str, np.ndarray], lm: LM) -> System:
    system = ADAPTERS[name][1](lm, rngs=nnx.Rngs(0))
    load_tensors(system, tensors, TABLES[name], AdapterParam, "the adapter's state")
    return system


@pytest.fixture(scope="module")
def theirs() -> FoundationLM:
    return exercise(FoundationLM(SMALL))


@pytest.fixture
def ours(theirs) -> LM:
    s = SMALL
    config = LMConfig(s.width, s.layers, s.heads, s.ffn, s.local_layers, s.local_heads, s.local_ffn)
    return flax_lm(numbers(theirs), config)


def hidden(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def agree(got: jax.Array, want: torch.Tensor) -> None:
    np.testing.assert_allclose(got, want.detach().numpy(), atol=TOLERANCE, rtol=0)


def token_nll(system: System, target: np.ndarray, reference: np.ndarray | None = None):
    batch = pack(target, reference, vocabulary=PLAIN)
    return unpack(np.asarray(nnx.jit(lambda s, b: s.packed_nll(b))(system, batch)), batch)


@pytest.mark.parametrize("stack", ["model", "local_encoder", "local_decoder"])
def test_layer_with_openings_agrees(theirs, ours, stack):
    mine = {"model": "decoder", "local_encoder": "encoder"}.get(stack, stack)
    h, added, gained = hidden(0, 3, 2, 12, SMALL.width)
    mask = None if stack == "local_encoder" else causal(12)
    rope = getattr(ours, mine).rope(slice(12))
    layer = getattr(ours, mine).layers[1]
    got, _ = layer(jnp.asarray(h), rope, mask, attn_in=added, attn_out=gained)
    h, added, gained = map(torch.from_numpy, (h, added, gained))
    other = getattr(theirs, stack)
    mask = None if stack == "local_encoder" else causal_mask(h)
    want = run_layer(other.layer[1], h, mask, other.rope(0, 12), attn_in=added, attn_out=gained)
    agree(got, want)


def test_attention_alone_agrees(theirs, ours):
    """Query from one place, keys and values from another, no positions."""
    x, source = hidden(1, 2, 5, SMALL.width), hidden(2, 2, 9, SMALL.width)
    attention = ours.decoder.layers[0].attention
    got, _ = attention(jnp.asarray(x), jnp.asarray(source))
    other = theirs.model.layer[0].attention
    mixed = other.self(torch.from_numpy(x), encoder_hidden_states=torch.from_numpy(source))[0]
    agree(got, other.output.dense(mixed))


def test_local_encoder_agrees(theirs, ours):
    rows = random_rows(0, 2, 20, 5)
    agree(ours.encode(jnp.asarray(rows)), theirs.encode(torch.from_numpy(rows)))


def test_global_decoder_agrees(theirs, ours):
    steps = hidden(3, 2, 20, SMALL.width)
    want = theirs.states(torch.cat([theirs.start(2), torch.from_numpy(steps)[:, :-1]], 1), None)
    agree(ours.states(jnp.asarray(steps)), want)


@pytest.mark.parametrize("max_notes", [1, 5, 16])
def test_logits_of_the_whole_lm_agree(theirs, ours, max_notes):
    rows = random_rows(1, 2, 20, max_notes)
    with torch.no_grad():
        want = theirs(torch.from_numpy(rows)).numpy()
    batch = pack(rows, vocabulary=PLAIN)
    got = unpack(np.asarray(packed_logits(ours, batch)), batch)
    real = rows != PLAIN.pad
    np.testing.assert_allclose(got[real], want[real], atol=TOLERANCE, rtol=0)


def linked_logits_agree(linked: torch.nn.Module, system: System) -> None:
    for max_notes in (5, 16):
        reference, target = random_rows(2, 2, 20, max_notes), random_rows(3, 2, 20, max_notes)
        with torch.no_grad():
            want = linked(torch.from_numpy(target), torch.from_numpy(reference)).numpy()
            other = linked(torch.from_numpy(target), torch.from_numpy(reference[::-1].copy()))
        batch = pack(target, reference, vocabulary=PLAIN)
        got = unpack(np.asarray(packed_logits(system, batch)), batch)
        real = target != PLAIN.pad
        np.testing.assert_allclose(got[real], want[real], atol=TOLERANCE, rtol=0)
        assert np.abs(other.numpy() - want)[real].max() > 0.01  # the reference counts


@pytest.mark.parametrize("name", ADAPTERS)
def test_logits_of_adapters_agree(theirs, ours, name):
    linked = exercise(ADAPTERS[name][0](theirs))
    linked_logits_agree(linked, flax_adapter(name, numbers(linked), ours))


def test_logits_of_seq2seq_agree():
    s = SEQ2SEQ
    linked = exercise(TorchSeq2Seq(s))
    config = LMConfig(s.width, s.layers, s.heads, s.ffn, s.local_layers, s.local_heads, s.local_ffn)
    system = Seq2Seq(config, rngs=nnx.Rngs(0))
    load_tensors(system, numbers(linked), TABLES["seq2seq"], ..., "the state of seq2seq")
    linked_logits_agree(linked, system)


def close_to_the_reference(got: np.ndarray, want: np.ndarray) -> None:
    difference = np.abs(got - want)
    assert difference.max() <= NLL_WORST
    assert difference[want != 0].mean() <= NLL_MEAN


def test_lm_gives_the_reference_nll():
    figures = golden.figures()
    lm = flax_lm(golden.state("foundation"), preset("0"))
    got = token_nll(lm, figures["foundation_tokens"])
    close_to_the_reference(got, figures["foundation_nll"])


@pytest.mark.parametrize("name", ["cross", "coco-mulla"])
def test_adapters_give_the_reference_nll(name):
    figures, plain = golden.figures(), name.replace("-", "")
    system = flax_adapter(
        name, golden.state(plain), flax_lm(golden.state("foundation"), preset("0"))
    )
    got = token_nll(system, figures["chord_mel_target"], figures["chord_mel_reference"])
    close_to_the_reference(got, figures[f"{plain}_chord_mel_nll"])
