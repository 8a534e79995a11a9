"""A run's checkpoints: which are kept, and what becomes of damaged ones."""

from __future__ import annotations

import functools
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m4m_jax import digests
from m4m_jax.errors import M4MError
from m4m_jax.models.parameters import by_name
from m4m_jax.training.checkpoints import Checkpoints
from m4m_jax.training.hooks import SaveCheckpoints, StopAtNaN
from m4m_jax.training.preemption import Preempted, Preemption
from m4m_jax.training.state import TrainState, init_state, split
from tests.models.small import small_cross
from tests.training import runs


@functools.cache
def first_state() -> TrainState:
    _, params, _ = split(small_cross())
    return init_state(params)


def state_at(step: int) -> TrainState:
    """A state that tells its step."""
    state = jax.tree.map(lambda x: jnp.asarray(np.asarray(x) + step, x.dtype), first_state())
    return state._replace(step=jnp.int32(step))


def save(path, steps, keep=1, keep_every=None, nll=lambda step: float(step)) -> None:
    """Save these steps, as if their validation figure were `nll`."""
    checkpoints = Checkpoints(path, keep, keep_every)
    for step in steps:
        checkpoints.save(step, state_at(step), {"next_index": step}, nll(step))
    checkpoints.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    save(path, [1, 2, 3])
    return path


def assert_goes_on_from(path, step: int) -> None:
    checkpoints = Checkpoints(path, 1)
    assert checkpoints.latest() == step
    state, data = checkpoints.restore(state_at(0))
    assert (int(state.step), data) == (step, {"next_index": step})
    for name, value in by_name(state_at(step).params).items():
        np.testing.assert_array_equal(by_name(state.params)[name], value)
    checkpoints.close()


def test_kept_are_two_latest_the_best_and_every_so_many(tmp_path):
    save(tmp_path, range(1, 10), keep=2, keep_every=4, nll=lambda step: abs(step - 2.1))
    assert runs.folders(tmp_path) == [2, 3, 4, 8, 9]


def test_a_whole_checkpoint_has_no_fault(saved):
    assert runs.folders(saved) == [1, 2, 3]
    assert digests.fault(saved / "3") is None
    assert_goes_on_from(saved, 3)


def files(folder):
    return sorted(x.relative_to(folder) for x in folder.rglob("*") if x.is_file())


def cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def remove(file):
    file.unlink()


@pytest.mark.parametrize("harm", [cut, flip, remove])
def test_damage_to_any_file_is_found_and_the_checkpoint_before_used(saved, tmp_path, harm, capsys):
    names = files(saved / "3")
    assert len(names) > 20
    for number, name in enumerate(names):
        path = tmp_path / str(number)
        shutil.copytree(saved, path)
        harm(path / "3" / name)
        assert_goes_on_from(path, 2)
        told = capsys.readouterr().err
        assert told.startswith(f"m4m: {path / '3'} is damaged: "), name
        assert told.count("\n") == 1
        if name.name != digests.FILE:
            assert str(name) in told
        assert sorted(x.name for x in path.iterdir()) == ["1", "2", "damaged-3"]


def test_a_step_that_is_not_read_is_looked_at_too(saved, tmp_path, capsys):
    """Its figures are read, and would stop the run."""
    shutil.copytree(saved, tmp_path / "run")
    flip(tmp_path / "run" / "1" / "metrics" / "metrics")
    assert_goes_on_from(tmp_path / "run", 3)
    assert "1 is damaged: metrics/metrics has changed" in capsys.readouterr().err


def test_nothing_whole_left_is_said_and_nothing_removed(saved, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(saved, path)
    for step in ("1", "2", "3"):
        cut(path / step / "model" / "manifest.ocdbt")
    with pytest.raises(M4MError, match=r"no checkpoint .* is as it was saved: .*manifest.ocdbt"):
        Checkpoints(path, 1)
    assert runs.folders(path) == [1, 2, 3]


def test_a_first_save_that_was_cut_off_is_no_checkpoint(saved, tmp_path, capsys):
    """Killed while writing, or after that but before the digests were there."""
    for name in ("3", "3.orbax-checkpoint-tmp"):
        path = tmp_path / name
        shutil.copytree(saved / "3", path / name)
        (path / name / digests.FILE).unlink()
        checkpoints = Checkpoints(path, 1)
        assert checkpoints.latest() is None
        checkpoints.save(3, state_at(3), {"next_index": 3})
        checkpoints.close()
        assert f"{path / '3'}" in (told := capsys.readouterr().err)
        assert "was not saved to the end" in told
        assert_goes_on_from(path, 3)


class Told(Preemption):
    """A run that has been told to stop."""

    def passed(self) -> bool:
        return True


def save_due(save: SaveCheckpoints, metrics) -> None:
    save.after(4, state_at(4), metrics)


def save_before_compiling(save: SaveCheckpoints, metrics) -> None:
    save.after(3, state_at(3), metrics)
    save.before_compiling(state_at(3))


def save_at_a_signal(save: SaveCheckpoints, metrics) -> None:
    save.stop = Told()
    save.after(3, state_at(3), metrics)


def save_unfinished(save: SaveCheckpoints, metrics) -> None:
    save.unfinished(3, state_at(3), metrics)


def saving(path, how, **changes: float) -> None:
    """Save in one of these ways a step whose figures, of which none is fetched, are changed so."""
    checkpoints = Checkpoints(path, 1)
    checkpoints.save(1, state_at(1), {"next_index": 1})
    metrics = {k: jnp.float32(v) for k, v in ({"nll": 1.0, "gradient_norm": 1.0} | changes).items()}
    StopAtNaN(checkpoints).after(3, state_at(3), metrics)  # which does not wait for them
    save = SaveCheckpoints(checkpoints, lambda: {"next_index": 3}, 4, 100, Preemption())
    try:
        how(save, metrics)
    finally:
        save.close()


@pytest.mark.parametrize("figure", ["nll", "gradient_norm"])
@pytest.mark.parametrize(
    "how", [save_due, save_before_compiling, save_at_a_signal, save_unfinished]
)
def test_a_step_that_is_not_finite_is_not_saved(tmp_path, how, figure):
    good = f"the last good checkpoint is {tmp_path / '1'};"
    with pytest.raises(M4MError, match=rf"{figure} is nan at step \d; {re.escape(good)}"):
        saving(tmp_path, how, **{figure: float("nan")})
    assert runs.folders(tmp_path) == [1]


def test_a_step_that_is_finite_is_saved(tmp_path):
    saving(tmp_path / "due", save_due)
    saving(tmp_path / "compiling", save_before_compiling)
    for how in (save_at_a_signal, save_unfinished):
        with pytest.raises(Preempted):
            saving(tmp_path / how.__name__, how)
    found = {path.name: runs.folders(path)[1:] for path in tmp_path.iterdir()}
    assert found == {
        "due": [4], "compiling": [3], "save_at_a_signal": [3], "save_unfinished": [3],
    }  # fmt: skip
