"""A training run out of its configuration: data, system, step and hooks put together."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from m4m_jax.config import Config
from m4m_jax.data.supply import Supply, check_there, supply
from m4m_jax.errors import M4MError
from m4m_jax.files import check_folder
from m4m_jax.models import card as cards
from m4m_jax.models import parameters
from m4m_jax.models.card import Card
from m4m_jax.models.system import System
from m4m_jax.pretrained import METRIC, Model
from m4m_jax.training import hooks, hosts, sharding
from m4m_jax.training.building import card_of, hyper_of, load_bases, new_system, whiten
from m4m_jax.training.checkpoints import Checkpoints, check_reach
from m4m_jax.training.counted import CountedStep
from m4m_jax.training.directory import FIGURES, described, finished, refuse_another, settle
from m4m_jax.training.feed import Batches, Feed, HeldOut, placed
from m4m_jax.training.hooks import read_figures
from m4m_jax.training.loop import Hook, train
from m4m_jax.training.optim import Schedule
from m4m_jax.training.preemption import Preemption
from m4m_jax.training.profiling import Profile, still_to_come
from m4m_jax.training.rates import Rates
from m4m_jax.training.state import TrainState, init_state, save_memory, split
from m4m_jax.training.step import make_evaluation, make_step
from m4m_jax.training.telling import own, tells


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished run: its directory, and the validation NLL before training and at its best.

    The NLL is in nats a target token.
    """

    path: epath.Path
    before: float
    best: float


def run(
    config: Config,
    path: epath.PathLike,
    data_dir: epath.PathLike | None = None,
    *,
    all_hosts: bool = False,
    stop: Preemption | None = None,
) -> Result:
    """Train by a configuration in the directory `path`, or go on where a run there stopped.

    Args:
        config: what to train, on what and how; see `load_config`.
        path: the run's directory, which becomes a model directory for `load`.
        data_dir: where data sets live; TFDS's default when `None`.
        all_hosts: whether all hosts write their figures, in files of their own, or only the first.
        stop: what tells the run to save and to end before its time.

    Returns:
        The directory, and the validation NLL in nats a token before training and at its best. Of a
        run that had been finished before, this is all that is done.

    Raises:
        M4MError: the configuration does not fit the devices, its base, its data or the run that is
            there; a loss is not finite; a checkpoint cannot be written.
        Preempted: `stop` told it to end, and what it has done is saved.
    """
    stop = stop or Preemption()
    path, mesh = epath.Path(path), sharding.make_mesh(config.mesh)
    bases, card = _checked(config, path, mesh)
    if (last := hosts.on_first(lambda: finished(path, config.steps))) is not None:
        _announce(config, last, done=True)
        still_to_come(config.profiled, last)
        return _result(path, read_figures(path / FIGURES))
    check_there(config, data_dir)
    system = new_system(card, bases, config.seed)
    sharding.check_divides(system, mesh)
    # Looking at all songs comes last: there may be hundreds of thousands.
    windows = supply(config, data_dir)
    print("\n".join(windows.summary), flush=True)
    whiten(system, config, windows.train)
    card = card.model_copy(update=described(config, windows))
    hosts.on_first(lambda: settle(config, card, path))
    return _train(config, path, system, windows, mesh, stop, all_hosts=all_hosts)


def _checked(config: Config, path: epath.Path, mesh: Mesh) -> tuple[list[Model], Card]:
    """The language models that a run starts from, and its card without what its data say.

    Raises:
        M4MError: what can be told of the run without its data is wrong.
    """
    parts = config.accumulate * sharding.shards(mesh)
    if config.batch % parts:
        raise M4MError(
            f"a batch of {config.batch} does not divide into {parts} parts "
            f"({config.accumulate} to accumulate on {sharding.shards(mesh)} devices)"
        )
    sharding.host_part(mesh, jax.process_index())
    check_folder(path)
    check_reach(path)
    bases = load_bases(config)
    card = card_of(config, path, bases)
    hosts.on_first(lambda: refuse_another(config, card, path))
    return bases, card


