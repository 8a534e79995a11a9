"""Windows by configuration, from songs and from packed data sets."""

from __future__ import annotations

import json
import shlex
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from m4m_jax import datasets
from m4m_jax.cli import main
from m4m_jax.config import make_config
from m4m_jax.data import pipeline, stored, supply
from m4m_jax.errors import M4MError
from m4m_jax.music import VELOCITY, write_midi
from tests import remote
from tests.datasets.music import song

SETTINGS = {
    "data": "midi_folder/a",
    "task": "chord-to-melody",
    "window": 48,
    "batch": 4,
    "steps": 3,
    "validation_batches": 3,
    "seed": 5,
}
MIXTURE = [
    {"weight": 2, "target": "from-0"},
    {"data": "midi_folder/b", "dedup": True},
    {"data": "midi_folder/b", "task": "random-split"},
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, first in (("a", 0), ("b", 50)):
        (folder / name).mkdir()
        for seed in range(first, first + 24):
            write_midi(song(seed), folder / name / f"{seed:02}.mid")
        datasets.build(f"midi_folder/{name}", folder / name, folder / "data", workers=1)
    return folder / "data"


def config(**changes):
    return make_config(SETTINGS | changes, "the test")


def assert_same_windows(found, expected, count):
    assert count
    for k in range(count):
        one, other = found[k], expected[k]
        assert one.keys() == other.keys()
        for key in one:
            assert one[key].dtype == other[key].dtype == np.int32
            assert np.array_equal(one[key], other[key]), key


def refused(*args, **kwargs) -> str:
    with pytest.raises(M4MError) as error:
        supply.supply(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_run_reads_the_windows_of_its_data_set(built):
    found = supply.supply(config(), built)
    (task,) = supply.tasks_of(config())
    options = {"batch_size": 4, "window": 48, "seed": 5}
    for split, train, windows in (
        ("train", True, found.train),
        ("validation", False, found.validation["chord-to-melody/midi_folder/a"]),
    ):
        songs = datasets.open_split("midi_folder/a", split, built)
        stream = pipeline.dataset(songs, task, train=train, num_batches=3, **options)
        mine = pipeline.batched(windows, 4)
        for k in range(3):
            for key in ("song", "start", "shift", "reference", "target"):
                assert np.array_equal(mine[k][key], stream[k][key])
    assert len(found.validation["chord-to-melody/midi_folder/a"]) == 12
    assert found.summary[0].startswith("training on ")


@pytest.mark.parametrize("mixture", [(), MIXTURE])
def test_packed_windows_are_those_of_the_songs(built, tmp_path, mixture):
    for name, changes in {
        "plain": {},
        "other": {"vocabulary": "velocity", "max_notes": 1, "compress": {"reference": 4}},
    }.items():
        run = config(mixture=mixture, **changes)
        about = supply.pack(run, tmp_path / name, built)
        live = supply.supply(run, built)
        read = supply.supply(run.model_copy(update={"packed": str(tmp_path / name)}))
        assert about.windows["train"] == len(read.train) == supply.SIZING_BATCHES * 4
        assert_same_windows(read.train, live.train, len(read.train))
        assert list(read.validation) == list(live.validation)
        for label, windows in live.validation.items():
            assert len(read.validation[label]) == len(windows)
            assert_same_windows(read.validation[label], windows, len(windows))
        for what in ("parts", "summary", "epoch"):
            assert getattr(read, what) == getattr(live, what)


def test_packed_batches_are_the_same_for_any_size_and_number_of_hosts(built, tmp_path):
    supply.pack(config(), tmp_path / "packed", built)
    changes = {"batch": 8, "steps": 20, "validation_batches": 1}
    with pytest.raises(M4MError, match="192 train windows, and this run reads 384"):
        supply.supply(config(packed=str(tmp_path / "packed"), **changes))
    supply.pack(config(steps=96), tmp_path / "more", built)
    read = supply.supply(config(packed=str(tmp_path / "more"), **changes)).train
    live = supply.supply(config(**changes), built).train
    for host in range(2):
        one, other = (pipeline.batched(w, 8, host, 2) for w in (read, live))
        assert_same_windows(one, other, 10)


def test_epochs_or_steps(built, tmp_path):
    run = config(steps=60)
    epoch = supply.supply(run, built).epoch
    assert supply.pack(run, tmp_path / "steps", built).windows["train"] == 240
    about = supply.pack(run, tmp_path / "epochs", built, epochs=30)
    assert about.windows["train"] == 30 * epoch > 240
    order = np.array([supply.supply(run, built).train[k]["song"] for k in range(epoch)])
    assert len(set(order.tolist())) == epoch
    # Enough to choose sizes from, in any case.
    assert supply.pack(run, tmp_path / "few", built, epochs=0.1).windows["train"] == 192


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"window": 64}, "window"),
        ({"max_notes": 4}, "max_notes"),
        ({"vocabulary": "velocity"}, "vocabulary"),
        ({"seed": 6, "pitch_shift": False}, "pitch_shift, seed"),
        ({"pad_short": True}, "pad_short"),
        ({"starts": "bars"}, "starts"),
        ({"compress": {"target": 2}}, "compress"),
        ({"task": "melody-to-chord"}, "data or task"),
        ({"reference": "all"}, "data or task"),
        ({"data": "midi_folder/b"}, "data or task"),
        ({"mixture": MIXTURE}, "data or task, max_notes"),
    ],
)
def test_windows_of_another_configuration_are_refused(built, tmp_path_factory, changes, named):
    path = tmp_path_factory.getbasetemp() / "refused"
    if not path.exists():
        supply.pack(config(), path, built)
    message = refused(config(packed=str(path), **changes))
    there, wanted = message.split("another ")[1].split(";")[0].split(", "), named.split(", ")
    assert sorted(there) == sorted(wanted)
    assert "m4m data pack" in message


