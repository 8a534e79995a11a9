from __future__ import annotations

import numpy as np
import pytest

from m4m_jax import datasets
from m4m_jax.datasets.bach_chorales import scores
from m4m_jax.datasets.bach_chorales.bach_chorales_dataset_builder import corpus_folder
from m4m_jax.datasets.ingest import Rejected
from m4m_jax.errors import M4MError
from m4m_jax.music import read_midi, write_midi

music21 = pytest.importorskip("music21")

# With and without instruments, ties, thirty-seconds and a pickup.
SCORES = ("bwv66.6.mxl", "bwv1.6.mxl", "bwv67.4.xml", "bwv248.64-6.mxl", "bwv10.7.mxl")


def read(name):
    return scores.read_score(str(corpus_folder()), name)


def note(step, octave, duration, *, tie="", extra="", alter=0):
    ties = "".join(f'<tie type="{kind}"/>' for kind in tie.split())
    length = "" if "grace" in extra else f"<duration>{duration}</duration>"
    return (
        f"<note>{extra}<pitch><step>{step}</step><alter>{alter}</alter><octave>{octave}</octave>"
        f"</pitch>{length}{ties}<voice>1</voice></note>"
    )


def write_score(path, parts, *, divisions=24):
    """Parts: name -> measures, each the text of its notes (and of what goes before them)."""
    listed = "".join(
        f'<score-part id="P{k}"><part-name>{name}</part-name></score-part>'
        for k, name in enumerate(parts)
    )
    bodies = ""
    for k, measures in enumerate(parts.values()):
        head = f"<attributes><divisions>{divisions}</divisions></attributes>"
        inner = "".join(
            f'<measure number="{number}">{head if number == 0 else ""}{text}</measure>'
            for number, text in enumerate(measures)
        )
        bodies += f'<part id="P{k}">{inner}</part>'
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?><score-partwise version="3.0">'
        f"<part-list>{listed}</part-list>{bodies}</score-partwise>"
    )


def meter(beats, unit):
    return (
        f"<attributes><time><beats>{beats}</beats><beat-type>{unit}</beat-type></time></attributes>"
    )


WHOLE = meter(4, 4) + note("C", 3, 96)


def four(tmp_path, soprano, *, names=scores.VOICES, other=(WHOLE,)):
    parts = {name: list(soprano if k == 0 else other) for k, name in enumerate(names)}
    write_score(tmp_path / "score.xml", parts)
    return scores.read_score(str(tmp_path), "score.xml")


def soprano_of(table):
    return table.notes[table.notes[:, 5] == 0][:, :3].tolist()


def test_ties_are_merged_across_bars(tmp_path):
    bars = [
        meter(4, 4) + note("C", 5, 48) + note("D", 5, 48, tie="start"),
        note("D", 5, 96, tie="stop start"),
        note("D", 5, 24, tie="stop") + note("D", 5, 72),
    ]
    table = four(tmp_path, bars, other=[WHOLE, WHOLE, WHOLE]).table
    assert soprano_of(table) == [[0, 8, 72], [8, 28, 74], [36, 12, 74]]
    assert table.length == 48


def test_a_tie_joins_only_its_own_pitch_and_place(tmp_path):
    bars = [
        meter(4, 4)
        + note("C", 5, 24, tie="start")
        + note("E", 5, 24, tie="stop")
        + note("C", 5, 24, tie="stop")
        + note("C", 5, 24)
    ]
    assert soprano_of(four(tmp_path, bars).table) == [
        [0, 4, 72], [4, 4, 76], [8, 4, 72], [12, 4, 72],
    ]  # fmt: skip


def test_grace_notes_are_left_out_and_counted(tmp_path):
    bars = [meter(4, 4) + note("D", 5, 0, extra="<grace/>") + note("C", 5, 96)]
    reading = four(tmp_path, bars)
    assert soprano_of(reading.table) == [[0, 16, 72]]
    assert reading.notices == {"grace notes left out": "1"}


