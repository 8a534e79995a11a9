"""A run's checkpoints: parameters, optimiser and data iterator, saved as one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from m4m_jax.errors import M4MError
from m4m_jax.mirror import Mirror, in_reach
from m4m_jax.models import parameters
from m4m_jax.pretrained import METRIC, step_manager
from m4m_jax.training.state import TrainState


class Checkpoints:
    """The checkpoints of a run's directory: the latest and the `keep` best are kept.

    Saving is asynchronous, unless it is to a place that Orbax cannot open. `whole` holds variables
    that belong to the model but are not trained (an LM's position tables), which are saved beside
    the parameters.
    """

    def __init__(self, path: epath.PathLike, keep: int, whole: dict[str, Any] | None = None):
        self.path, self.whole = epath.Path(path), whole or {}
        self.mirror = _mirror(self.path)
        self.manager = step_manager(path if self.mirror is None else self.mirror.near, keep)

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
        if self.mirror is not None:
            self.wait()
            self.mirror.push()

    def latest(self) -> int | None:
        """The step of the latest finished checkpoint."""
        return self.manager.latest_step()

    def restore(self, state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The latest state, placed as the arrays of `state` are, and the data iterator's state."""
        step = self.latest()
        assert step is not None
        if self.mirror is not None:
            self.mirror.fetch(step)
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


def _mirror(path: epath.Path) -> Mirror | None:
    """A local folder in place of one that Orbax cannot open."""
    if in_reach(path):
        return None
    if jax.process_count() > 1:
        raise M4MError(
            f"{path}: several hosts save a run to a folder that all of them see, or to gs://; name"
            " such a place with -o"
        )
    return Mirror(path)