def test_what_decides_no_window_may_differ(built, tmp_path):
    supply.pack(config(), tmp_path / "packed", built)
    changes = {"steps": 40, "batch": 2, "accumulate": 2, "dropout": 0.3}
    assert supply.supply(config(packed=str(tmp_path / "packed"), **changes))


def build(folder, seeds, data):
    for number, seed in enumerate(seeds):
        folder.mkdir(exist_ok=True)
        write_midi(song(seed), folder / f"{number:02}.mid")
    datasets.build("midi_folder/mine", folder, data, workers=1)


def test_windows_of_songs_that_have_changed_are_refused(tmp_path):
    """Wherever their files were; a host without the songs takes the windows as they are."""
    data, run = tmp_path / "data", config(data="midi_folder/mine")
    build(tmp_path / "songs", range(24), data)
    place = data / "packed" / "mine" / stored.VERSION
    supply.pack(run, place, data)
    packed = run.model_copy(update={"packed": str(place)})
    build(tmp_path / "songs", [*range(23), 99], data)
    message = refused(packed, data)
    there = datasets.info("midi_folder/mine", data).directory
    assert f"of midi_folder/mine as it was before its songs changed ({there})" in message
    with pytest.raises(M4MError, match="before its songs changed") as error:
        supply.pack(run, place, data, epochs=1)
    assert "--epochs 1 " in str(error.value)
    build(tmp_path / "moved", range(24), tmp_path / "another")
    for data_dir in (tmp_path / "another", tmp_path / "nowhere"):
        assert supply.supply(packed, data_dir)
    shutil.rmtree(place)
    with pytest.raises(SystemExit) as done:
        main(shlex.split(message.split("again: m4m ")[1]))
    assert done.value.code == 0
    assert_same_windows(supply.supply(packed, data).train, supply.supply(run, data).train, 192)


def test_too_few_windows_are_refused(built, tmp_path):
    supply.pack(config(), tmp_path / "packed", built)
    packed = {"packed": str(tmp_path / "packed")}
    assert "192 train windows, and this run reads 400" in refused(config(steps=100, **packed))
    message = refused(config(validation_batches=4, **packed))
    assert "12 validation_0 windows, and this run reads 16" in message


def test_no_packed_windows(tmp_path):
    assert "there are no packed windows" in refused(config(packed=str(tmp_path)))
    (tmp_path / stored.FILE).write_text(json.dumps({"record_version": 1}))
    assert "holds no packed windows" in refused(config(packed=str(tmp_path)))


@pytest.mark.parametrize("mixture", [(), MIXTURE])
@pytest.mark.parametrize("version", ["format", "record_version"])
def test_windows_of_an_older_version_are_refused_with_the_command(
    built, tmp_path, monkeypatch, version, mixture
):
    """The command, as it is, makes the same windows anew."""
    run = config(mixture=mixture, compress={"target": 2}, max_notes=3, steps=50)
    place = built / "packed" / f"older-{tmp_path.name}" / "2.0.0"
    windows = supply.pack(run, place, built).windows
    expected = supply.supply(run, built).train
    path = place / stored.FILE
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {version: 0}))
    packed = run.model_copy(update={"packed": str(place)})
    message = refused(packed)
    now = found[version]
    assert f"packed with {version.replace('_', ' ')} 0, and this is {now}; remove it" in message
    shutil.rmtree(place)
    with pytest.raises(SystemExit) as done:
        main(shlex.split(message.split("again: m4m ")[1]))
    assert done.value.code == 0
    assert stored.read_about(place).windows == windows
    assert_same_windows(supply.supply(packed).train, expected, 200)


