"""The PyTorch build against the public implementation's names, sizes and figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from m4m_jax.bench.torch_checkpoints import save_checkpoint
from m4m_jax.bench.torch_lm import SIZES, FoundationLM, Size, parameter_count
from m4m_jax.bench.torch_systems import CocoMulla, CrossAttentive, SelfAttentive, Seq2Seq
from tests.golden import values

MAX_NLL_DIFFERENCE = 1e-4
MEAN_NLL_DIFFERENCE = 1e-5

ADAPTERS = {"cross": CrossAttentive, "cocomulla": CocoMulla}
COUNTS = {CrossAttentive: 6_794_502, SelfAttentive: 3_539_840, CocoMulla: 10_921_740}
LINKED = ["cross", "no-lora", "self", "cocomulla", "seq2seq"]


@pytest.fixture(scope="module", autouse=True)
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def weights(name):
    return {key: torch.from_numpy(value) for key, value in values.state(name).items()}


def shapes(system):
    return {name: tuple(value.shape) for name, value in system.state_dict().items()}


@pytest.fixture(scope="module")
def foundation():
    lm = FoundationLM(SIZES[0])
    lm.load_state_dict(weights("foundation"))
    return lm.eval()


def assert_same_nll(nll, expected):
    difference = np.abs(nll.numpy() - expected)
    assert np.array_equal(nll.numpy() == 0, expected == 0)
    assert difference.max() < MAX_NLL_DIFFERENCE
    assert difference[expected != 0].mean() < MEAN_NLL_DIFFERENCE


@torch.no_grad()
def test_foundation_nll(foundation):
    figures = values.figures()
    nll = foundation.token_nll(torch.from_numpy(figures["foundation_tokens"]))
    assert_same_nll(nll, figures["foundation_nll"])


@pytest.mark.parametrize("name", ADAPTERS)
@torch.no_grad()
def test_adapter_nll(foundation, name):
    figures = values.figures()
    system = ADAPTERS[name](foundation).eval()
    system.load_state_dict(weights(name))
    target, reference = (
        torch.from_numpy(figures[f"chord_mel_{part}"]) for part in ("target", "reference")
    )
    assert_same_nll(system.token_nll(target, reference), figures[f"{name}_chord_mel_nll"])


def test_foundation_layout(foundation):
    assert shapes(foundation) == values.shapes("foundation")


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_layout(foundation, name):
    assert shapes(ADAPTERS[name](foundation)) == values.shapes(name)


def test_counts_at_released_size():
    with torch.device("meta"):
        lm = FoundationLM(SIZES[1])
        assert parameter_count(lm) == 111_847_939
        assert parameter_count(Seq2Seq()) == 8_164_355
        for adapter, count in COUNTS.items():
            assert parameter_count(adapter(lm)) == count


def small(name):
    """A system over a small LM, every weight (gates too) away from its initial value."""
    lm = fill(FoundationLM(SIZES["tiny"]))
    build = {
        "foundation": lambda: lm,
        "cross": lambda: CrossAttentive(lm),
        "no-lora": lambda: CrossAttentive(lm, rank=0, skip=1),
        "self": lambda: SelfAttentive(lm),
        "cocomulla": lambda: CocoMulla(lm),
        "seq2seq": lambda: Seq2Seq(Size(64, 2, 4, 96, 1, 4, 96)),
    }
    return fill(build[name]()).eval()


def fill(system):
    state = system.state_dict()
    system.load_state_dict(
        {key: torch.from_numpy(values.value(key, value.shape)) for key, value in state.items()}
    )
    return system


def rows(steps, *, batch=2, notes=4, seed=0):
    """Token rows with one note a step, EOS and PADs."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.full((batch, steps, 2 * notes), 3330)
    tokens[..., 0] = torch.randint(0, 128, (batch, steps), generator=draw)
    tokens[..., 1] = torch.randint(128, 3200, (batch, steps), generator=draw)
    tokens[..., 2] = 3329
    return tokens


def test_self_attentive_names():
    expected = {"sentence_embedding": (2, 32), "masked_embedding": (1, 1, 128)}
    for stack, layers in (("model", 2), ("local_encoder", 1), ("local_decoder", 1)):
        for i in range(layers):
            for part in ("query", "value"):
                at = f"wrapped_model.base_model.model.{stack}.layer.{i}.attention.self.{part}"
                expected[f"{at}.lora_A.default.weight"] = (64, 128)
                expected[f"{at}.lora_B.default.weight"] = (128, 64)
    assert shapes(small("self")) == expected


def test_seq2seq_names():
    size = Size(64, 2, 4, 96, 1, 4, 96)
    expected = {
        f"wrapped_model.{name}": shape for name, shape in shapes(FoundationLM(size)).items()
    }
    for name, shape in list(expected.items()):
        if name.startswith("wrapped_model.model."):
            expected[name.replace(".model.", ".encoder.")] = shape
        if name.startswith("wrapped_model.model.") and ".attention." in name:
            expected[name.replace(".attention.", ".crossattention.")] = shape
    assert shapes(small("seq2seq")) == expected


def test_frozen_lm_saves_no_lora():
    assert not [name for name in shapes(small("no-lora")) if name.startswith("wrapped_model")]


def test_adapter_refuses_other_names():
    system = small("cross")
    state = system.state_dict()
    with pytest.raises(RuntimeError, match="masked_embedding"):
        system.load_state_dict({k: v for k, v in state.items() if k != "masked_embedding"})
    base = "wrapped_model.base_model.model.global_sos"
    with pytest.raises(RuntimeError, match=base):
        system.load_state_dict({**state, base: torch.zeros(128)})


