from __future__ import annotations

import sys

import pytest

from m4m_jax.datasets.isolation import Failure, Workers
from m4m_jax.errors import M4MError
from tests.datasets import faulty


def results(function, tasks, count=1, **options):
    with Workers(function, count, **options) as workers:
        return dict(workers.run(tasks))


@pytest.mark.parametrize("count", [1, 3])
def test_every_task_is_done_once(count):
    tasks = [[k, k + 1] for k in range(50)]
    with Workers(faulty.squares, count) as workers:
        found = list(workers.run(tasks))
    assert sorted(found) == [(k, [k**2, (k + 1) ** 2]) for k in range(50)]


def test_processes_serve_several_runs():
    with Workers(faulty.squares, 2) as workers:
        assert dict(workers.run([[1], [2]])) == {0: [1], 1: [4]}
        before = {worker.process.pid for worker in workers._running}
        assert dict(workers.run([[3]])) == {0: [9]}
        assert {worker.process.pid for worker in workers._running} == before
    assert not workers._running


def test_no_tasks_start_no_process():
    with Workers(faulty.squares, 2) as workers:
        assert list(workers.run([])) == []
        assert not workers._running


@pytest.mark.parametrize("count", [1, 2])
def test_a_fault_costs_only_its_own_file(count):
    tasks = [[1, "aborts", 2, "segfaults", "hangs", 3], ["exits"], ["raises", "prints", 4]]
    found = results(faulty.squares, tasks, count, time_limit=1.5)
    assert found == {
        0: [
            1,
            Failure("crashed the parser", "ended by SIGABRT"),
            4,
            Failure("crashed the parser", "ended by SIGSEGV"),
            Failure("timed out", "not done after 1.5 s"),
            9,
        ],
        1: [Failure("crashed the parser", "ended with exit status 7")],
        2: [Failure("unreadable", "ValueError: first line"), 0, 16],
    }


def test_a_worker_that_is_killed_by_others_is_no_fault_of_its_file(tmp_path):
    assert results(faulty.killed_the_first_time, [str(tmp_path / "marker")]) == {0: 1}
    found = results(faulty.squares, [["is killed", 5]])
    assert found == {0: [Failure("crashed the parser", "ended by SIGKILL"), 25]}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory may not be limited")
def test_memory_is_limited():
    assert results(faulty.squares, [["fills memory", 5]]) == {
        0: [Failure("too large", "needs more than 1.75 GB"), 25]
    }


def test_workers_import_neither_jax_nor_tfds():
    modules = results(faulty.imported_modules, [0])[0]
    assert "m4m_jax.datasets.midi_files" in modules
    assert not {"jax", "grain", "tensorflow_datasets", "music21"} & set(modules)


def test_what_a_task_raises_ends_the_run():
    with pytest.raises(OSError, match="No space left on device") as error:
        results(faulty.full_disk, [0, 1], 2)
    assert error.value.errno == 28
    with pytest.raises(RuntimeError, match="does not pickle"):
        results(faulty.unpicklable, [0])


def test_a_task_that_cannot_be_done_is_given_up():
    with pytest.raises(M4MError, match="ended by SIGKILL 3 times while they wrote"):
        results(faulty.dies_while_writing, [0])


def test_a_worker_that_cannot_start_is_a_defect(tmp_path, monkeypatch):
    module = tmp_path / "unimportable.py"
    module.write_text("def function(task, attempt): return task\n")
    monkeypatch.syspath_prepend(tmp_path)
    import unimportable

    module.write_text("raise ImportError\n")
    with pytest.raises(RuntimeError, match="did not start"):
        results(unimportable.function, [0])


def test_leaving_early_ends_the_processes():
    with Workers(faulty.squares, 3, time_limit=600) as workers:
        found = workers.run([[1], ["hangs"], ["hangs"]])
        assert next(found) == (0, [1])
        processes = [worker.process for worker in workers._running]
    # To wait for them would take ten minutes.
    assert all(process.poll() is not None for process in processes)
