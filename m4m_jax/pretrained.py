"""Models on disk: a directory with `model.json` beside its step folders.

A step folder is an Orbax checkpoint, whose item `model` holds the arrays by name: all of a language
model, or the adapter alone, which names its base by fingerprint. A training run's directory is a
model directory; its best step, by validation NLL, is the model, and `RUN/STEP` names any other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from etils import epath
from flax import nnx
from orbax.checkpoint import checkpoint_managers as policies

from m4m_jax import digests
from m4m_jax.convert import foreign
from m4m_jax.data.packing import halvings, largest, pack, unpack
from m4m_jax.errors import M4MError
from m4m_jax.files import absolute, atomic_path
from m4m_jax.mirror import Mirror, copy_tree, in_reach
from m4m_jax.models import card as cards
from m4m_jax.models import parameters
from m4m_jax.models.card import Base, Card
from m4m_jax.models.lm import LM
from m4m_jax.models.system import System
from m4m_jax.quiet import quiet_absl
from m4m_jax.sampling import sampler, songs

CARD = "model.json"
METRIC = "validation_nll"
FILE_SIZE = 16 * 2**20
"""Bytes of a file of arrays in a saved model, about."""


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """What `load` gives.

    Attributes:
        system: the network, an `nnx.Module`.
        card: what it is and what it was trained for, the contents of `model.json`.
    """

    system: System
    card: Card

    def token_nll(self, target: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
        """The negative log-likelihood of each target token, in nats.

        Args:
            target: token rows int32 [B, T, 2N], compressed as in training (`card.compress`).
            reference: token rows int32 [B, L, 2N], likewise; None for a language model.

        Returns:
            float32 [B, T, 2N], 0 at PAD.

        Raises:
            M4MError: a reference is missing, or one too many.
        """
        self._check_reference(reference)
        lm = self.system.lm
        heard = 0 if reference is None else reference.shape[1]
        windows, steps, width = target.shape
        most = largest(windows, steps, width, heard, masked=lm.masked)
        # A program is compiled for each size, so batches take one of a few.
        batch = pack(
            target,
            reference,
            vocabulary=lm.vocabulary,
            sizes=halvings(most),
            masked=lm.masked,
        )
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
        starts: np.ndarray | None = None,
    ) -> np.ndarray:
        """Write targets to one reference, or from nothing, of any length.

        Windows of the trained length follow each other, the end of one, at least a third of it,
        being the prompt of the next (`songs.window_starts`). All rows are compressed as the model
        was trained (`card.compress`).

        Args:
            reference: token rows int32 [T, 2N]; None for a language model.
            steps: rows to write, the prompt included (default: as the reference, or one window).
            prompt: token rows int32 [P, 2N] to go on from, shorter than a window.
            samples: how many; sample k of a seed is the same however many there are.
            seed: of the draws.
            max_notes: N of the written rows (default: as trained).
            temperature: 0 takes the likeliest token.
            top_k: draw from so many of the likeliest tokens.
            top_p: draw from the likeliest tokens whose probabilities make up this share.
            allowed: bool [2, V], see `sampler.well_formed`; every token is allowed by default.
            starts: int64 [k], ascending, steps of the song that windows should begin at, all
                multiples of the larger ratio of compression; where the first is below 0, so many
                empty steps come before the song. Anywhere, from 0 on, by default.

        Returns:
            Token rows int32 [samples, steps, 2N].

        Raises:
            M4MError: a reference is missing, or one too many; the prompt leaves nothing to write;
                there is no such draw.
        """
        self._check_reference(reference)
        _check_draws(samples, temperature, top_k, top_p)
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
        lead = 0 if starts is None else -int(starts[0]) // compress.target
        if given >= min(steps, window - lead):
            what = f"a window of {window - lead}" if window - lead < steps else steps
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
            starts=starts,
        )

    def _check_reference(self, reference: np.ndarray | None) -> None:
        if (reference is None) != (self.card.system == "lm"):
            takes = "takes no" if self.card.system == "lm" else "needs a"
            raise M4MError(f"a {self.card.system} model {takes} reference")


def _check_draws(samples: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
    """M4MError where tokens cannot be drawn so."""
    if samples < 1:
        raise M4MError(f"samples={samples}: ask for 1 or more")
    if not temperature >= 0:  # nor is nan
        raise M4MError(f"temperature={temperature}: give 0, for the likeliest token, or more")
    if top_k is not None and top_k < 1:
        raise M4MError(f"top_k={top_k}: give 1 or more, or None for all tokens")
    if top_p is not None and not 0 <= top_p <= 1:
        raise M4MError(f"top_p={top_p}: give a share from 0 to 1, or None for all tokens")


OneBase = str | os.PathLike[str] | Model
Bases = OneBase | Sequence[OneBase]


@functools.partial(jax.jit, static_argnums=0)
def _packed_nll(graph, weights, batch):
    return nnx.merge(graph, weights).packed_nll(batch)


def step_manager(
    path: epath.PathLike, keep: int | None = None, keep_every: int | None = None, **options
) -> ocp.CheckpointManager:
    """The Orbax manager of a directory's step folders.

    Kept are the two latest, so that there is one where the last is damaged; the `keep` best; and
    those of every `keep_every` steps.
    """

    def nll(metrics: dict[str, float]) -> float:
        return metrics[METRIC]

    best = policies.BestN(
        get_metric_fn=nll, reverse=True, n=keep, keep_checkpoints_without_metrics=False
    )
    kept = [policies.LatestN(2), best]
    if keep_every is not None:
        kept.append(policies.EveryNSteps(keep_every))
    policy = policies.AnyPreservationPolicy(kept)
    return ocp.CheckpointManager(
        absolute(path),
        options=ocp.CheckpointManagerOptions(
            best_fn=nll, best_mode="min", preservation_policy=policy, **options
        ),
    )


def write_card(card: Card, path: epath.Path) -> None:
    """Write `model.json` into a model directory, whole or not at all."""
    with atomic_path(path / CARD) as temporary:
        temporary.write_text(card.model_dump_json(indent=2) + "\n")


def save(model: Model, path: epath.PathLike) -> None:
    """Write a model directory, whole or not at all; of an adapter, the adapter alone.

    Raises:
        M4MError: something stands there already.
    """
    arrays = parameters.by_name(nnx.state(model.system, cards.saved(model.system)))
    save_arrays(arrays, model.card, path)


def save_arrays(arrays: Mapping[str, Any], card: Card, path: epath.PathLike) -> None:
    """Write a model directory out of its arrays by name (`save`)."""
    path = epath.Path(path)
    check_new(path)
    with _whole_folder(path) as folder:
        with step_manager(folder) as manager:
            # Until a file is full it is kept in memory.
            saved = ocp.args.PyTreeSave(dict(arrays), ocdbt_target_data_file_size=FILE_SIZE)
            manager.save(0, args=ocp.args.Composite(model=saved))
        digests.write(folder / "0")
        write_card(card, folder)


@contextlib.contextmanager
def _whole_folder(path: epath.Path) -> Iterator[epath.Path]:
    """Give a new folder that Orbax can write to; at the end of the block it is at `path`, whole."""
    if in_reach(path):
        with atomic_path(path) as temporary:
            temporary.mkdir(parents=True)
            yield temporary
        return
    with tempfile.TemporaryDirectory() as folder:
        yield epath.Path(folder)
        copy_tree(epath.Path(folder), path, last=CARD)


def check_new(path: epath.PathLike) -> None:
    """M4MError where something stands at the place of a directory that is to be written."""
    path = epath.Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise M4MError(f"{path} is not empty; name a new directory for the model")


def base_of(lm: LM, path: epath.PathLike, adapter: epath.PathLike) -> Base:
    """How an adapter's directory names its base, a language model as loaded from `path`."""
    return Base(fingerprint=fingerprint(lm), path=path_from(path, adapter))


