"""One of several processes that save and restore a state; run as a program.

Arguments: the run's directory, the address of process 0, the number of processes, that of this one.
Whatever checkpoint there is must hold the numbers of `small_lm`; then it saves the next one.
"""

from __future__ import annotations

import sys

import numpy as np
from jax.experimental import multihost_utils

from m4m_jax.models import parameters
from m4m_jax.training import hosts, sharding
from m4m_jax.training.checkpoints import Checkpoints
from m4m_jax.training.state import init_state, split
from tests.models.small import MICRO, small_lm


def main() -> None:
    path, address, processes, number = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:5])
    if processes > 1:
        hosts.join(address, processes, number, seconds=60)
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2})
    _, params, base = split(small_lm(0, MICRO))
    expected = {name: np.asarray(x) for name, x in parameters.by_name(params).items()}
    params, base = (sharding.place(x, mesh) for x in (params, base))
    state = sharding.place(init_state(params), mesh)
    checkpoints = Checkpoints(path, 1, whole=parameters.by_name(base))
    step = checkpoints.latest() or 0
    if step:
        state, data = checkpoints.restore(state)
        assert (int(state.step), data) == (step, {"next_index": step})
        for name, value in parameters.by_name(state.params).items():
            found = multihost_utils.process_allgather(value, tiled=True)
            np.testing.assert_array_equal(found, expected[name], err_msg=name)
    checkpoints.save(step + 1, state, {"next_index": step + 1})
    checkpoints.close()
    print("went on from", step, flush=True)
    hosts.leave(0)


if __name__ == "__main__":
    main()
