"""The sets that are compared, and what is said where they cannot be."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from m4m_jax.evaluation import distribution
from m4m_jax.evaluation.judged import Judged, JudgedSong, Sample
from m4m_jax.evaluation.scoring import Parts
from m4m_jax.music import read_midi
from tests.evaluation.music import chords, part

MELODY = part([(0, 4, 72)], 16)


def judged(songs: int) -> Judged:
    samples = {"one": [Sample("x", chords("CG"), {}), Sample("y", chords("C-"), {})]}
    song = JudgedSong("s", Parts(MELODY, chords("CF")), {}, samples)
    alone = JudgedSong("t", Parts(MELODY, None), {}, samples)
    return Judged("melody-to-chord", ["one"], songs=[*[song] * songs, alone])


def notes_apart(truth: str, other: str) -> float:
    """The difference in notes a file: a distance that one can count."""
    counts = []
    for folder in (truth, other):
        files = sorted(Path(folder).iterdir())
        counts.append(sum(len(read_midi(file).notes) for file in files) / len(files))
    return counts[0] - counts[1]


def test_each_song_and_sample_is_a_file_with_its_reference():
    # 7 notes a song; samples of 7 and 4, two a song.
    found, remarks = distribution.distances(judged(2), notes_apart)
    assert found == {"one": 1.5}
    assert not remarks


def test_the_prompt_is_in_no_file():
    """Neither of the songs nor of samples, of which one then has no notes of its own."""
    lengths, starts = [], []

    def looked_at(truth: str, other: str) -> float:
        for folder in (truth, other):
            tables = [read_midi(file) for file in sorted(Path(folder).iterdir())]
            lengths.append([len(table.notes) for table in tables])
            starts.extend(table.notes[:, 0].min() for table in tables)
        return 0.0

    assert distribution.distances(judged(2), looked_at, skip=8) == (
        {"one": 0.0},
        ["Fréchet Music Distance: 2 samples of one have no notes"],
    )
    assert lengths == [[3, 3], [3, 3]]
    assert set(starts) == {0}


def test_each_system_has_its_own():
    """One that wrote nothing, to songs without a reference, leaves the others theirs."""
    silent = chords("--")
    samples = {"one": [Sample("x", chords("CG"), {})], "two": [Sample("y", silent, {})]}
    song = JudgedSong("s", Parts(None, chords("CF")), {}, samples)
    both = Judged("melody-to-chord", ["two", "one"], songs=[song, song])
    found, remarks = distribution.distances(both, notes_apart)
    assert found == {"one": 0}
    assert [line.partition(": ")[2] for line in remarks] == [
        "2 samples of two have no notes",
        "it needs two samples or more with notes",
    ]

    def fails(truth: str, other: str) -> float:
        if other.endswith("0"):
            raise RuntimeError("no features")
        return notes_apart(truth, other)

    one = {"one": samples["one"], "two": samples["one"]}
    both = Judged("copy", ["two", "one"], songs=[JudgedSong("s", song.parts, {}, one)] * 2)
    found, remarks = distribution.distances(both, fails)
    assert found == {"one": 0}
    assert remarks[0].endswith("of two: frechet-music-distance failed (no features)")


def test_why_there_is_none():
    assert "two songs" in distribution.distances(judged(1), notes_apart)[1][0]

    def fails(truth: str, other: str) -> float:
        raise RuntimeError("no weights\nat all")

    found, remarks = distribution.distances(judged(2), fails)
    assert found == {}
    assert remarks[0].endswith("failed (no weights)")
    if importlib.util.find_spec(distribution.PACKAGE) is None:
        assert "is not installed" in distribution.distances(judged(2))[1][0]
