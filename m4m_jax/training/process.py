"""A training run as what its process is for: it ends with it, together with the other processes."""

from __future__ import annotations

import sys
import traceback

from etils import epath

from m4m_jax.config import Config
from m4m_jax.errors import M4MError
from m4m_jax.training import hosts
from m4m_jax.training.preemption import Preempted, Preemption
from m4m_jax.training.run import Result, run


def train_here(
    config: Config, path: epath.PathLike, data_dir: epath.PathLike | None, *, all_hosts: bool
) -> Result:
    """Run, and leave the process where SIGTERM ends it, or where one of several fails.

    One of several that fails does not wait for the others, which wait for it.
    """
    stop = Preemption()
    stop.watch()
    try:
        result = run(config, path, data_dir, all_hosts=all_hosts, stop=stop)
        stop.end()
        return result
    except Preempted:
        stop.leave()
    except Exception as error:
        if hosts.store() is None:
            raise
        if isinstance(error, M4MError):
            print(f"m4m: {' '.join(str(error).split())}", file=sys.stderr)
            hosts.leave(2)
        traceback.print_exc()
        hosts.leave(1)
