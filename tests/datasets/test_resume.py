"""Builds that are stopped, in whatever way, and started again."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

import m4m_jax
from m4m_jax import datasets
from m4m_jax.datasets import staging
from m4m_jax.errors import M4MError
from m4m_jax.music import write_midi
from tests.datasets.music import song

NAME = "midi_folder/mine"

BUILD = """
import sys
from m4m_jax import datasets
source, data_dir, workers = sys.argv[1:]
def progress(done, total, stage):
    print(done + (41 if stage == "songs written" else 0), total, flush=True)
datasets.build("midi_folder/mine", source, data_dir, workers=int(workers), progress=progress)
"""

CLI = "from m4m_jax.cli import main; main()"


def start(*arguments):
    command = [sys.executable, *map(os.fspath, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )


def parts(data_dir):
    return data_dir / ".building" / "midi_folder-mine" / "parts"


def files_of(data_dir):
    directory = datasets.info(NAME, data_dir).directory
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def whole(source, tmp_path):
    """The files of a build that nothing happened to."""
    datasets.build(NAME, source, tmp_path / "whole", workers=1)
    return files_of(tmp_path / "whole")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers notice it a little later")
def test_workers_end_with_the_build(source, tmp_path):
    process = start("-c", BUILD, source, tmp_path / "data", "2")
    assert process.stdout.readline()
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(_is_running(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_running(process):
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_a_build_that_is_killed_goes_on(source, tmp_path, whole, workers):
    data = tmp_path / "data"
    reached = 0
    # Killed as it starts, while it reads, when it has read all files, and while it writes.
    for moment in (0, 1, 17, 41, 42):
        process = start("-c", BUILD, source, data, str(workers))
        done = 0
        while done < moment:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            done = int(line.split()[0])
            # What was finished before is not done again.
            assert done >= reached
        process.send_signal(signal.SIGKILL)
        process.wait()
        reached = done
        assert not datasets.is_built(NAME, data)
        with pytest.raises(M4MError, match="has not been built"):
            datasets.open_split(NAME, "train", data)
    process = start("-c", BUILD, source, data, str(workers))
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert all(int(line.split()[0]) > 41 for line in output.splitlines())
    assert files_of(data) == whole
    assert [path.name for path in data.iterdir()] == ["midi_folder"]


def test_ctrl_c_leaves_a_build_that_goes_on(source, tmp_path, whole):
    data = tmp_path / "data"
    options = ["--source", source, "--name", "mine", "--data-dir", data, "--workers", "2"]
    command = ["-c", CLI, "data", "build", "midi_folder", *options]
    process = start(*command)
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.count("\n") == 1
    assert errors.startswith("m4m: interrupted; the same command goes on where this one stopped")
    assert not datasets.is_built(NAME, data)
    assert any(parts(data).iterdir())
    datasets.build(NAME, source, data, workers=1)
    assert files_of(data) == whole


def test_who_watches_may_leave(source, tmp_path):
    options = ["--source", source, "--name", "mine", "--data-dir", tmp_path / "data"]
    process = start("-c", CLI, "data", "build", "midi_folder", *options)
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1


FULL_DISK = """
build() {{
    {python} -c '{cli}' data build midi_folder --source {source} --name mine --data-dir {data}
    echo $?
}}
mount -t tmpfs -o size=160k tmpfs {data} || exit 77
build
find {data} -name metadata.json
mount -o remount,size=64m {data}
build
cp -r {data}/. {copy}
"""


def test_a_full_disk(source, tmp_path, whole):
    """On a real disk, a small one, which a user's own name space lets anyone mount."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    data.mkdir()
    copy.mkdir()
    script = FULL_DISK.format(data=data, source=source, copy=copy, cli=CLI, python=sys.executable)
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.xfail("there is no unshare here")
    done = subprocess.run([unshare, "-rm", "sh", "-c", script], capture_output=True, text=True)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.xfail(f"nothing can be mounted here: {done.stderr}")
    assert done.stderr == (
        f"m4m: {data}: the data set {NAME} cannot be written (No space left on device);"
        " mend that, and the same command goes on where this one stopped\n"
    )
    assert [line for line in done.stdout.splitlines() if line.isdigit()] == ["2", "0"]
    assert "metadata.json" not in done.stdout
    assert files_of(copy) == whole


