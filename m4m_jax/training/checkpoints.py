"""A run's checkpoints: parameters, optimiser and data iterator, saved as one."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.options import MultiprocessingOptions

from m4m_jax import digests
from m4m_jax.errors import M4MError
from m4m_jax.mirror import Mirror, in_reach
from m4m_jax.models import parameters
from m4m_jax.pretrained import METRIC, step_manager
from m4m_jax.training import damage, hosts
from m4m_jax.training.state import TrainState

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Checkpoints:
    """The checkpoints of a run's directory: the two latest, the `keep` best, every `keep_every`.

    Saving is asynchronous, unless it is to a place that Orbax cannot open. `whole` holds variables
    that belong to the model but are not trained (an LM's position tables), which are saved beside
    the parameters.

    Steps that are not as they were saved are set aside first, each named in a line, so that the
    latest that is left is whole.

    Attributes:
        path: the run's directory.
        blocked: seconds that training has waited for saves to begin, in all.
    """

    def __init__(
        self,
        path: epath.PathLike,
        keep: int,
        keep_every: int | None = None,
        whole: dict[str, Any] | None = None,
    ):
        # Where a process has one device of several, Orbax takes no array that was only put there.
        self.path, self.whole = epath.Path(path), _copy(whole or {})
        check_reach(self.path)
        hosts.on_first(lambda: damage.set_aside(self.path))
        self.mirror = None if in_reach(self.path) else Mirror(self.path)
        everyone = set(range(jax.process_count())) if jax.process_count() > 1 else None
        self.manager = step_manager(
            path if self.mirror is None else self.mirror.near,
            keep,
            keep_every,
            create=everyone is None,
            cleanup_tmp_directories=True,
            # Named, they wait for each other without the devices, which the training step has.
            multiprocessing_options=MultiprocessingOptions(active_processes=everyone),
        )
        self.blocked, self._good = 0.0, self.manager.latest_step()
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._saving: tuple[int, Future] | None = None

    def save(
        self, step: int, state: TrainState, data: dict[str, Any], nll: float | None = None
    ) -> None:
        """Begin to save the state of a step, which need not be computed yet.

        data: where the data iterator is, and what else of plain values is needed to go on. nll: the
        validation figure by which the best are chosen.
        """
        begun = time.monotonic()
        self.wait()
        # The step donates its buffers, so what is being written must be a copy.
        self._saving = step, self._thread.submit(self._write, step, _copy(state), data, nll)
        if self.mirror is not None:
            self.wait()
            with self._named(step):
                self.mirror.push()
        self.blocked += time.monotonic() - begun

    def _write(self, step: int, state: TrainState, data: dict[str, Any], nll: float | None) -> None:
        """Write a step's folder, and what tells whether it stays as it is."""
        if step in self.manager.all_steps():  # saved in the midst of what is done after a step
            self.manager.delete(step)
            if self.mirror is not None:
                self.mirror.push()
        self.manager.save(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(parameters.by_name(state.params) | self.whole),
                optimizer=ocp.args.StandardSave(parameters.named_leaves(state.moments)),
                data=ocp.args.JsonSave(data),
            ),
            metrics=None if nll is None else {METRIC: nll},
        )
        self.manager.wait_until_finished()
        if jax.process_index() == 0:
            digests.write(epath.Path(self.manager.directory) / str(step))

    def latest(self) -> int | None:
        """The step of the latest finished checkpoint."""
        return self._good

    def restore(self, state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The latest state, placed as the arrays of `state` are, and the `data` saved with it."""
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

    def check(self) -> None:
        """M4MError where what was being saved could not be."""
        if self._saving is not None and self._saving[1].done():
            self.wait()

    def wait(self) -> None:
        """Wait for what is being saved; M4MError where it could not be."""
        if self._saving is not None:
            (step, saving), self._saving = self._saving, None
            with self._named(step):
                saving.result()
            self._good = step

    def await_saving(self, seconds: float) -> None:
        """Wait for what is being saved, but no longer, and without a word of what goes wrong."""
        if (saving := self._saving) is not None:
            with contextlib.suppress(Exception):
                saving[1].result(max(0.0, seconds))
                self._good = saving[0]

    def close(self) -> None:
        """Finish saving and let go of the directory."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            with contextlib.suppress(Exception):  # it raises again what was told before
                self.manager.close()

    @contextlib.contextmanager
    def _named(self, step: int) -> Iterator[None]:
        """Say of what goes wrong in the block that a step was not saved."""
        try:
            yield
        except Exception as error:
            reason = _reason(error)
            raise M4MError(
                f"step {step} could not be saved ({reason}); {self.last_good}"
            ) from error

    @property
    def last_good(self) -> str:
        """What is left when a run ends in the middle, in words."""
        if self._good is None:
            return f"no checkpoint was saved in {self.path}"
        return f"the last good checkpoint is {self.path / str(self._good)}"

    @contextlib.contextmanager
    def told_of_a_full_disk(self) -> Iterator[None]:
        """Name the last good checkpoint where the block runs out of room for files."""
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            where = f"{error.filename}: " if error.filename else ""
            raise M4MError(f"{where}{error.strerror}; {self.last_good}") from error


@jax.jit
def _copy(tree: Any) -> Any:
    """The same numbers in new buffers."""
    return jax.tree.map(jnp.copy, tree)


def _reason(error: Exception) -> str:
    """Why something could not be written, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error) or type(error).__name__
    full = (os.strerror(number) for number in _FULL)
    return next((words for words in full if words in text), text.splitlines()[0][:200])


def check_reach(path: epath.Path) -> None:
    """M4MError where several hosts would save to a place that Orbax cannot open."""
    if jax.process_count() > 1 and not in_reach(path):
        raise M4MError(
            f"{path}: several hosts save a run to a folder that all of them see, or to gs://; name"
            " such a place with -o"
        )
