"""`m4m analyze`, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from m4m_jax.music import write_midi
from tests.analysis.music import play

RUN = (
    "import sys; from m4m_jax.cli import _run; status = _run(sys.argv[1:]);"
    " print('jax' in sys.modules); sys.exit(status)"
)


def m4m(*arguments) -> tuple[int, list[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)], capture_output=True, text=True
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.fixture
def file(tmp_path):
    write_midi(play(["C:maj", "F:maj", "G:maj", "C:maj"], 16), tmp_path / "song.mid")
    return tmp_path / "song.mid"


def test_files_are_written_and_named(file, tmp_path):
    status, out, err = m4m("analyze", file, "-o", tmp_path / "out")
    assert (status, err) == (0, "")
    suffixes = ("lab", "beats", "jams", "analysis.mid", "png")
    assert out == [*(str(tmp_path / "out" / f"song.{s}") for s in suffixes), "False"]
    assert (tmp_path / "out" / "song.lab").read_text().splitlines() == [
        "0.000\t2.000\tC:maj",
        "2.000\t4.000\tF:maj",
        "4.000\t6.000\tG:maj",
        "6.000\t8.000\tC:maj",
    ]
    jams = json.loads((tmp_path / "out" / "song.jams").read_text())
    assert [a["namespace"] for a in jams["annotations"]] == ["chord", "beat"]


def test_mistakes_are_one_line(file, tmp_path):
    empty = tmp_path / "empty.mid"
    empty.write_bytes(b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\4\0\xff\x2f\0")
    for arguments, words in (
        ((empty, "-o", tmp_path / "out"), "no notes"),
        ((tmp_path / "none.mid", "-o", tmp_path / "out"), "cannot be read"),
        ((file, "-o", file), "it is no folder"),
        ((file, "-o", tmp_path / "out", "--model", tmp_path / "none"), "none"),
    ):
        status, _, err = m4m("analyze", *arguments)
        assert status == 2
        assert err.startswith("m4m: ")
        assert words in err
        assert err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty.mid", "song.mid"]


def test_a_file_off_the_grid_is_told(file, tmp_path):
    data = file.read_bytes()
    file.write_bytes(data[:12] + (500).to_bytes(2, "big") + data[14:])  # other ticks a quarter
    status, _, err = m4m("analyze", file, "-o", tmp_path / "out")
    assert status == 0
    assert "off the 16th-note grid" in err
    assert err.count("\n") == 1
