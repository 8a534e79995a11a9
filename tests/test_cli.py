"""The command line: what it prints, and how it answers mistakes.

Every command runs in a process of its own, as a user's does; those that import jax share one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from m4m_jax import datasets, digests, pretrained
from m4m_jax.bench import data as bench_data
from m4m_jax.bench import works
from m4m_jax.models.card import Card
from m4m_jax.music import NoteTable, Track, midi_bytes, write_midi
from m4m_jax.music.tasks import TASKS
from tests.datasets.music import song
from tests.models.small import CONFIG, LINKS, small_cross, small_lm

ROOT = Path(__file__).parent.parent
M4M = (sys.executable, "-c", "from m4m_jax.cli import main; main()")


class Answer(NamedTuple):
    status: int
    out: str
    err: str


def m4m(*arguments: str, cwd: Path | None = None) -> Answer:
    done = subprocess.run([*M4M, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)
    return Answer(done.returncode, done.stdout, done.stderr)


def assert_one_line(answer: Answer, *words: str) -> None:
    """A mistake's answer: status 2, one line on stderr that holds these words."""
    assert answer.status == 2, answer
    assert answer.err.startswith("m4m: "), answer
    assert answer.err.count("\n") == 1, answer.err
    for word in words:
        assert word in answer.err


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Help, version, what is imported.


def test_version():
    answer = m4m("--version")
    assert answer.status == 0
    assert re.fullmatch(r"m4m \d+\.\d+\.\d+\S*\n", answer.out)


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_lists_the_commands(arguments):
    answer = m4m(*arguments)
    assert (answer.status, answer.err) == (0, "")
    for command in ("tracks", "tokenize", "data", "train", "generate", "bench", "quickstart"):
        assert re.search(rf"^  {command} ", answer.out, re.MULTILINE)


HELP = {
    ("tracks",): [],
    ("tokenize",): ["--reference", "--target", "--max-notes", "--dedup", "--out"],
    ("data", "build"): ["--source", "--data-dir", "--name", "--workers", "--time-limit"],
    ("data", "inspect"): ["--task", "--window", "--max-notes", "--batch", "--data-dir"],
    ("data", "pack"): ["--task", "--epochs", "--data-dir", "--name"],
    ("bench", "train"): ["--work", "--data", "--json"],
    ("bench", "sample"): ["--work", "--data", "--json"],
    ("bench", "data"): ["--work", "--data", "--json"],
    ("train",): ["--out", "--data-dir", "--all-hosts", "--coordinator", "--processes"],
    ("generate",): ["--model", "--samples", "--temperature", "--top-k", "--top-p", "--plot"],
    ("bench", "analysis"): ["--work", "--data", "--model", "--base", "--json"],
    ("analyze",): ["--out", "--model", "--base", "--reference-base"],
    ("convert", "to-flax"): ["--out", "--base", "--reference-base", "--task", "--max-notes"],
    ("convert", "to-torch"): ["--out"],
    ("convert", "to-safetensors"): ["--out"],
    ("convert", "to-peft"): ["--out"],
    ("convert", "inspect"): [],
    ("convert", "verify"): ["--base", "--midi", "--steps", "--task", "--max-notes"],
    ("quickstart",): ["--out"],
    ("compile",): ["--topology", "--slices", "--per-device-batch", "--sample"],
    ("evaluate",): ["--generated", "--truth", "--data", "--split", "--target-part", "--limit"],
}


@pytest.fixture(scope="module")
def help_texts() -> dict[tuple[str, ...], str]:
    return {command: m4m(*command, "--help").out for command in HELP}


@pytest.mark.parametrize("command", HELP)
def test_help_of_a_command(help_texts, command):
    for option in HELP[command]:
        assert option in help_texts[command]


def test_help_names_every_task(help_texts):
    text = re.sub(r"-\s+", "-", help_texts["generate",])
    assert all(task in text for task in TASKS)


def test_help_names_every_work(help_texts):
    for kind, known in {
        "train": [work.name for work in works.TRAINING if not work.name.endswith("-masked")],
        "sample": [work.name for work in works.SAMPLING],
        "data": ["build", *bench_data.TASKS],
    }.items():
        text = re.sub(r"-\s+", "-", help_texts["bench", kind])
        assert all(name in text for name in known), kind
    assert "-masked" in help_texts["bench", "train"]