def test_a_disk_that_fills_up_leaves_what_was_there(source, tmp_path, whole, monkeypatch):
    data = tmp_path / "data"
    datasets.build(NAME, source, data, workers=1)
    (source / "song00.mid").unlink()

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(staging.Job, "clear", full)
    with pytest.raises(M4MError, match="No space left on device"):
        datasets.build(NAME, source, data, workers=1)
    assert files_of(data) == whole


class Numbers:
    """Progress that is kept."""

    def __init__(self, done):
        self.done = done

    def __call__(self, done, total, stage):
        self.done.append(done)


def test_files_that_change_start_it_afresh(source, tmp_path, monkeypatch):
    data = tmp_path / "data"

    def interrupted(*_):
        raise KeyboardInterrupt

    for change in (
        lambda: write_midi(song(99), source / "song05.mid"),
        lambda: (source / "song06.mid").unlink(),
    ):
        with pytest.raises(KeyboardInterrupt, match="goes on where this one stopped"):
            datasets.build(NAME, source, data, workers=1, progress=interrupted)
        change()
        seen, said = Numbers([]), list[str]()
        datasets.build(NAME, source, data, workers=1, progress=seen, say=said.append)
        assert seen.done[0] == 1
        assert [line.partition(":")[0] for line in said] == ["starting afresh"]
        datasets.build(NAME, source, tmp_path / "new", workers=1)
        assert files_of(data) == files_of(tmp_path / "new")


@pytest.mark.parametrize("part", ["music/notes.py", "analysis/meter.py", "datasets/ingest.py"])
def test_code_that_changes_starts_it_afresh(tmp_path, monkeypatch, part):
    """All that readers of files call: that of pop909_cl/analysis finds bars, for instance."""
    package = pathlib.Path(m4m_jax.__file__).parent
    for folder in ("music", "analysis", "datasets"):
        shutil.copytree(package / folder, tmp_path / folder)
    before = staging._code()
    monkeypatch.setattr(staging, "__file__", str(tmp_path / "datasets" / "staging.py"))
    assert staging._code() == before
    with (tmp_path / part).open("a") as file:
        file.write("# changed\n")
    assert staging._code() != before


def test_what_is_kept_of_a_build_that_stopped_is_said(source, tmp_path):
    def stopped_at(moment):
        def stop(done, total, stage):
            if (stage, done) == moment or stage == moment:
                raise KeyboardInterrupt

        return stop

    said: list[str] = []
    for moment in (("files read", 17), "songs written"):
        with pytest.raises(KeyboardInterrupt):
            datasets.build(
                NAME, source, tmp_path, workers=1, progress=stopped_at(moment), say=said.append
            )
    datasets.build(NAME, source, tmp_path, workers=1, say=said.append)
    datasets.build(NAME, source, tmp_path, workers=1, say=said.append)
    before = "going on with the build that was stopped: "
    assert said == [
        f"{before}17 of 41 files are read",
        f"{before}41 of 41 files are read, 1 of 3 shards written",
    ]


def test_two_builds_at_once_are_refused(source, tmp_path):
    def again(*_):
        with pytest.raises(M4MError, match="another process is building midi_folder/mine"):
            datasets.build(NAME, source, tmp_path, workers=1)
        datasets.build("midi_folder/other", source, tmp_path, workers=1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        datasets.build(NAME, source, tmp_path, workers=1, progress=again)
    assert datasets.is_built("midi_folder/other", tmp_path)
    datasets.build(NAME, source, tmp_path, workers=1)


def test_the_names_of_functions_tell_builds_apart():
    from functools import partial

    from m4m_jax.datasets.midi_files import midi_names, read_midi_file

    identity = staging._identity
    one = identity(partial(read_midi_file, "folder", True))
    assert one == identity(partial(read_midi_file, "folder", True))
    others = [partial(read_midi_file, "folder", False), read_midi_file, midi_names]
    assert all(identity(other) != one for other in others)
    assert identity(frozenset("abc")) == identity(frozenset("cba"))
    assert identity({"b": 1, "a": {2}}) == identity({"a": {2}, "b": 1})
