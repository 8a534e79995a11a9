"""A run's checkpoints: which are kept, and what becomes of damaged ones."""

from __future__ import annotations

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m4m_jax import digests
from m4m_jax.errors import M4MError
from m4m_jax.models.parameters import by_name
from m4m_jax.training.checkpoints import Checkpoints
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
