"""A training run out of its configuration: data, system, step and hooks put together."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import yaml
from etils import epath
from flax import nnx

from m4m_jax import pretrained
from m4m_jax.config import CocoMulla, Config, SelfAttentive, load_config
from m4m_jax.data.supply import Supply, supply, tasks_of
from m4m_jax.errors import M4MError
from m4m_jax.files import atomic_path
from m4m_jax.models import card as cards
from m4m_jax.models import parameters
from m4m_jax.models.card import Adapter, Card, read_card
from m4m_jax.models.coco_mulla import CocoMullaConfig
from m4m_jax.models.cross import CrossConfig
from m4m_jax.models.lm import LM, LMConfig, preset
from m4m_jax.models.lora import LoRAConfig
from m4m_jax.models.self_attentive import SelfConfig
from m4m_jax.models.seq2seq import seq2seq_size
from m4m_jax.models.system import System
from m4m_jax.music.tasks import Task
from m4m_jax.pretrained import METRIC, Model
from m4m_jax.training import hooks, hosts, sharding
from m4m_jax.training.checkpoints import Checkpoints
from m4m_jax.training.counted import CountedStep
from m4m_jax.training.feed import Feed, HeldOut, placed
from m4m_jax.training.loop import Hook, train
from m4m_jax.training.optim import Hyper, Schedule
from m4m_jax.training.preemption import Preemption
from m4m_jax.training.profiling import Profile
from m4m_jax.training.rates import Rates
from m4m_jax.training.state import init_state, save_memory, split
from m4m_jax.training.step import make_evaluation, make_step
from m4m_jax.training.telling import own, tells


def task_of(config: Config) -> Task:
    """The task of a run, with the configuration's changes; a mixture's first."""
    return tasks_of(config)[0]


def new_system(config: Config, task: Task, path: epath.Path) -> tuple[System, Card]:
    """A newly initialised system for a run at `path`, and its card without data and parts.

    A language model with a base goes on from it.
    """
    bases = [pretrained.load(place) for place in config.bases]
    for place, base in zip(config.bases, bases, strict=True):
        if not isinstance(base.system, LM):
            raise M4MError(f"base={place} is a linked system; a base is a language model")
        _check_fit(config, base.card.lm, place)
    if len({pretrained.fingerprint(base.system.lm) for base in bases}) == 1:
        bases = bases[-1:]  # a pair of equals is one
    *reader, writer = (base.system.lm for base in bases) if bases else (None,)
    card = card_of(config, task, path, bases)
    if card.system == "lm" and writer is not None:
        return writer, card
    return cards.build(card, writer, *reader, rngs=nnx.Rngs(config.seed)), card


def card_of(config: Config, task: Task, path: epath.Path, bases: Sequence[Model]) -> Card:
    """The card of a run at `path`, without data and parts.

    bases: the language models that it starts from: none, one, or those of reference and target.
    """
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
        task=task.name,
        reference=task.reference,
        target=task.target,
        dedup=task.dedup,
        max_notes=task.max_notes,
        compress=task.compress,
        window=config.window,
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


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished run: its directory, and the validation NLL before training and at its best."""

    path: epath.Path
    before: float
    best: float


_MAY_CHANGE = ("steps", "every", "keep", "keep_every", "packed", "profile", "mesh", "remat")


def described(config: Config, windows: Supply) -> dict[str, Any]:
    """What a card says of the data of a run."""
    parts = [
        cards.Part(
            data=str(part.data),
            parts=parts,
            weight=part.weight,
            task=task.name,
            reference=task.reference,
            target=task.target,
            dedup=task.dedup,
        )
        for part, task, parts in zip(
            config.components, tasks_of(config), windows.parts, strict=True
        )
    ]
    told = {"data": parts[0].data, "parts": parts[0].parts}
    return told | ({"mixture": tuple(parts)} if len(parts) > 1 else {})