def _train(
    config: Config,
    path: epath.Path,
    system: System,
    windows: Supply,
    mesh: Mesh,
    stop: Preemption,
    *,
    all_hosts: bool,
) -> Result:
    """Train from the latest checkpoint on, or from the beginning."""
    masked = system.lm.masked or system.reference_lm.masked
    batches = Feed(config, windows.train, mesh, masked=masked).batches()
    held_out = HeldOut(config, windows.validation, mesh, masked=masked)
    graph, base, state, whole = _parts(system, mesh, remat=config.remat)
    step, evaluate = _programs(config, graph, base, state, mesh)
    checkpoints = Checkpoints(path, config.keep, config.keep_every, whole)
    stop.tells(checkpoints)
    state, unfinished = _resume(checkpoints, state, batches)
    resumed = int(state.step)
    done = resumed - (unfinished is not None)  # the last step after which nothing is left to do

    def validate(params: Any) -> dict[str, float] | None:
        return held_out.nll(lambda batch: evaluate(params, batch), stop.passed)

    log = _figures(path, done, all_hosts)
    _announce(config, resumed, done=done >= config.steps)
    if not resumed:
        log.write(0, validate(state.params) or {})
    elif resumed < config.steps:
        # Later there are steps that would be lost if the run were stopped while this compiles.
        held_out.compile(functools.partial(evaluate, state.params))
    save = hooks.SaveCheckpoints(
        checkpoints, batches.get_state, config.every.checkpoint, config.steps, stop
    )
    watching = _watching(config, path, resumed) if tells(all_hosts) else []
    with checkpoints.told_of_a_full_disk():
        train(
            CountedStep(step, save.before_compiling),
            base,
            state,
            placed(batches, mesh),
            hyper_of(config),
            jax.random.key(config.seed),
            steps=config.steps,
            hooks=[
                hooks.Hold(stop),
                hooks.Validation(validate, config.every.validation, config.steps, save),
                Rates(config.every.log),
                hooks.StopAtNaN(checkpoints),
                hooks.SavingTime(checkpoints),
                log,
                *watching,
                save,
            ],
            unfinished=unfinished,
        )
    return _result(path, log.lines())


def _result(path: epath.Path, lines: list[dict[str, Any]]) -> Result:
    """What a run came to, of the lines of its figures."""
    figures = [line[METRIC] for line in lines if METRIC in line]
    return Result(path, figures[0], min(figures))


def _parts(
    system: System, mesh: Mesh, *, remat: bool
) -> tuple[nnx.GraphDef, Any, TrainState, dict[str, Any]]:
    """A system on a mesh: (graph, base, the state before the first step, what is saved beside)."""
    if remat:
        save_memory(system)
    graph, params, base = split(system)
    params, base = (sharding.place(x, mesh) for x in (params, base))
    whole = parameters.by_name(base) if cards.saved(system) is nnx.Variable else {}
    return graph, base, sharding.place(init_state(params), mesh), whole


def _programs(
    config: Config, graph: nnx.GraphDef, base: Any, state: TrainState, mesh: Mesh
) -> tuple[Any, Callable[..., tuple[Array, Array]]]:
    """The jitted training step; and evaluate(params, batch), with the base filled in."""
    dtype = jnp.dtype(config.precision)
    schedule = Schedule(config.optimizer.schedule, config.steps, config.optimizer.warmup)
    # A state that came back placed otherwise than it went in would be compiled for once more.
    step = jax.jit(
        make_step(graph, schedule, dtype, mesh),
        donate_argnums=1,
        out_shardings=(sharding.places(state, mesh), None),
    )
    return step, functools.partial(jax.jit(make_evaluation(graph, dtype, mesh)), base)


def _resume(
    checkpoints: Checkpoints, state: TrainState, batches: Batches
) -> tuple[TrainState, dict[str, Any] | None]:
    """The latest state that was saved, if any, and the figures of a step that was not finished."""
    if checkpoints.latest() is None:
        return state, None
    state, data = checkpoints.restore(state)
    unfinished = data.pop(hooks.UNFINISHED, None)
    batches.set_state(data)
    return state, unfinished


def _figures(path: epath.Path, last: int, all_hosts: bool) -> hooks.MetricsFile:
    """The file of a host's figures, of which those up to step `last` are kept."""
    telling, file = tells(all_hosts), path / FIGURES
    return hooks.MetricsFile(own(file) if telling else file, last, telling)


def _announce(config: Config, step: int, *, done: bool) -> None:
    """Say on the console what comes next."""
    if not done:
        print("compiling, which may take a minute", flush=True)
        return
    constant = config.optimizer.schedule == "constant"
    more = "; a larger steps=... trains on" if constant else ""
    print(f"finished before, at step {step}{more}", flush=True)


def _watching(config: Config, path: epath.Path, resumed: int) -> list[Hook]:
    """What shows a run's figures while it goes on."""
    board = own(path / "tensorboard")
    title = f"{config.system} {config.task}"
    profile = [Profile(board, config.profiled, resumed)] if config.profiled else []
    return [hooks.TensorBoard(board), hooks.Console(title, resumed, config.steps), *profile]