def path_from(path: epath.PathLike, adapter: epath.PathLike) -> str:
    """The path of a base as an adapter's directory names it: relative to it, where it can be."""
    path, adapter = os.fspath(path), os.fspath(adapter)
    return path if "://" in path + adapter else os.path.relpath(path, adapter)


def fingerprint(lm: LM) -> str:
    """The fingerprint of a language model on its own, before a linked system takes it over."""
    return parameters.fingerprint(nnx.state(lm))


def load(path: epath.PathLike, base: Bases | None = None, *, dtype=jnp.float32) -> Model:
    """Load a model directory, or weights in PyTorch's layout: `.ckpt`, `.safetensors`, PEFT folder.

    Args:
        path: a directory or a file. Of a training run's directory the best step is loaded, of a
            step folder in it that step.
        base: the language model of an adapter, a directory or loaded, or the pair (of the
            reference, of the target) of one that links two; by default what the directory names,
            while no path in a file of PyTorch's is followed. A loaded base is not changed.
        dtype: of the parameters and so of the arithmetic.

    Raises:
        M4MError: the path is no model, is incomplete or damaged, or belongs to another base.
    """
    if foreign.is_foreign(path):
        return _load_foreign(path, base, dtype)
    card, arrays = read(path)
    path, _ = place_of(path)
    given = _given(card, base, path)
    lms = [_base(named, one, path) for named, one in zip(card.bases, given, strict=True)]
    system = cards.skeleton(card)
    graph, state = nnx.split(cards.assemble(system, arrays, lms))
    return Model(nnx.merge(graph, parameters.cast(state, dtype)), card)


