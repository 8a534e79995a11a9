from __future__ import annotations

import pytest

from m4m_jax import datasets
from m4m_jax.errors import M4MError
from m4m_jax.music import write_midi
from tests.datasets import faulty
from tests.datasets.music import song


def files_of(name, data_dir):
    directory = datasets.info(name, data_dir).directory
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def same(name, source, tmp_path, **options):
    local = datasets.build(name, source, tmp_path / "local", workers=2)
    report = datasets.build(name, source, tmp_path / "beam", runner="direct", **options)
    assert report == local
    assert files_of(name, tmp_path / "beam") == files_of(name, tmp_path / "local")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_records_are_those_of_a_local_build(source, tmp_path, workers):
    same("midi_folder/mine", source, tmp_path, workers=workers)


def test_a_split_of_its_own_goes_along(tmp_path):
    source = tmp_path / "nottingham"
    (source / "MIDI").mkdir(parents=True)
    for seed in range(6):
        write_midi(song(seed), source / "MIDI" / f"jigs{seed}.mid")
    lists = '{"train": ["jigs0", "jigs2", "gone"], "val": ["jigs1"]}'
    (source / "official_split.json").write_text(lists)
    same("nottingham", source, tmp_path)


def test_a_parser_that_crashes_costs_only_its_file(source, tmp_path, monkeypatch):
    from m4m_jax.datasets.midi_folder import midi_folder_dataset_builder as builder

    monkeypatch.setattr(builder, "read_midi_file", faulty.read)
    write_midi(song(60), source / "aborts.mid")
    same("midi_folder/mine", source, tmp_path)
    rejected = datasets.info("midi_folder/mine", tmp_path / "beam").report.rejected
    assert rejected["crashed the parser"] == {"aborts.mid": "ended by SIGABRT"}


def test_it_goes_on_where_a_local_build_stopped(source, tmp_path):
    def stop(done, *_):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        datasets.build("midi_folder/mine", source, tmp_path / "beam", workers=1, progress=stop)
    parts = tmp_path / "beam" / ".building" / "midi_folder-mine" / "parts"
    before = {path.name: path.stat().st_mtime_ns for path in parts.iterdir()}
    assert len(before) > 20

    def interrupted(self):
        found = {path.name: path.stat().st_mtime_ns for path in parts.iterdir()}
        assert found.items() >= before.items()
        clear(self)

    from m4m_jax.datasets.staging import Job

    clear = Job.clear
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "clear", interrupted)
        same("midi_folder/mine", source, tmp_path)


def test_failures_are_one_line(source, tmp_path):
    with pytest.raises(M4MError, match="there are direct, dataflow, flink, spark"):
        datasets.build("midi_folder", source, tmp_path / "data", runner="none")
    options = {"runner": "direct", "runner_options": ["--direct_num_workers=many"]}
    with pytest.raises(M4MError, match="argument --direct_num_workers: invalid int") as error:
        datasets.build("midi_folder", source, tmp_path / "data", **options)
    assert "\n" not in str(error.value)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "text.mid").write_text("no music")
    with pytest.raises(M4MError, match="none of 1 files can be used") as error:
        datasets.build("midi_folder", tmp_path / "bad", tmp_path / "data", runner="direct")
    assert "\n" not in str(error.value)


def test_the_command_line_takes_options_of_the_runner(source, tmp_path, capfd):
    from m4m_jax.cli import main

    options = ["--runner", "direct", "--runner-option", "job_name=songs", "--data-dir", tmp_path]
    with pytest.raises(SystemExit) as done:
        main(["data", "build", "midi_folder", "--source", str(source), *map(str, options)])
    assert done.value.code == 0
    assert "39 of 41 files kept" in capfd.readouterr().out
