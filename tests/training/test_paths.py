"""The whole road in a place that libraries without etils cannot open: data, runs, models."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from etils import epath

from m4m_jax import datasets, pretrained
from m4m_jax.data import supply
from m4m_jax.errors import M4MError
from m4m_jax.mirror import Mirror, copy_tree
from m4m_jax.models.card import Card
from m4m_jax.music import midi_bytes
from m4m_jax.training import checkpoints, hooks
from m4m_jax.training.run import run
from tests import remote
from tests.datasets.music import song
from tests.models.small import CONFIG, LINKS, small_cross, small_lm
from tests.training import runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_compile", "shared_compilations"),
]

PLACE = epath.Path("bucket://music")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """Songs, a data set of them, and what else a module's tests put there."""
    folder = tmp_path_factory.mktemp("bucket")
    for name in ("buckets", "here"):
        (folder / name).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(remote.FOLDER, os.fspath(folder / "buckets"))
        patch.setenv("XDG_CACHE_HOME", os.fspath(folder / "cache"))
        # Whoever takes a name in the bucket for a local one leaves traces here.
        patch.chdir(folder / "here")
        runs.prepare(patch)
        for seed in range(20):
            (PLACE / "songs" / f"{seed:02}.mid").write_bytes(midi_bytes(song(seed)))
        datasets.build(runs.SETTINGS["data"], PLACE / "songs", PLACE / "data", workers=1)
        yield PLACE
    assert not list((folder / "here").iterdir())


@pytest.fixture(scope="module")
def lm(bucket, quick_compile, shared_compilations):
    """A finished run in the bucket."""
    run(runs.config(), bucket / "lm", bucket / "data")
    return bucket / "lm"


@pytest.fixture(scope="module")
def local(bucket, tmp_path_factory, quick_compile, shared_compilations):
    """The same run in a local folder."""
    path = tmp_path_factory.mktemp("local") / "lm"
    run(runs.config(), path, bucket / "data")
    return path


def arrays(path):
    return pretrained.read(path)[1]


def assert_same_arrays(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


def figures(path):
    lines = map(json.loads, (epath.Path(path) / "metrics.jsonl").read_text().splitlines())
    return [
        {k: line[k] for k in line if not k.endswith(("_second", "_bytes", "_seconds"))}
        for line in lines
    ]


def test_a_run_in_a_bucket_is_the_one_in_a_folder(lm, local):
    assert_same_arrays(arrays(lm), arrays(local))
    assert figures(lm) == figures(local)
    names = {path.name for path in lm.iterdir()}
    assert names == {path.name for path in local.iterdir()}
    assert [path.name[:6] for path in (lm / "tensorboard").iterdir()] == ["events"]


def test_a_run_in_a_bucket_goes_on(lm, bucket, tmp_path, monkeypatch):
    """With windows that are packed there, too."""
    with monkeypatch.context() as patch:
        runs.stop_after(patch, 9)
        with pytest.raises(KeyboardInterrupt):
            run(runs.config(), bucket / "stopped", bucket / "data")
    assert "8" in {path.name for path in (bucket / "stopped").iterdir()}
    supply.pack(runs.config(), bucket / "packed", bucket / "data")
    packed = runs.config(packed=os.fspath(bucket / "packed"))
    run(packed, bucket / "stopped", tmp_path / "no data here")
    assert_same_arrays(arrays(bucket / "stopped"), arrays(lm))
    assert figures(bucket / "stopped") == figures(lm)


def test_models_in_a_bucket(bucket, tmp_path):
    """An adapter and its base, saved and loaded from anywhere to anywhere."""
    about = {"task": "copy", "reference": "all", "target": "all", "max_notes": 4, "window": 12}
    base = pretrained.Model(small_lm(0), Card(system="lm", lm=CONFIG, **about))
    for place in (tmp_path, bucket / "models"):
        pretrained.save(base, place / "base")
        named = pretrained.base_of(base.system, place / "base", place / "adapter")
        card = Card(system="cross", lm=CONFIG, adapter=LINKS, base=named, **about)
        pretrained.save(pretrained.Model(small_cross(), card), place / "adapter")
        loaded = pretrained.load(place / "adapter")
        assert loaded.card == card
        pretrained.save(loaded, place / "again")
        assert_same_arrays(arrays(place / "again"), arrays(tmp_path / "adapter"))
        with pytest.raises(M4MError, match="is not empty"):
            pretrained.save(loaded, place / "again")


def test_a_checkpoint_that_was_copied_half_is_none(lm, bucket):
    for name in ("8", "12"):
        copy_tree(lm / name, bucket / "half" / name)
    (bucket / "half" / "model.json").write_text((lm / "model.json").read_text())
    assert_same_arrays(arrays(bucket / "half"), arrays(lm))
    (bucket / "half" / "12" / "_CHECKPOINT_METADATA").unlink()
    mirror = Mirror(bucket / "half")
    assert [path.name for path in mirror.near.iterdir()] == ["8"]
    (bucket / "half" / "8" / "_CHECKPOINT_METADATA").unlink()
    with pytest.raises(M4MError, match="holds no finished checkpoint"):
        pretrained.load(bucket / "half")


def test_several_hosts_need_a_place_that_orbax_can_open(bucket, monkeypatch):
    monkeypatch.setattr(checkpoints.jax, "process_count", lambda: 2)
    with pytest.raises(M4MError, match="or to gs://; name such a place"):
        checkpoints.Checkpoints(bucket / "x", 1)


def test_tensorboard_in_a_bucket_is_a_minute_late(bucket):
    board = hooks.TensorBoard(bucket / "board")
    board.after(1, None, {"logged": True, "nll": 1.0})
    assert not (bucket / "board").exists()
    board.copied -= 61
    board.after(2, None, {"logged": True, "nll": 0.5})
    (early,) = (bucket / "board").iterdir()
    size = len(early.read_bytes())
    assert size > 0
    board.after(3, None, {"logged": True, "nll": 0.25})
    board.close()
    assert len(early.read_bytes()) > size