def test_only_the_global_table_becomes_sines():
    lm = fill(FoundationLM(SIZES["tiny"]))
    linked = CrossAttentive(lm).lm
    table = linked.model.embed_positions.weight
    angles = 5 / 10000 ** (2 * np.arange(16) / 32)
    np.testing.assert_allclose(table[5], np.concatenate([np.sin(angles), np.cos(angles)]), 1e-6)
    assert not torch.equal(lm.model.embed_positions.weight, table)
    for stack in ("local_encoder", "local_decoder"):
        own, kept = (getattr(m, stack).embed_positions.weight for m in (lm, linked))
        assert torch.equal(own, kept)


@pytest.mark.parametrize("name", ["foundation", *LINKED])
def test_generation_agrees_with_logits(name):
    """Caches, row by row, choose what the padded forward pass finds likeliest."""
    system = small(name)
    reference = None if name == "foundation" else rows(5, notes=3)
    prompt = rows(3, seed=1)
    generated = system.generate(reference, 4, prompt=prompt, max_notes=4)
    assert generated.shape == (2, 4, 8)
    with torch.no_grad():
        likeliest = system(torch.cat([prompt, generated], 1), reference)[:, 3:].argmax(-1)
    real = generated != 3330
    assert real[..., 0].all()
    assert torch.equal(generated[real], likeliest[real])


def test_sampling_follows_seed_and_ends_rows():
    system = small("cross")
    # EOS made likely, so that rows end early.
    system.lm.final_decoder.bias.data[3329] = 5
    draws = [
        system.generate(rows(5), 6, temperature=1.0, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    ended = (draws[0] == 3329).cumsum(-1) - (draws[0] == 3329).int() > 0
    assert ended.any()
    assert (draws[0][ended] == 3330).all()


@pytest.mark.parametrize("name", ["foundation", *LINKED])
def test_target_steps_see_no_future(name):
    system, reference = small(name), None if name == "foundation" else rows(6)
    target = rows(6, seed=1)
    later = torch.cat([target[:, :4], rows(2, seed=2)], 1)
    with torch.no_grad():
        a, b = (system.token_nll(t, reference)[:, :4] for t in (target, later))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("name", "reads_last"), [
    ("cross", False), ("self", True), ("cocomulla", True), ("seq2seq", True),
])  # fmt: skip
def test_reference_steps_that_count(name, reads_last):
    """Every step of the reference counts, the last one too unless the reference is shifted."""
    system, target, reference = small(name), rows(6, seed=1), rows(6)
    with torch.no_grad():
        nll = system.token_nll(target, reference)
        for step in range(6):
            changed = reference.clone()
            changed[:, step] = rows(1, seed=3)[:, 0]
            counts = not torch.allclose(nll, system.token_nll(target, changed), atol=1e-5)
            assert counts == (step < 5 or reads_last)


@pytest.mark.parametrize("name", LINKED)
def test_only_what_is_saved_trains(name):
    system = small(name).train()
    masked = None if name == "seq2seq" else torch.arange(6).expand(2, 6) % 3 == 1
    system.loss(rows(6, seed=1), rows(6), masked).backward()
    moved = {n for n, p in system.named_parameters() if p.grad is not None and p.grad.any()}
    tables = {n for n in system.state_dict() if n.endswith("embed_positions.weight")}
    assert moved == set(system.state_dict()) - tables


def test_dropout_only_in_training():
    for name in ("cross", "no-lora", "self", "seq2seq"):
        system, (target, reference) = small(name), (rows(6, seed=1), rows(6))
        evaluated = [system.loss(target, reference) for _ in range(2)]
        trained = [system.train().loss(target, reference) for _ in range(2)]
        assert evaluated[0] == evaluated[1]
        assert trained[0] != trained[1]
    frozen = small("cocomulla")
    assert frozen.loss(target, reference) == frozen.train().loss(target, reference)


def test_loss_is_the_mean_over_real_tokens():
    system, target, reference = small("cross"), rows(6, seed=1), rows(6)
    nll = system.token_nll(target, reference)
    assert (nll[target == 3330] == 0).all()
    torch.testing.assert_close(system.loss(target, reference), nll[target != 3330].mean())


def test_coco_mulla_fills_with_empty_rows():
    system, target, reference = small("cocomulla"), rows(6, seed=1), rows(6)
    empty = torch.full((2, 378, 8), 3330)
    empty[..., 0] = 3329
    whole = system.token_nll(target, torch.cat([reference, empty], 1))
    torch.testing.assert_close(system.token_nll(target, reference), whole)
    with pytest.raises(ValueError, match="384"):
        system.token_nll(target, rows(385))


@pytest.mark.parametrize("name", ["foundation", *LINKED])
def test_checkpoint_layout(name, tmp_path):
    system, path = small(name), tmp_path / "model.ckpt"
    given = {} if name == "foundation" else {"model_fp": "base.ckpt", "train_task": "chord_mel"}
    save_checkpoint(path, system, **given)
    content = torch.load(path, weights_only=True)
    assert content.keys() - {"hyper_parameters"} == {"state_dict", "pytorch-lightning_version"}
    for key, value in system.state_dict().items():
        assert torch.equal(content["state_dict"].pop(key), value)
    assert not content["state_dict"]
    if name == "foundation":
        assert "hyper_parameters" not in content
    else:
        hyper = content["hyper_parameters"]
        assert hyper["model_fp"] == "base.ckpt"
        assert hyper["use_lora"] == (name in ("cross", "self"))
        assert hyper["n_skip"] == (1 if name == "no-lora" else 2)