def _load_foreign(path: epath.PathLike, base: Bases | None, dtype: jnp.dtype) -> Model:
    file = foreign.open_weights(path)
    given = () if base is None else _as_tuple(base)[::-1]
    lms = [_lm(one) for one in given]
    places = ["" if isinstance(one, Model) else os.fspath(absolute(one)) for one in given]
    bases = [
        foreign.Given(lm.config, Base(fingerprint=fingerprint(lm), path=place))
        for lm, place in zip(lms, places, strict=True)
    ]
    card = foreign.card_of(file, bases)
    return Model(foreign.load_system(file, card, lms, dtype=dtype), card)


def read(path: epath.PathLike) -> tuple[Card, dict[str, Any]]:
    """A model directory's card and arrays by name; an adapter's base is not looked for."""
    path, step = place_of(path)
    card = _card(path)
    system = cards.skeleton(card)
    return card, _restore(path, nnx.state(system, cards.saved(system)), step)


def place_of(path: epath.PathLike) -> tuple[epath.Path, int | None]:
    """The model directory that a path names, and the step where it names one of its folders."""
    path = epath.Path(path)
    if path.name.isdecimal() and not (path / CARD).exists() and (path.parent / CARD).exists():
        return path.parent, int(path.name)
    return path, None


def _card(path: epath.Path) -> Card:
    file = path / CARD
    if not path.is_dir():
        raise M4MError(f"{path}: there is no such model directory")
    if not file.exists():
        raise M4MError(f"{path} is not a model directory: it has no model.json")
    return cards.read_card(file.read_text(), str(file))


def _given(card: Card, base: Bases | None, path: epath.Path) -> Sequence[OneBase | None]:
    """What was given for each of the card's bases, in their order."""
    number = len(card.bases)
    if base is None:
        return (None,) * number
    pair = _as_tuple(base)
    if len(pair) != number:
        needs = ("needs no base", "needs one base", "needs two bases, the reference's first")
        raise M4MError(f"{path} {needs[number]}; {len(pair)} given")
    return pair[::-1]


def _as_tuple(base: Bases) -> tuple[OneBase, ...]:
    return (base,) if isinstance(base, str | os.PathLike | Model) else tuple(base)


