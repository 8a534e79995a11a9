"""Every builder builds from the made-up songs beside it, which are laid out as its source is."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import pytest

from m4m_jax import datasets
from m4m_jax.music import select
from tests.datasets.make_dummy_data import BUILDERS, SOURCES

MAX_BYTES = 2048  # of a file


class Wanted(NamedTuple):
    """What is to come of a folder.

    Attributes:
        train, validation, test: names of songs.
        rejected: reason -> names of files.
        parts: names of parts -> how many notes the first training song has in them.
        notices: kind -> names of files.
    """

    train: list[str]
    validation: list[str]
    test: list[str]
    rejected: dict[str, list[str]]
    parts: dict[str, int]
    notices: dict[str, list[str]] = {}  # noqa: RUF012


POP909_CL = Wanted(
    ["POP909_processed/001.mid"],
    ["POP909_processed/002.mid"],
    ["POP909_processed/003.mid"],
    {"no two tracks": ["POP909_processed/004.mid"]},
    {"song": 64, "chords": 24},
)
WANTED = {
    "nottingham": Wanted(
        ["jigs1.mid", "jigs2.mid"],
        ["reelsa-c1.mid"],
        ["xmas1.mid"],
        {"too short": ["ashover1.mid"]},
        {"melody": 48, "chords": 24},
    ),
    "pop909_cl": POP909_CL,
    "pop909_cl/analysis": POP909_CL._replace(parts={"beats": 80, "song": 64, "chords": 24}),
    "rwc_pop": Wanted(
        ["midi/RM-P001.mid"],
        ["midi/RM-P003.mid"],
        ["midi/RM-P002.mid"],
        {"no chords": ["midi/RM-P004.mid"]},
        {"beats": 80, "chords": 26, "song": 120},
        {"chords left out, unknown": ["midi/RM-P003.mid"]},
    ),
    "los_angeles": Wanted(
        ["MIDIs/2/22a62a8700d0d98432773cfcbf544839.mid"],
        ["MIDIs/3/37c3b2aa846bada95be3fbfe990048c8.mid"],
        ["MIDIs/2/2cb31ca546f4e7cd8a85bc049e77cc8b.mid"],
        {
            "duplicate": ["MIDIs/7/714fd19ea0fae97a6080ec78388631ac.mid"],
            "too short": ["MIDIs/f/f37aa5e0da303a6ea1398b500011f1aa.mid"],
        },
        {},
    ),
    "lakh": Wanted(
        ["lmd_full/2/2cca949319273a7f735505fb755bbc15.mid"],
        ["lmd_full/c/c0e30a2d49dafb49ce3702d0858a8af9.mid"],
        ["lmd_full/a/a2534d151588d0c4d9468ea4c902ea90.mid"],
        {"unreadable": ["lmd_full/9/94c0a61468cfc9161dad86f4514b1772.mid"]},
        {},
    ),
    "midi_folder/mine": Wanted(
        ["band/live/REEL.MID"],
        ["band/march.midi"],
        ["waltz.mid"],
        {"unreadable": ["band/letter.mid"]},
        {},
    ),
    "bach_chorales": Wanted(
        ["bwv2001.xml"],
        [],
        ["bwv2002.mxl", "bwv2003.xml"],
        {"no four voices": ["bwv2004.krn"]},
        {"soprano": 3, "alto": 3, "tenor": 3, "bass": 3},
    ),
}


def folder_of(name):
    return BUILDERS / name.split("/")[0] / "dummy_data"


def files_in(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def listed(findings):
    return {kind: list(files) for kind, files in findings.items()}


@pytest.mark.parametrize("name", WANTED)
def test_builders_build_from_them(name, tmp_path):
    wanted = WANTED[name]
    report = datasets.build(name, folder_of(name), tmp_path, workers=1)
    splits = {split: datasets.open_split(name, split, tmp_path) for split in report.splits}
    for split, songs in splits.items():
        assert [songs.song(i).name for i in range(len(songs))] == getattr(wanted, split)
    assert listed(report.rejected) == wanted.rejected
    assert listed(report.notices) == wanted.notices
    train = splits["train"]
    counts = {part: len(select(train[0], part, names=train.parts).notes) for part in train.parts}
    assert counts == wanted.parts


def test_every_builder_has_them():
    assert set(SOURCES) == set(datasets.NAMES) == {name.split("/")[0] for name in WANTED}


@pytest.mark.parametrize("name", SOURCES)
def test_they_are_what_the_script_writes(name, tmp_path):
    SOURCES[name](tmp_path)
    written = files_in(tmp_path)
    assert written == files_in(folder_of(name)), "run python -m tests.datasets.make_dummy_data"
    assert max(map(len, written.values())) < MAX_BYTES


@pytest.mark.parametrize("name", ["los_angeles", "lakh"])
def test_collections_from_the_web_name_files_by_their_contents(name):
    for path, data in files_in(folder_of(name)).items():
        md5 = hashlib.md5(data).hexdigest()
        assert path.endswith(f"/{md5[0]}/{md5}.mid")