def test_the_command_for_an_own_set_makes_what_the_run_reads(built, tmp_path):
    supply.pack(config(), tmp_path / "packed", built)
    run = config(packed=str(tmp_path / "packed"), window=64, steps=80)
    with pytest.raises(M4MError) as error:
        supply.supply(run, built)
    with pytest.raises(SystemExit) as done:
        main(shlex.split(str(error.value).split("own: m4m ")[1]))
    assert done.value.code == 0
    place = built / "packed" / supply.pack_name(run) / "2.0.0"
    assert len(supply.supply(run.model_copy(update={"packed": str(place)})).train) == 320
    about = supply.pack(config(), tmp_path / "epochs", built, epochs=2.5)
    assert " --epochs 2.5 " in about.command
    assert "steps" not in about.command


def test_windows_that_differ_go_by_other_names():
    changes = [{}, {"seed": 6}, {"steps": 60}, {"steps": 70}, {"validation_batches": 4}]
    changes += [{"window": 64}, {"data": "midi_folder/b"}, {"task": "copy"}, {"reference": "all"}]
    names = [supply.pack_name(config(**change)) for change in changes]
    names += [supply.pack_name(config(), epochs) for epochs in (1, 2.5)]
    names += [supply.pack_name(config(mixture=parts)) for parts in (MIXTURE, MIXTURE[:2])]
    assert len(set(names)) == len(names)
    assert names[0].startswith("midi_folder_a-chord-to-melody-")
    assert names[-1].startswith("mixture-")
    assert supply.pack_name(config(dropout=0.2, packed="x")) == names[0]
    assert supply.pack_name(config(), 1.0) == supply.pack_name(config(), 1)


def test_a_place_that_is_taken_is_left_alone(built, tmp_path):
    """Which is told before anything is looked for."""
    (tmp_path / "mine").write_text("x")
    for data_dir in (built, tmp_path / "nowhere"):
        with pytest.raises(M4MError, match="is there already"):
            supply.pack(config(), tmp_path / "mine", data_dir)
    assert (tmp_path / "mine").read_text() == "x"


def test_packing_that_fails_leaves_nothing(built, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored, "_write_metadata", full)
    with pytest.raises(M4MError, match="No space left on device"):
        supply.pack(config(), tmp_path / "packed", built)
    assert not list(tmp_path.iterdir())


def test_tfds_reads_packed_windows(built, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "_SHARD", 50)
    supply.pack(config(), tmp_path / "packed", built)
    builder = tfds.builder_from_directory(str(tmp_path / "packed"))
    assert builder.info.splits["train"].num_examples == 192
    assert builder.info.splits["train"].num_shards == 4
    record = builder.as_data_source("train")[100]
    window = supply.supply(config(), built).train[100]
    assert record["song"] == window["song"]
    assert record["target_counts"].tolist() == (window["target"] != 3330).sum(axis=1).tolist()


def test_packed_windows_in_a_bucket(built, tmp_path, monkeypatch):
    (tmp_path / "buckets").mkdir()
    monkeypatch.setenv(remote.FOLDER, str(tmp_path / "buckets"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    place = "bucket://music/packed"
    supply.pack(config(), place, built)
    read, live = supply.supply(config(packed=place)), supply.supply(config(), built)
    assert_same_windows(read.train, live.train, 20)
    with pytest.raises(M4MError, match="is there already"):
        supply.pack(config(), place, built)
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("width", [2, 64])
def test_records_hold_full_and_empty_rows(width):
    rows = np.full((3, width), VELOCITY.pad, np.int32)
    rows[1] = VELOCITY.pitch_range.stop - 1
    rows[2, 0] = VELOCITY.eos
    numbers = dict.fromkeys(("component", "song", "start", "shift"), np.int32(7))
    record = stored.encode({"target": rows, **numbers}, VELOCITY.pad)
    window = stored._Decode(width, VELOCITY.pad)(record)
    assert np.array_equal(window["target"], rows)
    assert window.keys() == {"target", *numbers}


def test_a_component_takes_what_it_leaves_out_from_the_run(built):
    run = config(mixture=MIXTURE, reference="track-1", max_notes=3)
    tasks = supply.tasks_of(run)
    assert [part.data[-1] for part in run.components] == ["a", "b", "b"]
    assert [task.reference for task in tasks] == ["track-1", "track-1", "random-0"]
    assert [task.target for task in tasks] == ["from-0", "track-0", "random-1"]
    assert [task.dedup for task in tasks] == [False, True, False]
    assert {task.max_notes for task in tasks} == {3}
    assert {task.max_notes for task in supply.tasks_of(config(mixture=MIXTURE))} == {16}


def test_validation_batches_are_shared_out_by_weight():
    run = config(mixture=MIXTURE, validation_batches=8)
    assert supply.validation_windows(run) == (16, 8, 8)
    assert supply.validation_windows(config(mixture=MIXTURE, validation_batches=1)) == (4, 4, 4)
    assert supply.validation_windows(config()) == (12,)


def test_components_that_would_be_called_alike_are_numbered():
    twice = [{"data": "x"}, {"data": "y"}, {"data": "x", "target": "all"}]
    names = [f"chord-to-melody/{name}" for name in ("x-1", "y", "x-2")]
    assert list(supply.labels(config(mixture=twice))) == names
