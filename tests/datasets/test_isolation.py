from __future__ import annotations

import pytest

from m4m_jax.datasets.isolation import Failure, isolated_map
from tests.datasets import faulty


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_whatever_the_workers(workers):
    items = list(range(50))
    assert list(isolated_map(faulty.square, items, workers=workers)) == [
        (item, item * item) for item in items
    ]


def test_no_items_start_no_process():
    assert list(isolated_map(faulty.square, [], workers=2)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fault_costs_only_its_own_item(workers):
    faults = ["aborts", "segfaults", "exits", "hangs", "raises", "unpicklable"]
    items = [1, 2, *faults, 3, "prints", 4]
    results = dict(isolated_map(faulty.misbehave, items, workers=workers, time_limit=1.5))
    assert list(results) == items
    assert [results[item] for item in (1, 2, 3, "prints", 4)] == [1, 4, 9, 0, 16]
    assert results["aborts"] == Failure("crashed the parser", "ended by SIGABRT")
    assert results["segfaults"] == Failure("crashed the parser", "ended by SIGSEGV")
    assert results["exits"] == Failure("crashed the parser", "ended with exit status 7")
    assert results["hangs"] == Failure("timed out", "not done after 1.5 s")
    assert results["raises"] == Failure("unreadable", "ValueError: first line")
    assert results["unpicklable"].reason == "crashed the parser"


def test_only_faults():
    results = list(isolated_map(faulty.misbehave, ["aborts"] * 5, workers=2))
    assert [failure.reason for _, failure in results] == ["crashed the parser"] * 5


def test_workers_import_neither_jax_nor_tfds():
    ((_, modules),) = isolated_map(faulty.imported_modules, [0], workers=1)
    assert "m4m_jax.datasets.midi_files" in modules
    assert not {"jax", "grain", "tensorflow_datasets", "music21"} & set(modules)


def test_a_worker_that_cannot_start_is_a_defect(tmp_path, monkeypatch):
    module = tmp_path / "unimportable.py"
    module.write_text("def function(item): return item\n")
    monkeypatch.syspath_prepend(tmp_path)
    import unimportable

    module.write_text("raise ImportError\n")
    with pytest.raises(RuntimeError, match="did not start"):
        list(isolated_map(unimportable.function, [0], workers=1))


def test_leaving_early_ends_the_workers():
    results = isolated_map(faulty.misbehave, [1, "hangs", "hangs"], workers=3, time_limit=600)
    assert next(results) == (1, 1)
    results.close()  # would wait for ten minutes if it waited for them
