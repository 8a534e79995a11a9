"""The report's page: what it holds, and that it needs nothing from elsewhere."""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import re
from html.parser import HTMLParser

import pytest
import tree_sitter
import tree_sitter_javascript

from m4m_jax.evaluation.judged import Judged, JudgedSong, Sample
from m4m_jax.evaluation.page import build
from m4m_jax.evaluation.page.plots import strip_plot
from m4m_jax.evaluation.pairing import LeftOut
from m4m_jax.evaluation.scoring import Parts
from tests.evaluation.music import chords, part

MELODY = part([(0, 4, 64), (4, 2, 65)], 32)
SONG = JudgedSong(
    "</script><b>",
    Parts(MELODY, chords("CF")),
    {"cc": 2.0},
    {"a<b": [Sample("x_1.mid", chords("CG"), {"cc": 2.0, "majmin": 0.5}) for _ in range(2)]},
)
JUDGED = Judged("melody-to-chord", ["a<b"], songs=[SONG], left_out=[LeftOut("<i>", "no & song")])


class Tags(HTMLParser):
    """The tags of a page that are not closed, and the attributes that it has."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def data_of(text: str) -> list:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_page_holds_the_music():
    text = build.build(JUDGED)
    (song,) = data_of(text)
    assert song["name"] == "</script><b>"
    assert song["reference"] == [[0, 4, 64, 80, 0], [4, 2, 65, 80, 0]]
    assert [one["label"] for one in song["parts"]] == ["truth", "a<b 1", "a<b 2"]
    assert song["parts"][1]["notes"][0] == [0, 8, 48, 80, 0]
    assert song["parts"][1]["figures"] == "majmin 0.50"
    assert (song["steps"], song["tempos"]) == (32, [[0, 120]])
    assert "2.000 ± -<br>" in text  # one song
    assert "&lt;i&gt;: no &amp; song" in text
    assert text.count("<svg") == 2


def test_the_page_stands_alone():
    text = build.build(JUDGED)
    tags = Tags(text)
    assert not tags.open
    assert not tags.attributes & {"src", "href"}
    assert not re.search(r"https?:|import\(|url\(|fetch\(|@import", text)
    assert "$" not in re.sub(r"\$\{", "", text.partition("<script>")[0])


def test_only_the_first_songs_are_shown():
    many = dataclasses.replace(JUDGED, songs=[SONG] * (build.SHOWN + 1))
    text = build.build(many)
    assert len(data_of(text)) == build.SHOWN
    assert f"The first {build.SHOWN} of {build.SHOWN + 1} songs." in text


def test_drums_and_songs_without_a_truth():
    kit = part([(0, 1, 36)], 16, drum=True).replace(tempos=MELODY.tempos[:0])
    song = JudgedSong("s", Parts(None, None), {}, {"one": [Sample("f", kit, {})]})
    (found,) = data_of(build.build(Judged("copy", ["one"], songs=[song])))
    assert found["parts"][0]["notes"] == [[0, 1, 36, 80, 1]]
    assert found["reference"] == []
    assert found["tempos"] == [[0, 120]]


def test_samples_without_a_song_have_their_own_clock_and_reference():
    slow = chords("C").replace(tempos=MELODY.tempos / 2)
    samples = [Sample("x", chords("CG"), {}, MELODY), Sample("y", slow, {}, chords("F"))]
    song = JudgedSong("s", Parts(None, None), {}, {"one": samples})
    (found,) = data_of(build.build(Judged("copy", ["one"], songs=[song])))
    own = [part["song"] for part in found["parts"]]
    assert [len(one["reference"]) for one in own] == [2, 3]
    assert [one["tempos"] for one in own] == [[[0, 120]], [[0, 60]]]
    (shown,) = data_of(build.build(JUDGED))
    assert not any("song" in part for part in shown["parts"])


def test_a_figure_over_fewer_songs_says_so():
    other = JudgedSong("o", Parts(MELODY, None), {}, {"a<b": [Sample("y", chords("C"), {})]})
    text = build.build(dataclasses.replace(JUDGED, songs=[SONG, other]))
    assert text.count("; 1 of 2 songs</small>") == 2  # of the system; the truth has one song
    assert "1 of 1" not in text


def test_settings_that_are_nought_are_told():
    draws = {"seed": 0, "temperature": 0.0, "top_k": None, "prompt_steps": 0}
    settings = {"systems": {"a": "b"}, "prompt": 0, "limit": None, "draws": draws}
    text = build.build(dataclasses.replace(JUDGED, settings=settings))
    assert "samples. prompt 0; seed 0; temperature 0.0</p>" in text


def test_names_that_are_no_text():
    """A file's name may hold bytes that are not UTF-8."""
    song = dataclasses.replace(SONG, name="\udcff")
    judged = dataclasses.replace(JUDGED, songs=[song], left_out=[LeftOut("\udcff_1.mid", "no")])
    text = build.build(judged)
    assert text.encode()
    assert "<li>?_1.mid: no</li>" in text
    assert data_of(text)[0]["name"] == "?"


def test_the_script_is_read_without_errors():
    script = importlib.resources.files("m4m_jax.evaluation.page").joinpath("page.js").read_bytes()
    read = tree_sitter.Parser(tree_sitter.Language(tree_sitter_javascript.language())).parse
    assert not read(script).root_node.has_error
    assert read(script.rstrip().removesuffix(b");")).root_node.has_error


def test_dots_stand_where_their_values_are():
    drawn = strip_plot("T", {"truth": [0, 1], "x": [0.5]}, {"truth": "#111", "x": "#222"})
    at = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn)]
    assert at[2] == pytest.approx((at[0] + at[1]) / 2, abs=0.1)
    assert at[0] < at[1]
    assert strip_plot("T", {"truth": [2]}, {"truth": "#111"}).count("<circle") == 1
