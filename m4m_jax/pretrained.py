"""Models on disk: a directory with `model.json` beside its step folders.

A step folder is an Orbax checkpoint, whose item `model` holds the arrays by name: all of a language
model, or the adapter alone, which names its base by fingerprint. A training run's directory is a
model directory; its best step, by validation NLL, is the model.
"""

from __future__ import annotations

import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from etils import epath
from flax import nnx
from orbax.checkpoint import checkpoint_managers as policies

from m4m_jax.data.packing import pack, unpack
from m4m_jax.errors import M4MError
from m4m_jax.files import absolute, atomic_path
from m4m_jax.models import card as cards
from m4m_jax.models import parameters
from m4m_jax.models.card import Base, Card
from m4m_jax.models.lm import LM
from m4m_jax.models.system import System
from m4m_jax.sampling import sampler, songs

METRIC = "validation_nll"


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A system and its card: what `load` gives."""

    system: System
    card: Card

    def token_nll(self, target: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
        """Natural-log NLL of each target token.

        target, reference: token rows int32 [B, T, 2N], each compressed as the model was trained
        (`card.compress`). Returns float32 [B, T, 2N], 0 at PAD.
        """
        self._check_reference(reference)
        batch = pack(target, reference, vocabulary=self.system.lm.vocabulary)
        return unpack(np.asarray(_packed_nll(*nnx.split(self.system), batch)), batch)

    def generate(
        self,
        reference: np.ndarray | None = None,
        *,
        steps: int | None = None,
        prompt: np.ndarray | None = None,
        samples: int = 1,
        seed: int = 0,
        max_notes: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        allowed: np.ndarray | None = None,
    ) -> np.ndarray:
        """Write targets to one reference, or from nothing, of any length.

        Windows of the trained length follow each other, the last third of one being the prompt of
        the next.

        All rows are compressed as the model was trained (`card.compress`).

        reference: token rows int32 [T, 2N]; None for a language model.
        steps: rows to write, the prompt included (default: as the reference, or one window).
        prompt: token rows int32 [P, 2N] to go on from, shorter than a window.
        samples: how many; sample k of a seed is the same however many there are.
        max_notes: N of the written rows (default: as trained).
        temperature: 0 takes the likeliest token. top_k, top_p: see `sampler.Sampling`.
        allowed: bool [2, V], see `sampler.well_formed`; every token is allowed by default.

        Returns token rows int32 [samples, steps, 2N].
        """
        self._check_reference(reference)
        width = 2 * (max_notes or self.card.max_notes)
        if prompt is None:
            prompt = np.zeros((0, width), np.int32)
        compress = self.card.compress
        window, given = self.card.window // compress.target, len(prompt)
        if steps is None:
            heard = None if reference is None else len(reference) * compress.reference
            steps = window if heard is None else -(-heard // compress.target)
        if prompt.shape[1] != width:
            raise M4MError(f"a prompt has rows of {prompt.shape[1]} tokens; {width} are written")
        if given >= min(steps, window):
            what = f"a window of {window}" if window < steps else steps
            raise M4MError(f"a prompt of {given} steps leaves nothing to write of {what}")
        return songs.write_song(
            self.system,
            reference,
            prompt,
            steps,
            sampler.sample_keys(seed, samples),
            sampler.Sampling(temperature, top_k, top_p),
            window=self.card.window,
            compress=compress,
            allowed=allowed,
        )

    def _check_reference(self, reference: np.ndarray | None) -> None:
        if (reference is None) != (self.card.system == "lm"):
            takes = "takes no" if self.card.system == "lm" else "needs a"
            raise M4MError(f"a {self.card.system} model {takes} reference")


@functools.partial(jax.jit, static_argnums=0)
def _packed_nll(graph, weights, batch):
    return nnx.merge(graph, weights).packed_nll(batch)


def step_manager(path: epath.PathLike, keep: int | None = None, **options) -> ocp.CheckpointManager:
    """The Orbax manager of a directory's step folders: the latest and the `keep` best are kept."""

    def nll(metrics: dict[str, float]) -> float:
        return metrics[METRIC]

    best = policies.BestN(
        get_metric_fn=nll, reverse=True, n=keep, keep_checkpoints_without_metrics=False
    )
    policy = policies.AnyPreservationPolicy([policies.LatestN(1), best])
    return ocp.CheckpointManager(
        absolute(path),
        options=ocp.CheckpointManagerOptions(
            best_fn=nll, best_mode="min", preservation_policy=policy, **options
        ),
    )


def write_card(card: Card, path: epath.Path) -> None:
    """Write `model.json` into a model directory, whole or not at all."""
    with atomic_path(path / "model.json") as temporary:
        temporary.write_text(card.model_dump_json(indent=2) + "\n")