def commands_in(path: Path) -> list[str]:
    text = path.read_text().replace("\\\n#", " ")
    return re.findall(r"(?:^|`|&& |^#  *)(m4m [a-z][^`\n]*)", text, re.MULTILINE)


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("configs/*.yaml")],
    ids=lambda path: path.name,
)
def test_documented_commands_have_these_options(help_texts, path):
    for line in commands_in(path):
        words = line.split()[1:]
        command = tuple(words[: 2 if words[0] in ("data", "convert", "bench") else 1])
        if command not in help_texts:
            assert command[0] in {name[0] for name in help_texts}, line
            continue
        for option in (word for word in words if re.match(r"--?[a-z]", word)):
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", help_texts[command]), line


def test_music_commands_import_neither_jax_nor_a_plotter(tmp_path):
    write_midi(song(0), tmp_path / "song.mid")
    code = (
        "import sys; from m4m_jax.cli import _run; status = _run(['tracks', 'song.mid']);"
        "heavy = {'jax', 'flax', 'miditok', 'matplotlib', 'tensorflow_datasets', 'rich'};"
        "print(status, sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "0 []", run.stderr


# Commands on MIDI files.


def test_tracks_lists_parts_as_they_are(tmp_path):
    table = song(0).replace(tracks=(Track("[/b] tune\x1b[2J", 0), Track("", 1)))
    write_midi(table, tmp_path / "song.mid")
    answer = m4m("tracks", "song.mid", cwd=tmp_path)
    assert (answer.status, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0].split() == ["part", "name", "program", "notes", "range"]
    assert lines[1].startswith(r"track-0  [/b] tune\x1b[2J  0 Acoustic Grand Piano")
    assert lines[-1] == f"128 steps, {len(table.notes)} notes"


def off_grid_song() -> bytes:
    """A file whose header says a wrong number of ticks a quarter note."""
    data = bytearray(midi_bytes(song(0)))
    data[12:14] = (437).to_bytes(2, "big")
    return bytes(data)


def test_tracks_warns_where_beats_are_wrong(tmp_path):
    (tmp_path / "song.mid").write_bytes(off_grid_song())
    answer = m4m("tracks", "song.mid", cwd=tmp_path)
    assert answer.status == 0
    assert re.fullmatch(r"m4m: warning: song.mid: \d+% of the onsets are off .*\n", answer.err)


def test_tokenize_writes_the_arrays(tmp_path):
    write_midi(song(0), tmp_path / "song.mid")
    options = ("--reference", "track-1", "--target", "track-0", "--max-notes", "2", "-o", "x.npz")
    answer = m4m("tokenize", "song.mid", *options, cwd=tmp_path)
    assert answer == (0, "x.npz\n", "")
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["target"].shape == (128, 4)
        assert arrays["reference_rows"].shape == (128, 2, 4)


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    data = midi_bytes(song(0))
    long = song(0).replace(length=100_001)
    drums = NoteTable(np.array([[0, 4, 36, 127, 90, 0]]), (Track("kit", 0, is_drum=True),), 16)
    contents = {
        "good.mid": data,
        "text.mid": b"This is no music.\n",
        "empty.mid": b"",
        "truncated.mid": data[: len(data) // 2],
        "no-notes.mid": midi_bytes(song(0).replace(notes=song(0).notes[:0])),
        "long.mid": midi_bytes(long),
        "drums.mid": midi_bytes(drums),
        "off-grid.mid": off_grid_song(),
        "broken.yaml": b"system: [lm\n",
        "list.yaml": b"- lm\n",
        "binary.yaml": b"\xff\xfe\x00",
        "lm.yaml": b"data: midi_folder/test\ntask: continuation\nwindow: 16\nbatch: 2\nsize: tiny\n"
        b"presets: {small: {steps: 2}}\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


PARTS = ("--reference", "all", "--target", "all", "-o", "out.npz")
LIGHT = {
    "not MIDI": (["tracks", "text.mid"], ["text.mid", "not a MIDI file"]),
    "an empty file": (["tracks", "empty.mid"], ["empty.mid", "not a MIDI file"]),
    "truncated": (["tokenize", "truncated.mid", *PARTS], ["truncated.mid", "truncated"]),
    "no notes": (["tracks", "no-notes.mid"], ["no-notes.mid", "no notes"]),
    "too long": (["tracks", "long.mid"], ["long.mid", "100,001", "100,000"]),
    "no such file": (["tracks", "none.mid"], ["none.mid", "No such file"]),
    "a folder": (["tracks", "."], [".: cannot be read"]),
    "no such part": (
        ["tokenize", "good.mid", "--reference", "flute", "--target", "all", "-o", "out.npz"],
        ["good.mid", "'flute'", "track-0 (part 0)"],
    ),
    "no such track": (
        ["tokenize", "good.mid", "--reference", "all", "--target", "track-7", "-o", "out.npz"],
        ["good.mid", "'track-7'", "track-1"],
    ),
    "an empty part": (
        ["tokenize", "good.mid", "--reference", "drum", "--target", "all", "-o", "out.npz"],
        ["good.mid", "'drum' is empty"],
    ),
    "no such vocabulary": (
        ["tokenize", "good.mid", *PARTS, "--vocabulary", "loud"],
        ["'loud'", "plain, velocity"],
    ),
    "max-notes 0": (["tokenize", "good.mid", *PARTS, "--max-notes", "0"], ["--max-notes"]),
    "no such output folder": (
        ["tokenize", "good.mid", *PARTS[:-1], "nowhere/out.npz"],
        ["nowhere", "does not exist"],
    ),
    "no such command": (["trakcs", "good.mid"], ["trakcs"]),
    "no command": (["data"], ["Missing command", "m4m data --help"]),
    "no such option": (["tracks", "good.mid", "--loud"], ["--loud", "m4m tracks --help"]),
    "a missing argument": (["tracks"], ["FILE", "m4m tracks --help"]),
    "not a number": (["tokenize", "good.mid", *PARTS, "--max-notes", "x"], ["--max-notes"]),
    "no configuration": (["train", "none.yaml"], ["none.yaml", "no such configuration"]),
    "a folder for one": (["train", "."], [".: there is no such"]),
    "not YAML": (["train", "broken.yaml"], ["broken.yaml", "not YAML"]),
    "not text": (["train", "binary.yaml"], ["binary.yaml", "not YAML"]),
    "no keys": (["train", "list.yaml"], ["list.yaml"]),
    "an unknown key": (["train", "lm.yaml", "batchsize=3"], ["key batchsize;", "is batch\n"]),
    "an unknown nested key": (
        ["train", "lm.yaml", "optimizer.learning_rte=1"],
        ["key optimizer.learning_rte;", "is optimizer.learning_rate\n"],
    ),
    "a key in the wrong place": (
        ["train", "lm.yaml", "learning_rate=1"],
        ["key learning_rate;", "is optimizer.learning_rate\n"],
    ),
    "a value out of range": (["train", "lm.yaml", "batch=-1"], ["batch", "more than 0"]),
    "no value": (["train", "lm.yaml", "batch"], ["'batch'", "key=value"]),
    "no such preset": (["train", "lm.yaml", "preset=huge"], ["'huge'", "small"]),
    "no base": (["train", "lm.yaml", "system=cross"], ["base=DIR"]),
    "no such task": (
        ["generate", "chords-to-melody", "good.mid", "--model", "m", "-o", "out.mid"],
        ["chords-to-melody", "'chord-to-melody'"],
    ),
    "no folder for the result": (
        ["generate", "harmonize", "good.mid", "--model", "m", "-o", "nowhere/out.mid"],
        ["nowhere", "does not exist"],
    ),
    "a folder for the result": (
        ["generate", "harmonize", "good.mid", "--model", "m", "-o", "."],
        ["folder"],
    ),
    "no folder for the picture": (
        ["generate", "harmonize", "good.mid", "--model", "m", "-o", "o.mid", "--plot", "no/o.png"],
        ["no/o.png"],
    ),
    "nothing to read": (
        ["generate", "harmonize", "truncated.mid", "--model", "m", "-o", "out.mid"],
        ["truncated.mid"],
    ),
    "no program": (
        ["generate", "harmonize", "good.mid", "--model", "m", "-o", "o.mid", "--programs", "flute"],
        ["'flute'", "0,24"],
    ),
    "no such program": (
        ["generate", "harmonize", "good.mid", "--model", "m", "-o", "o.mid", "--programs", "0,128"],
        ["program 128"],
    ),
    "no samples": (
        ["generate", "harmonize", "good.mid", "--model", "m", "-o", "o.mid", "--samples", "0"],
        ["--samples"],
    ),
    "a cold too far": (
        ["generate", "harmonize", "good.mid", "--model", "m", "-o", "o.mid", "--temperature", "-1"],
        ["--temperature"],
    ),
    "more than all": (
        ["generate", "harmonize", "good.mid", "--model", "m", "-o", "o.mid", "--top-p", "1.5"],
        ["--top-p"],
    ),
}


@pytest.mark.parametrize("case", LIGHT)
def test_mistakes_that_need_no_model(bad_files, case):
    arguments, words = LIGHT[case]
    before = files_in(bad_files)
    answer = m4m(*arguments, cwd=bad_files)
    assert_one_line(answer, *words)
    assert answer.out == ""
    assert files_in(bad_files) == before


# Commands that load models or data sets.

SERVER = """
import json, os, sys
from m4m_jax.cli import main
answers, keep = [], os.dup(1)
for arguments in json.load(sys.stdin):
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    try:
        main(arguments)
    except SystemExit as end:
        status = end.code
    sys.stdout.flush()
    answers.append([status, open("out").read(), open("err").read(), sorted(os.listdir("work"))])
os.write(keep, json.dumps(answers).encode())
"""


def save_lm(folder: Path, seed: int) -> pretrained.Model:
    card = Card(
        system="lm", lm=CONFIG, task="continuation", reference=None, target="all",
        max_notes=4, window=16,
    )  # fmt: skip
    model = pretrained.Model(small_lm(seed), card)
    pretrained.save(model, folder)
    return model


def save_cross(folder: Path, base: Path, seed: int) -> None:
    named = pretrained.base_of(small_lm(seed), base, folder)
    card = Card(
        system="cross", lm=CONFIG, adapter=LINKS, base=named, task="chord-to-melody",
        reference="track-1", target="track-0", max_notes=4, window=16,
    )  # fmt: skip
    pretrained.save(pretrained.Model(small_cross(seed), card), folder)


def build_data(folder: Path) -> None:
    (folder / "songs").mkdir()
    for seed in range(12):
        write_midi(song(seed), folder / "songs" / f"{seed}.mid")
    report = datasets.build("midi_folder/test", folder / "songs", folder / "data", workers=1)
    assert report.splits["train"]
    assert report.splits["validation"]


def spoil(folder: Path) -> None:
    """Models with something missing, beside `lm`, `other` and `cross`."""
    (folder / "nothing").mkdir()
    shutil.copytree(folder / "cross", folder / "no-steps")
    shutil.rmtree(folder / "no-steps" / "0")
    shutil.copytree(folder / "cross", folder / "no-arrays")
    shutil.rmtree(folder / "no-arrays" / "0" / "model" / "d")
    shutil.copytree(folder / "cross", folder / "swapped")
    shutil.rmtree(folder / "swapped" / "0" / "model")
    shutil.copytree(folder / "lm" / "0" / "model", folder / "swapped" / "0" / "model")
    (folder / "swapped" / "0" / digests.FILE).unlink()
    for name, text in (("cut", '{"format": 1, "sys'), ("strange", '{"format": 1}')):
        shutil.copytree(folder / "cross", folder / name)
        (folder / name / "model.json").write_text(text)
    shutil.copytree(folder / "cross", folder / "lost")
    card = json.loads((folder / "lost" / "model.json").read_text())
    card["base"]["path"] = "../gone"
    (folder / "lost" / "model.json").write_text(json.dumps(card))


def generate(model: str, *options: str, task: str = "chord-to-melody", file: str = "good.mid"):
    return ["generate", task, file, "--model", model, "-o", "work/out.mid", *options]


def train(*changes: str):
    return ["train", "lm.yaml", *changes, "--data-dir", "data", "-o", "work/run"]


HEAVY = {
    "no model": (generate("none"), ["none", "no such model directory"]),
    "not a model": (generate("nothing"), ["nothing", "no model.json"]),
    "half a model.json": (generate("cut"), ["cut/model.json"]),
    "a strange model.json": (generate("strange"), ["strange/model.json", "system: Field required"]),
    "no checkpoint": (generate("no-steps"), ["no-steps", "incomplete"]),
    "arrays missing": (generate("no-arrays"), ["no-arrays/0 is damaged", "is missing"]),
    "an array missing": (generate("swapped"), ["swapped/0 cannot be read", "lacks"]),
    "base missing": (generate("lost"), ["lost", "gone"]),
    "another base": (generate("cross", "--base", "other"), ["cross", "other", "another base"]),
    "an adapter for base": (generate("cross", "--base", "cross"), ["cross", "language model"]),
    "another task": (generate("cross", task="harmonize"), ["chord-to-melody", "harmonize"]),
    "no such part": (generate("cross", "--reference", "flute"), ["good.mid", "'flute'"]),
    "a part too few": (generate("cross", file="drums.mid"), ["drums.mid", "'track-1'"]),
    "an empty part": (generate("cross", "--reference", "drum"), ["good.mid", "'drum' is empty"]),
    "all prompt": (generate("cross", "--prompt", "128"), ["128"]),
    "no such data set": (train("data=notingham"), ["'notingham'", "nottingham"]),
    "data not built": (train("data=bach_chorales"), ["m4m data build bach_chorales"]),
    "no such task": (train("task=melodize"), ["'melodize'"]),
    "no such size": (train("size=9"), ["'9'", "tiny"]),
    "no base there": (train("system=cross", "base=gone"), ["gone"]),
    "an adapter as base": (train("system=cross", "base=cross"), ["cross", "linked system"]),
    "no such part in the data": (train("target=flute"), ["'flute'"]),
    "too many devices": (train("mesh={data: 3}"), ["3"]),
    "songs too short": (train("window=1000"), ["too short"]),
    "a file for a run": (
        ["train", "lm.yaml", "--data-dir", "data", "-o", "good.mid"],
        ["good.mid: cannot"],
    ),
    "no such builder": (["data", "build", "bach"], ["bach"]),
    "no source": (["data", "build", "nottingham"], ["--source"]),
    "no such source": (["data", "build", "midi_folder", "--source", "gone"], ["gone"]),
    "no songs": (["data", "build", "midi_folder", "--source", "nothing"], ["nothing", ".mid"]),
    "no workers": (["data", "build", "bach_chorales", "--workers", "0"], ["--workers"]),
}
WORKING = {
    "generate": generate(
        "cross", "--samples", "2", "--steps", "20", "--plot", "work/out.png", file="off-grid.mid"
    ),
}


class Served(NamedTuple):
    answer: Answer
    work: list[str]  # the files in the output folder after it


@pytest.fixture(scope="module")
def served(bad_files) -> dict[str, Served]:
    (bad_files / "work").mkdir()
    save_lm(bad_files / "lm", 0)
    save_lm(bad_files / "other", 1)
    save_cross(bad_files / "cross", bad_files / "lm", 0)
    spoil(bad_files)
    build_data(bad_files)
    cases = {name: arguments for name, (arguments, _) in HEAVY.items()} | WORKING
    environment = os.environ | {
        "TFDS_DATA_DIR": str(bad_files / "default-data"),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", SERVER],
        input=json.dumps(list(cases.values())),
        cwd=bad_files,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    answers = [Served(Answer(*first), work) for *first, work in json.loads(done.stdout)]
    return dict(zip(cases, answers, strict=True))


@pytest.mark.parametrize("case", HEAVY)
def test_mistakes_with_models_and_data(served, case):
    assert_one_line(served[case].answer, *HEAVY[case][1])
    assert served[case].work == []


def test_generate_writes_samples_and_says_nothing_else(served):
    answer, work = served["generate"]
    assert answer.status == 0
    assert answer.out.splitlines() == ["work/out_1.mid", "work/out_2.mid", "work/out.png"]
    assert work == ["out.png", "out_1.mid", "out_2.mid"]
    assert re.fullmatch(r"m4m: warning: off-grid.mid: .*\n", answer.err)


# Being cut off.


def test_a_closed_pipe_is_no_news(tmp_path):
    write_midi(song(0), tmp_path / "song.mid")
    process = subprocess.Popen(
        [*M4M, "tracks", "song.mid"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1


def test_ctrl_c_leaves_no_traceback(tmp_path):
    # A pipe that nobody writes to keeps the command waiting.
    os.mkfifo(tmp_path / "song.mid")
    process = subprocess.Popen(
        [*M4M, "tracks", "song.mid"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    writer = os.open(tmp_path / "song.mid", os.O_WRONLY)  # returns once the command reads
    status = None
    while status is None:  # a signal between opening and reading does not end the reading
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(timeout=2)
    assert (status, process.stderr.read()) == (130, "m4m: interrupted\n")
    os.close(writer)
