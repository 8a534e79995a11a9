"""The system of a run, its card and its numbers, out of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx

from m4m_jax import pretrained
from m4m_jax.config import CocoMulla, Config, Cross, SelfAttentive
from m4m_jax.data.supply import tasks_of
from m4m_jax.errors import M4MError
from m4m_jax.models import card as cards
from m4m_jax.models.card import Adapter, Card
from m4m_jax.models.coco_mulla import CocoMullaConfig
from m4m_jax.models.cross import CrossAdapter, CrossConfig
from m4m_jax.models.lm import LM, LMConfig, preset
from m4m_jax.models.lora import LoRAConfig
from m4m_jax.models.self_attentive import SelfConfig
from m4m_jax.models.seq2seq import seq2seq_size
from m4m_jax.models.system import System
from m4m_jax.pretrained import Model
from m4m_jax.sampling.sampler import embed
from m4m_jax.training.optim import Hyper


def load_bases(config: Config) -> list[Model]:
    """The language models that a run starts from: none, one, or those of reference and target.

    Raises:
        M4MError: one cannot be read, is no language model or does not suit the configuration.
    """
    bases = [pretrained.load(place) for place in config.bases]
    for place, base in zip(config.bases, bases, strict=True):
        if not isinstance(base.system, LM):
            raise M4MError(f"base={place} is a linked system; a base is a language model")
        _check_fit(config, base.card.lm, place)
    equal = len({pretrained.fingerprint(base.system.lm) for base in bases}) == 1
    return bases[-1:] if equal else bases  # a pair of equals is one


def new_system(card: Card, bases: Sequence[Model], seed: int) -> System:
    """The system of a run, newly initialised; a language model with a base goes on from it."""
    *reader, writer = (base.system.lm for base in bases) if bases else (None,)
    if card.system == "lm" and writer is not None:
        return writer
    return cards.build(card, writer, *reader, rngs=nnx.Rngs(seed))


HEARD = 16
"""Windows by whose references links are whitened."""


def whiten(system: System, config: Config, windows: Any) -> None:
    """Have new links hear all that references tell, where the configuration says so.

    windows: those trained on, a `grain.MapDataset`; all hosts read the same ones. Resumed runs do
    it too: one whose checkpoints all turn out to be damaged begins anew.
    """
    if isinstance(config.adapter, Cross) and config.adapter.whiten:
        assert isinstance(system, CrossAdapter)
        first = [windows[k]["reference"] for k in range(min(HEARD, len(windows)))]
        system.whiten(embed(system.reference_lm, np.stack(first)))


def card_of(config: Config, path: epath.Path, bases: Sequence[Model]) -> Card:
    """The card of a run at `path`, without data and parts; bases: as of `load_bases`."""
    task = tasks_of(config)[0]
    if bases:
        *reader, sizes = (base.card.lm for base in bases)
    else:
        assert config.size is not None
        assert config.encoder is not None
        sized = seq2seq_size if config.system == "seq2seq" else preset
        sizes = sized(config.size, vocabulary=config.vocabulary, encoder=config.encoder)
        reader = []
        _check_fit(config, sizes)
    adapter, named = adapter_of(config), []
    if adapter is not None and adapter.tune == "adapter":
        places = zip(reversed(bases), reversed(config.bases), strict=False)
        named = [pretrained.base_of(base.system.lm, place, path) for base, place in places]
    return Card(
        system=config.system,
        lm=sizes,
        reference_lm=reader[0] if reader else None,
        adapter=adapter,
        base=named[0] if named else None,
        reference_base=named[1] if len(named) > 1 else None,
        **task.view,
        max_notes=task.max_notes,
        compress=task.compress,
        window=config.window,
        starts=config.starts,
    )


def _check_fit(config: Config, sizes: LMConfig, base: str | None = None) -> None:
    """Whether a run's windows and what its configuration says of a model suit one of such sizes."""
    if config.window > sizes.positions:
        raise M4MError(
            f"a window of {config.window} steps is longer than the model's {sizes.positions}"
        )
    if base is None:
        return
    if config.vocabulary != sizes.vocabulary:
        raise M4MError(
            f"base={base} reads the {sizes.vocabulary} vocabulary; "
            f"set vocabulary={sizes.vocabulary}"
        )
    if config.encoder not in (None, sizes.encoder):
        raise M4MError(f"base={base} has the {sizes.encoder} encoder; leave encoder out")
    if config.size is not None:
        named = preset(config.size, vocabulary=sizes.vocabulary, encoder=sizes.encoder)
        if named != sizes:
            raise M4MError(f"base={base} is not of size {config.size}; leave size out")


def adapter_of(config: Config) -> Adapter | None:
    """The sizes of an adapter."""
    a, hidden = config.adapter, config.reference_mask_rate
    if a is None:
        return None
    if isinstance(a, CocoMulla):
        return CocoMullaConfig(a.steps, tune=a.tune, reference_mask_rate=hidden)
    lora = LoRAConfig(a.lora_rank, a.lora_alpha, a.lora_targets) if a.lora_rank else None
    if isinstance(a, SelfAttentive):
        return SelfConfig(lora, tune=a.tune, reference_mask_rate=hidden)
    sizes = (a.n_skip, a.width, a.heads, a.gate)
    return CrossConfig(*sizes, lora, tune=a.tune, reference_mask_rate=hidden)


def hyper_of(config: Config) -> Hyper:
    """The numbers of a run."""
    o = config.optimizer
    rates = (config.dropout, config.lora_dropout, config.mask_rate)
    return jax.tree.map(jnp.float32, Hyper(o.learning_rate, o.weight_decay, o.clip, *rates))