def _difference(before: Any, now: Any) -> str:
    """How a value of a configuration differs from that of the run that is there."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return f"{before} there, {now} here"
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return ", ".join(f"{key}: {_difference(before.get(key), now.get(key))}" for key in keys)


def settle(config: Config, card: Card, path: epath.Path) -> None:
    """Write config and card into a new run's directory; refuse one of another run.

    That is one of another configuration, or of a base that has changed since.
    """
    file, now = path / "config.yaml", config.model_dump(mode="json")
    if file.exists():
        before = load_config(file).model_dump(mode="json")
        fixed = [key for key in now if key not in _MAY_CHANGE]
        if config.optimizer.schedule != "constant":  # its rates depend on where it ends
            fixed.append("steps")
        differ = [f"{k} ({_difference(before[k], now[k])})" for k in fixed if before[k] != now[k]]
        if differ:
            raise M4MError(
                f"{path} holds a run with another {', '.join(differ)}; name a new directory with -o"
            )
        old = read_card((path / "model.json").read_text(), str(path / "model.json"))
        if [b.fingerprint for b in old.bases] != [b.fingerprint for b in card.bases]:
            raise M4MError(
                f"{path} holds a run on another base than {config.base} is now; "
                "name a new directory with -o"
            )
    path.mkdir(parents=True, exist_ok=True)
    pretrained.write_card(card, path)
    with atomic_path(file) as temporary:
        temporary.write_text(yaml.safe_dump(now, sort_keys=False))


def run(
    config: Config,
    path: epath.PathLike,
    data_dir: epath.PathLike | None = None,
    *,
    all_hosts: bool = False,
    stop: Preemption | None = None,
) -> Result:
    """Train by a configuration in the directory `path`, or go on where a run there stopped.

    all_hosts: whether all hosts write their figures, in files of their own, or only the first.
    stop: what tells the run to save and to end before its time; then it raises `Preempted`.
    """
    stop = stop or Preemption()
    path, task, mesh = epath.Path(path), task_of(config), sharding.make_mesh(config.mesh)
    parts = config.accumulate * sharding.shards(mesh)
    if config.batch % parts:
        raise M4MError(
            f"a batch of {config.batch} does not divide into {parts} parts "
            f"({config.accumulate} to accumulate on {sharding.shards(mesh)} devices)"
        )
    windows = supply(config, data_dir)
    print("\n".join(windows.summary), flush=True)

    system, card = new_system(config, task, path)
    sharding.check_divides(system, mesh)
    masked = system.lm.masked or system.reference_lm.masked
    feed = Feed(config, windows.train, mesh, masked=masked)
    validation = HeldOut(config, windows.validation, mesh, masked=masked)
    card = card.model_copy(update=described(config, windows))
    hosts.on_first(lambda: settle(config, card, path))
    if config.remat:
        save_memory(system)
    graph, params, base = split(system)
    params, base = (sharding.place(x, mesh) for x in (params, base))
    whole = parameters.by_name(base) if cards.saved(system) is nnx.Variable else {}
    state = sharding.place(init_state(params), mesh)
    places = sharding.places(state, mesh)

    checkpoints = Checkpoints(path, config.keep, config.keep_every, whole)
    stop.tells(checkpoints)
    batches, unfinished = feed.batches(), None
    if checkpoints.latest() is not None:
        state, data = checkpoints.restore(state)
        unfinished = data.pop(hooks.UNFINISHED, None)
        batches.set_state(data)
    resumed = int(state.step)

    dtype = jnp.dtype(config.precision)
    schedule = Schedule(config.optimizer.schedule, config.steps, config.optimizer.warmup)
    # A state that came back placed otherwise than it went in would be compiled for once more.
    step = jax.jit(
        make_step(graph, schedule, dtype, mesh), donate_argnums=1, out_shardings=(places, None)
    )
    evaluate = functools.partial(jax.jit(make_evaluation(graph, dtype, mesh)), base)

    def validate(params: Any) -> dict[str, float] | None:
        return validation.nll(lambda batch: evaluate(params, batch), stop.passed)

    telling, last = tells(all_hosts), resumed - (unfinished is not None)
    figures_file = path / "metrics.jsonl"
    log = hooks.MetricsFile(own(figures_file) if telling else figures_file, last, telling)
    if last < config.steps:
        print("compiling, which may take a minute", flush=True)
    else:
        more = "; a larger steps=... trains on" if schedule.kind == "constant" else ""
        print(f"finished before, at step {resumed}{more}", flush=True)
    if not resumed:
        log.write(0, validate(state.params) or {})
    elif resumed < config.steps:
        # Later there are steps that would be lost if the run were stopped while this compiles.
        validation.compile(functools.partial(evaluate, state.params))
    every, title = config.every, f"{config.system} {config.task}"
    save = hooks.SaveCheckpoints(
        checkpoints, batches.get_state, every.checkpoint, config.steps, stop
    )
    after: list[Hook] = [
        hooks.Hold(stop),
        hooks.Validation(validate, every.validation, config.steps, save),
        Rates(every.log),
        hooks.StopAtNaN(checkpoints, every.checkpoint),
        hooks.SavingTime(checkpoints),
        log,
    ]
    if telling:
        board = own(path / "tensorboard")
        after += [hooks.TensorBoard(board), hooks.Console(title, resumed, config.steps)]
        after += [Profile(board, config.profiled, resumed)] if config.profiled else []
    after.append(save)
    key = jax.random.key(config.seed)
    with checkpoints.told_of_a_full_disk():
        train(
            CountedStep(step, save.before_compiling),
            base,
            state,
            placed(batches, mesh),
            hyper_of(config),
            key,
            steps=config.steps,
            hooks=after,
            unfinished=unfinished,
        )
    figures = [line[METRIC] for line in log.lines() if METRIC in line]
    return Result(path, figures[0], min(figures))
