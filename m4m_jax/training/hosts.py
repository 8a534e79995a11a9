"""Several processes that train together: they find each other, agree, and leave together."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src import clusters, distributed  # no public interface tells these
from jax.experimental import multihost_utils

from m4m_jax.errors import M4MError
from m4m_jax.training import roll_call


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    seconds: int = 300,
) -> None:
    """Join the other processes of a run, before anything touches a device.

    Without arguments, who they are is read from the environment of a TPU pod, SLURM, Open MPI or
    Kubernetes, as far as jax knows it; where there is none, this process is alone.

    coordinator: HOST:PORT of process 0, which must be free there. processes: how many there are.
    process: the number of this one. seconds: how long to wait for all of them.

    Raises:
        M4MError: some did not come in time, which are named; or the arguments are not all there.
    """
    told = (coordinator, processes, process)
    if None in told and any(x is not None for x in told):
        raise M4MError("--coordinator, --processes and --process go together; give all three")
    if processes is None:
        detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
        try:
            coordinator, processes, process, _ = detect(None, None, None, None, None, seconds)
        except (OSError, RuntimeError) as error:
            raise M4MError(f"the processes of this run were not found: {error}") from error
    if coordinator is None or processes is None or process is None or processes == 1:
        return
    if not 0 <= process < processes:
        raise M4MError(f"process {process} is not one of {processes}; they count from 0")
    roll_call.answer(coordinator, processes, process, seconds)
    # A signal is noticed by `training.preemption`, which jax's own service would keep it from.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(coordinator, processes, process, initialization_timeout=seconds)


def store() -> Any:
    """What processes leave each other words in, by key; None for a process that is alone."""
    return distributed.global_state.client


def number() -> int:
    """The number of this process, without a look at its devices."""
    return distributed.global_state.process_id


def on_first(call: Callable[[], int | None]) -> int | None:
    """Do something in the first process while the others wait; its mistake is everyone's.

    All processes must call this at the same point. Returns what the first one's call does.
    """
    if jax.process_count() == 1:
        return call()
    mistake, found = None, None
    if jax.process_index() == 0:
        try:
            found = call()
        except M4MError as error:
            mistake = error
    told = np.array([mistake is None, found is not None, found or 0])
    good, known, number = multihost_utils.broadcast_one_to_all(told).tolist()
    if mistake is not None:
        raise mistake
    if not good:
        raise M4MError("process 0 has stopped; its line says why")
    return number if known else None


def leave(status: int, seconds: float = 5.0) -> NoReturn:
    """End this process at once, without a word to what waits for it.

    The first one waits so long for the others to leave too: with it goes what they talk through.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    state = distributed.global_state
    if state.client is not None:
        try:
            if state.process_id:
                state.client.key_value_set(f"m4m/gone/{state.process_id}", "")
            else:
                _await((f"m4m/gone/{k}" for k in range(1, state.num_processes)), seconds)
                time.sleep(1)  # until the last of them has heard that its word came, and is gone
        except jax.errors.JaxRuntimeError:
            pass  # whoever does not answer has gone
    os._exit(status)


def _await(keys: Iterable[str], seconds: float) -> list[str]:
    """The values of keys, once they are all there."""
    end, found, client = time.monotonic() + seconds, [], store()
    for key in keys:
        left = max(1, int(1000 * (end - time.monotonic())))
        found.append(client.blocking_key_value_get(key, left))
    return found


def exchange(name: str, value: str, seconds: float) -> list[str]:
    """Every process's value, in their order; any thread may call this, once for a name."""
    state = distributed.global_state
    if state.client is None:
        return [value]
    state.client.key_value_set(f"{name}/{state.process_id}", value)
    return _await((f"{name}/{k}" for k in range(state.num_processes)), seconds)
