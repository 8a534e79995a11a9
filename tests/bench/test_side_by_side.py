"""Both builds, each in its process, timed on small windows."""

from __future__ import annotations

import json
import os

import pytest

from m4m_jax.bench import sample, table, train, works
from m4m_jax.bench.memory import HostMemory
from m4m_jax.bench.sides import Side
from m4m_jax.cli import _run
from m4m_jax.errors import M4MError

pytestmark = pytest.mark.slow


class Counting(HostMemory):
    """A build that counts."""

    def __init__(self, start: int):
        self.count = start

    def run(self, number: int) -> int:
        self.count += number
        return self.count

    def process(self) -> int:
        return os.getpid()

    def hold(self, size: int) -> None:
        assert len(b"x" * size) == size

    def fail(self) -> None:
        raise ValueError("as it must")


def test_a_build_lives_in_a_process_of_its_own(capfd):
    with Side(Counting, 3) as side:
        assert side.call("run", 2).result == 5
        found = side.call("run", 1)
        assert found.result == 6
        assert 0 < found.seconds < 10
        assert side.call("process").result != os.getpid()
        side.call("hold", 2**27)
        side.call("forget_peak")
        low = side.call("peak_bytes").result
        side.call("hold", 2**27)
        assert side.call("peak_bytes").result - low > 2**26
        with pytest.raises(M4MError, match="the process of Counting ended with status 1"):
            side.call("fail")
    assert "as it must" in capfd.readouterr().err
    assert not side.process.is_alive()


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(works, "WINDOW", 24)
    monkeypatch.setattr(works, "SONGS", 12)
    monkeypatch.setattr(sample, "PROMPT", 8)
    sizes = {"size": "tiny"}
    brief = {train: sizes, sample: sizes | {"steps": 16}}
    for bench, options in brief.items():
        measure = bench.measure
        monkeypatch.setattr(
            bench,
            "measure",
            lambda work, folder, rounds, m=measure, o=options: m(work, folder, rounds=rounds, **o),
        )


def figures(kind, work, path, capsys):
    assert _run(["bench", kind, "--work", work, "--rounds", "1", "--json", str(path)]) == 0
    (row,) = json.loads(path.read_text())
    assert row["work"] == f"{kind} {work}"
    assert row["data"] == "made up"
    assert row["ratio"] == pytest.approx(row["peer_s"] / row["ours_s"])
    assert 0 < row["limit_s"] < row["ours_s"]
    assert row["distance"] == pytest.approx(row["limit_s"] / row["ours_s"])
    assert min(row["ours_bytes"], row["peer_bytes"]) > 2**26
    out = capsys.readouterr().out
    assert "\n".join(table.lines([row])) in out
    return row


def test_training(small, tmp_path, capsys):
    row = figures("train", "chord-to-melody", tmp_path / "train.json", capsys)
    assert row["windows"] == 2
    assert row["least_operations"] < row["ours_operations"] < row["peer_operations"]


def test_sampling(small, tmp_path, capsys):
    row = figures("sample", "drums-to-others", tmp_path / "sample.json", capsys)
    assert (row["windows"], row["steps"]) == (8, 16)
    assert row["least_bytes"] > 0


def test_mistakes(tmp_path, capsys):
    assert _run(["bench", "train", "--work", "nothing"]) == 2
    assert "there are chord-to-melody, others-to-drums" in capsys.readouterr().err
    assert _run(["bench", "sample", "--json", str(tmp_path / "none" / "x.json")]) == 2