def test_divided_voices_keep_both_notes(tmp_path):
    bars = [meter(4, 4) + note("C", 5, 96) + note("E", 5, 96, extra="<chord/>")]
    assert sorted(soprano_of(four(tmp_path, bars).table)) == [[0, 16, 72], [0, 16, 76]]


def test_triplets_go_to_the_nearest_step(tmp_path):
    bars = [meter(2, 4) + note("C", 5, 16) + note("D", 5, 16) + note("E", 5, 16)]
    table = four(tmp_path, bars, other=[meter(2, 4) + note("C", 3, 48)]).table
    assert soprano_of(table) == [[0, 3, 72], [3, 2, 74], [5, 3, 76]]
    assert table.off_grid == pytest.approx(2 / 6)


def test_bar_lines(tmp_path):
    bars = [
        meter(3, 4) + note("C", 5, 12),
        note("C", 5, 72),
        note("C", 5, 72),
        note("C", 5, 48),
        note("C", 5, 24),
        meter(4, 4) + note("C", 5, 96),
        note("C", 5, 24),
    ]
    table = four(tmp_path, bars, other=bars).table
    expected = [[0, 1, 8], [2, 3, 4], [26, 2, 4], [34, 1, 4], [38, 4, 4]]
    assert table.meters.tolist() == expected


def test_the_tempo_is_the_scores_or_100(tmp_path):
    assert four(tmp_path, [WHOLE]).table.tempos.tolist() == [[0, 100]]
    sound = '<sound tempo="72"/>'
    assert four(tmp_path, [meter(4, 4) + sound + note("C", 5, 96)]).table.tempos.tolist() == [
        [0, 72]
    ]


@pytest.mark.parametrize(
    "names",
    [
        ("Soprano", "Alto", "Tenor", "Organ"),
        ("Soprano 1", "Soprano 2", "Alto", "Tenor", "Bass"),
        (" ", "  ", "   ", "    "),
        ("Piano",),
        (),
    ],
)
def test_other_parts_than_the_four_voices_are_refused(tmp_path, names):
    write_score(tmp_path / "score.xml", {name: [WHOLE] for name in names})
    with pytest.raises(Rejected, match="its parts are") as error:
        scores.read_score(str(tmp_path), "score.xml")
    assert error.value.reason == "no four voices"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.mxl", b"PK not a zip file"),
        ("x.xml", b"not XML"),
        ("x.xml", b"<score-timewise/>"),
        ("x.musicxml", b""),
    ],
)
def test_what_is_not_musicxml(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(M4MError, match=name) as error:
        scores.read_score(str(tmp_path), name)
    assert not isinstance(error.value, Rejected)


def test_second_voices_in_a_bar(tmp_path):
    backup = "<backup><duration>96</duration></backup>"
    forward = "<forward><duration>48</duration></forward>"
    bars = [meter(4, 4) + note("G", 5, 96) + backup + forward + note("C", 5, 48, alter=1)]
    assert sorted(soprano_of(four(tmp_path, bars).table)) == [[0, 16, 79], [8, 8, 73]]


def test_names_may_go_on_after_the_voice(tmp_path):
    names = ("Violin", "Soprano\nOboe 1", "Alto (Viola)", "Tenor", "Bass Continuo")
    bars = {name: [meter(4, 4) + note("C", k, 96)] for k, name in enumerate(names)}
    write_score(tmp_path / "score.xml", bars)
    table = scores.read_score(str(tmp_path), "score.xml").table
    assert table.notes[:, 2].tolist() == [24, 36, 48, 60]


def test_a_voice_without_notes_is_refused(tmp_path):
    rest = meter(4, 4) + "<note><rest/><duration>96</duration></note>"
    with pytest.raises(Rejected, match="Soprano has no notes"):
        four(tmp_path, [rest])


@pytest.mark.parametrize("name", SCORES)
def test_the_voices_are_those_that_music21_reads(name):
    """Its own parser and its merging of ties are the judge."""
    table = read(name).table
    score = music21.converter.parse(str(corpus_folder() / name), forceSource=True)
    parts = {(part.partName or "").split()[0]: part for part in score.parts}
    assert [track.name for track in table.tracks] == list(scores.VOICES)
    for k, voice in enumerate(scores.VOICES):
        written = np.array(
            [
                (float(n.offset), float(n.offset) + float(n.quarterLength), n.pitch.midi)
                for n in parts[voice].stripTies().flatten().notes
                if not n.duration.isGrace
            ]
        )
        start, end = np.rint(4 * written[:, 0]), np.rint(4 * written[:, 1])
        expected = np.stack([start, end - start, written[:, 2]], axis=1)
        ours = table.notes[table.notes[:, 5] == k]
        assert sorted(ours[:, :3].tolist()) == sorted(expected.tolist())
    assert set(table.notes[:, 3]) == {52}
    assert set(table.notes[:, 4]) == {80}


def test_a_pickup_is_a_shorter_bar():
    table = read("bwv66.6.mxl").table
    assert table.meters.tolist() == [[0, 1, 4], [4, 4, 4]]
    assert table.tempos.tolist() == [[0, 96]]
    assert table.length == 144


def test_scores_come_through_a_midi_file_unchanged(tmp_path):
    table = read("bwv66.6.mxl").table
    write_midi(table, tmp_path / "score.mid")
    assert read_midi(tmp_path / "score.mid") == table


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("bwv227.3.mxl", "Soprano 1, Soprano 2"),
        ("bwv281.krn", "Humdrum"),
        ("bwv846.mxl", "Piano"),
        ("choraleAnalyses/riemenschneider001.rntxt", "analysis"),
    ],
)
def test_what_is_no_chorale_of_four_voices(name, detail):
    with pytest.raises(Rejected, match=detail):
        read(name)