def _base(named: Base, given: OneBase | None, path: epath.Path) -> LM:
    one = given if given is not None else base_path(named, path)
    lm, where = _lm(one), "the given base" if isinstance(one, Model) else one
    if fingerprint(lm) != named.fingerprint:
        raise M4MError(
            f"{path} was trained on another base than {where}: the fingerprint of its base is "
            f"{named.fingerprint[:12]}; name the right one"
        )
    return lm


def _lm(given: OneBase) -> LM:
    """The language model that is given, loaded or by its path."""
    where = "the given base" if isinstance(given, Model) else given
    system = given.system if isinstance(given, Model) else load(given).system
    if not isinstance(system, LM):
        raise M4MError(f"{where} is a linked system; the base of an adapter is a language model")
    if system.start_vector.dtype != jnp.float32:
        raise M4MError("a base is handed over in float32, which its fingerprint is taken of")
    return system


def base_path(named: Base, path: epath.PathLike) -> epath.Path:
    """Where the base is that an adapter's directory at `path` names; M4MError where it is not."""
    path, _ = place_of(path)
    where = named.path if "://" in named.path else os.path.normpath(path / named.path)
    if not epath.Path(where).exists():
        raise M4MError(
            f"{path} needs its base, which is not at {where}; name it with base (--base)"
        )
    return epath.Path(where)


def _restore(path: epath.Path, state: nnx.State, step: int | None = None) -> dict[str, Any]:
    """The arrays of a step, as `state` has them: the best, or the latest where none was validated.

    step: the one that is wanted.
    """
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
        for name, x in parameters.by_name(state).items()
    }
    mirror = None if in_reach(path) else Mirror(path)
    folder = path if mirror is None else mirror.near
    where, options = path, {"read_only": True, "create": False, "save_interval_steps": 0}
    try:
        with quiet_absl(), step_manager(folder, **options) as manager:
            step = _chosen(manager, path) if step is None else _there(manager, path, step)
            where = path / str(step)
            if mirror is not None:
                mirror.fetch(step)
            _check_digests(where)
            _check_names(folder / str(step) / "model", set(wanted))
            args = ocp.args.Composite(model=ocp.args.StandardRestore(wanted))
            return manager.restore(step, args=args)["model"]
    except M4MError:
        raise
    except Exception as error:
        for other in path.iterdir():  # the figures of all are read
            _check_digests(other)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise M4MError(f"{where} cannot be read as its model.json says: {reason}") from error


def _chosen(manager: ocp.CheckpointManager, path: epath.Path) -> int:
    """The best step, or the latest where none was validated."""
    best = manager.best_step()
    step = manager.latest_step() if best is None else best
    if step is None:
        raise M4MError(f"{path} is incomplete: it holds no finished checkpoint")
    return step


def _there(manager: ocp.CheckpointManager, path: epath.Path, step: int) -> int:
    """The step, where it was saved."""
    steps = sorted(manager.all_steps())
    if step not in steps:
        kept = ", ".join(map(str, steps)) or "none"
        raise M4MError(f"{path} holds no finished checkpoint of step {step}; it has {kept}")
    return step


def _check_digests(folder: epath.Path) -> None:
    """M4MError where a step folder is not what was saved; one without digests is not looked at."""
    if (folder / digests.FILE).exists() and (fault := digests.fault(folder)):
        raise M4MError(f"{folder} is damaged: {fault}; without it, the next best step is loaded")


def _check_names(item: epath.Path, wanted: set[str]) -> None:
    """Look into a checkpoint first: where arrays fail to load, libraries print tracebacks."""
    place = os.fspath(absolute(item))
    base = place if "://" in place else f"file://{place}"
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"{base}/"}).result()
    names = {key.decode().rpartition("/")[0] for key in store.list().result()}
    if odd := sorted(wanted ^ names):
        raise ValueError(f"it {'lacks' if odd[0] in wanted else 'also holds'} {odd[0]}")
