"""A run's checkpoints: parameters, optimiser and data iterator, saved as one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from m4m_jax.models import parameters
from m4m_jax.pretrained import METRIC, step_manager
from m4m_jax.training.state import TrainState


class Checkpoints:
    """The checkpoints of a run's directory: the latest and the `keep` best are kept.

    Saving is asynchronous. `whole` holds variables that belong to the model but are not trained
    (an LM's position tables), which are saved beside the parameters.
    """

    def __init__(self, path: epath.PathLike, keep: int, whole: dict[str, Any] | None = None):
        self.path, self.whole = epath.Path(path), whole or {}
        self.manager = step_manager(path, keep)

    def save(self, state: TrainState, data: dict[str, Any], nll: float | None) -> None:
        """Begin to save; `nll` is the validation figure by which the best are chosen."""
        step = int(state.step)
        # The step donates its buffers, so what is being written must be a copy.
        state = jax.tree.map(jnp.copy, state)
        self.manager.save(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(parameters.by_name(state.params) | self.whole),
                optimizer=ocp.args.StandardSave(parameters.named_leaves(state.moments)),
                data=ocp.args.JsonSave(data),
            ),
            metrics=None if nll is None else {METRIC: nll},
        )

    def latest(self) -> int | None:
        """The step of the latest finished checkpoint."""
        return self.manager.latest_step()

    def restore(self, state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The latest state, placed as the arrays of `state` are, and the data iterator's state."""
        step = self.latest()
        arrays = parameters.by_name(state.params)
        restored = self.manager.restore(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardRestore(parameters.abstract(arrays | self.whole)),
                optimizer=ocp.args.StandardRestore(
                    parameters.abstract(parameters.named_leaves(state.moments))
                ),
                data=ocp.args.JsonRestore(),
            ),
        )
        params = parameters.fill(state.params, {k: restored["model"][k] for k in arrays})
        moments = parameters.with_leaves(state.moments, restored["optimizer"])
        done = jax.device_put(jnp.asarray(step, jnp.int32), state.step.sharding)
        return TrainState(params, moments, done), restored["data"]

    def wait(self) -> None:
        """Wait for what is being saved."""
        self.manager.wait_until_finished()

    def close(self) -> None:
        """Finish saving and let go of the directory."""
        self.manager.close()