def test_a_local_copy_of_some_scores(tmp_path):
    source = tmp_path / "scores"
    source.mkdir()
    for name in ("bwv66.6.mxl", "bwv281.krn", "bwv10.7.mxl"):
        (source / name).write_bytes((corpus_folder() / name).read_bytes())
    (source / "again.mxl").write_bytes((corpus_folder() / "bwv66.6.mxl").read_bytes())
    (source / "broken.mxl").write_bytes(b"PK not a zip file")
    report = datasets.build("bach_chorales", source, tmp_path / "data", workers=2)
    assert report.kept == 2
    assert {reason: list(files) for reason, files in report.rejected.items()} == {
        "duplicate": ["bwv66.6.mxl"],
        "no four voices": ["bwv281.krn"],
        "unreadable": ["broken.mxl"],
    }
    assert datasets.info("bach_chorales", tmp_path / "data").parts == {
        "soprano": "track-0",
        "alto": "track-1",
        "tenor": "track-2",
        "bass": "track-3",
    }


def test_without_music21(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(M4MError, match=r"pip install -e '\.\[demo\]'"):
        datasets.build("bach_chorales", None, tmp_path)


def test_all_chorales(tmp_path):
    report = datasets.build("bach_chorales", None, tmp_path)
    assert report.files >= 400
    assert report.kept >= 400
    assert set(report.rejected) == {"duplicate", "no four voices"}
    assert report.splits["test"] >= 20
    contents = []
    for split in report.splits:
        songs = datasets.open_split("bach_chorales", split, tmp_path)
        for index in range(len(songs)):
            song = songs.song(index)
            contents.append(song.content)
            assert datasets.hash_split(song.content) == split
            assert np.bincount(song.table.notes[:, 5], minlength=4).min() > 5
            assert song.table.off_grid == 0 or song.table.off_grid < 0.1
            assert 60 < song.table.length < 2000
    assert len(set(contents)) == len(contents) == report.kept