def save(model: Model, path: epath.PathLike) -> None:
    """Write a model directory; M4MError where something stands there already."""
    path = epath.Path(path)
    if path.exists() and any(path.iterdir()):
        raise M4MError(f"{path} is not empty; name a new directory for the model")
    arrays = parameters.by_name(nnx.state(model.system, cards.saved(model.system)))
    with atomic_path(path) as temporary:
        temporary.mkdir(parents=True)
        with step_manager(temporary) as manager:
            manager.save(0, args=ocp.args.Composite(model=ocp.args.StandardSave(arrays)))
        write_card(model.card, temporary)


def base_of(lm: LM, path: epath.PathLike, adapter: epath.PathLike) -> Base:
    """How an adapter's directory names its base, a language model as loaded from `path`."""
    path, adapter = os.fspath(path), os.fspath(adapter)
    if "://" not in path + adapter:
        path = os.path.relpath(path, adapter)
    return Base(fingerprint=fingerprint(lm), path=path)


def fingerprint(lm: LM) -> str:
    """The fingerprint of a language model on its own, before a linked system takes it over."""
    return parameters.fingerprint(nnx.state(lm))


def load(
    path: epath.PathLike, base: epath.PathLike | Model | None = None, *, dtype=jnp.float32
) -> Model:
    """Load a model directory.

    base: the language model of an adapter, a directory or loaded; by default the one that the
    directory names. A loaded base is copied. dtype: of the parameters and so of the arithmetic.

    Raises M4MError where the directory is no model, is incomplete or belongs to another base.
    """
    path = epath.Path(path)
    card = _card(path)
    lm = None if card.base is None else _base(card.base, base, path)
    system = cards.build(card, lm, rngs=nnx.Rngs(0))
    graph, state, rest = nnx.split(system, cards.saved(system), ...)
    system = nnx.merge(
        graph, parameters.cast(_restore(path, state), dtype), parameters.cast(rest, dtype)
    )
    return Model(system, card)


def _card(path: epath.Path) -> Card:
    file = path / "model.json"
    if not path.is_dir():
        raise M4MError(f"{path}: there is no such model directory")
    if not file.exists():
        raise M4MError(f"{path} is not a model directory: it has no model.json")
    return cards.read_card(file.read_text(), str(file))


def _base(named: Base, given: epath.PathLike | Model | None, path: epath.Path) -> LM:
    if isinstance(given, Model):
        model, where = Model(nnx.clone(given.system), given.card), "the given base"
    else:
        where = given if given is not None else _named_path(named, path)
        model = load(where)
    if not isinstance(model.system, LM):
        raise M4MError(f"{where} is a linked system; the base of an adapter is a language model")
    if model.system.start_vector.dtype != jnp.float32:
        raise M4MError("a base is handed over in float32, which its fingerprint is taken of")
    if fingerprint(model.system) != named.fingerprint:
        raise M4MError(
            f"{path} was trained on another base than {where}: the fingerprint of its base is "
            f"{named.fingerprint[:12]}; name the right one"
        )
    return model.system


def _named_path(named: Base, path: epath.Path) -> epath.Path:
    where = named.path if "://" in named.path else os.path.normpath(path / named.path)
    if not epath.Path(where).is_dir():
        raise M4MError(f"{path} needs its base, which is not at {where}; name it with base")
    return epath.Path(where)


def _restore(path: epath.Path, state: nnx.State) -> nnx.State:
    """The state with the arrays of the best step, or the latest where none was validated."""
    with step_manager(path, read_only=True) as manager:
        step = manager.best_step() if manager.best_step() is not None else manager.latest_step()
        if step is None:
            raise M4MError(f"{path} is incomplete: it holds no finished checkpoint")
        wanted = parameters.abstract(parameters.by_name(state))
        args = ocp.args.Composite(model=ocp.args.StandardRestore(wanted))
        try:
            _check_names(path / str(step) / "model", set(wanted))
            arrays = manager.restore(step, args=args)["model"]
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise M4MError(
                f"{path / str(step)} cannot be read as its model.json says: {reason}"
            ) from error
    return parameters.fill(state, arrays)


def _check_names(item: epath.Path, wanted: set[str]) -> None:
    """Look into a checkpoint first: where arrays fail to load, libraries print tracebacks."""
    place = os.fspath(absolute(item))
    base = place if "://" in place else f"file://{place}"
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"{base}/"}).result()
    names = {key.decode().rpartition("/")[0] for key in store.list().result()}
    if odd := sorted(wanted ^ names):
        raise ValueError(f"it {'lacks' if odd[0] in wanted else 'also holds'} {odd[0]}")
