"""A tiny model, judged: what it writes to songs, and how likely songs are under it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from m4m_jax import pretrained
from m4m_jax.errors import M4MError
from m4m_jax.evaluation import command, model_side
from m4m_jax.evaluation.draws import Draws
from m4m_jax.evaluation.likelihood import Likelihoods, figures, nll
from m4m_jax.evaluation.pairing import Folder
from m4m_jax.evaluation.writing import without_answer
from m4m_jax.models.card import Card
from m4m_jax.music import Compression, read_midi, select, to_rows, to_tokens, write_midi
from m4m_jax.music.keys import moved, to_common_key
from m4m_jax.music.reduction import reduced, struck
from m4m_jax.pretrained import Model
from tests.compiling import quick_compile as quick_compile
from tests.datasets.music import song
from tests.models.small import CONFIG, LINKS, small_cross, small_lm
from tests.test_cli import m4m

pytestmark = pytest.mark.usefixtures("quick_compile")

ABOUT = {"max_notes": 4, "window": 24}
LM = Model(
    small_lm(),
    Card(system="lm", lm=CONFIG, task="continuation", reference=None, target="all", **ABOUT),
)
PARTS = {"task": "chord-to-melody", "reference": "track-1", "target": "track-0"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Models `lm` and `cross`, and `songs`, of 32 steps each; one of them has no chords."""
    folder = tmp_path_factory.mktemp("evaluation")
    pretrained.save(LM, folder / "lm")
    base = pretrained.base_of(LM.system, folder / "lm", folder / "cross")
    card = Card(system="cross", lm=CONFIG, adapter=LINKS, base=base, **PARTS, **ABOUT)
    pretrained.save(Model(small_cross(), card), folder / "cross")
    (folder / "songs").mkdir()
    for name, table in (("a", song(1, bars=2)), ("b", song(2, bars=2)), ("c", song(3, bars=2))):
        write_midi(table, folder / "songs" / f"{name}.mid")
    write_midi(song(4, bars=2, tracks=1), folder / "songs" / "aa.mid")
    return folder


@pytest.mark.slow
def test_the_command_from_songs_to_a_report(place):
    command_line = (
        *("evaluate", "chord-to-melody", "--model", "cross", "--truth", "songs", "-o", "out"),
        *("--samples", "2", "--limit", "2", "--temperature", "0.9"),
    )
    answer = m4m(*command_line, cwd=place)
    assert answer.status == 0, answer.err
    assert "2 songs, 4 samples" in answer.out
    for line in ("NLL a token", "LM perplexity", "chord-tone ratio", "left out: aa: no part"):
        assert line in answer.out
    files = sorted(path.name for path in (place / "out" / "midi" / "cross").iterdir())
    assert files == ["a_1.mid", "a_2.mid", "b_1.mid", "b_2.mid"]
    assert "cross 2" in (place / "out" / "report.html").read_text()
    report = json.loads((place / "out" / "report.json").read_text())
    assert report["settings"]["draws"]["temperature"] == 0.9
    assert report["systems"]["cross"]["nll_token"]["samples"] == 4
    assert report["truth"]["lm_perplexity"]["mean"] > 1
    # Again: what is there stays, what is missing is written as it was.
    before = {name: (place / "out" / "midi" / "cross" / name).read_bytes() for name in files}
    kept = place / "out" / "midi" / "cross" / "a_1.mid"
    kept.write_bytes(before["a_2.mid"])
    (place / "out" / "midi" / "cross" / "b_2.mid").unlink()
    assert m4m(*command_line, cwd=place).status == 0
    assert kept.read_bytes() == before["a_2.mid"]
    after = {name: (place / "out" / "midi" / "cross" / name).read_bytes() for name in files}
    assert after == before | {"a_1.mid": before["a_2.mid"]}
    # Samples that are drawn otherwise do not mix with these.
    answer = m4m(*command_line, "--seed", "1", cwd=place)
    assert (answer.status, answer.err.count("\n")) == (2, 1)
    assert "holds samples made with seed 0, not 1" in answer.err


def test_a_model_beside_a_folder(place, tmp_path):
    """The songs' own files, judged as another system's, are as the truth."""
    songs = Folder(place / "songs")
    judged = command.evaluate(
        "chord-to-melody",
        tmp_path / "out",
        songs,
        [f"itself={place / 'songs'}"],
        model=place / "cross",
        draws=Draws(samples=1, prompt_steps=8),
        limit=1,
        steps=24,
    )
    assert judged.systems == ["cross", "itself"]
    own, truth = judged.summary("itself"), judged.truth_summary()
    assert own.keys() == truth.keys()
    for name, found in own.items():
        assert found["mean"] == pytest.approx(truth[name]["mean"]), name
    (one,) = judged.songs
    written = read_midi(one.systems["cross"][0].file)
    kept = select(written, "melody").notes
    given = select(songs.read("a"), "track-0").notes
    assert sorted(kept[kept[:, 0] < 8, 2]) == sorted(given[given[:, 0] < 8, 2])


def test_samples_stay_with_their_songs(place, tmp_path, monkeypatch):
    """Of two songs one is called as a sample of the other; then it is replaced."""
    truth = tmp_path / "truth"
    truth.mkdir()
    for name, number in (("x", 1), ("x_1", 2)):
        write_midi(song(number, bars=1), truth / f"{name}.mid")

    def evaluate(folder) -> dict[str, dict[str, bytes]]:
        judged = command.evaluate(
            "chord-to-melody",
            tmp_path / "out",
            Folder(folder),
            model=place / "cross",
            draws=Draws(samples=2),
        )
        assert not judged.left_out
        return {
            one.name: {Path(s.file).stem: Path(s.file).read_bytes() for s in one.systems["cross"]}
            for one in judged.songs
        }

    first = evaluate(truth)
    assert {name: list(files) for name, files in first.items()} == {
        "x": ["x_1", "x_2"],
        "x_1": ["x_1_1", "x_1_2"],
    }
    write_midi(song(3, bars=1), truth / "x_1.mid")
    monkeypatch.chdir(tmp_path)
    second = evaluate("./truth")  # the same folder
    assert second["x"] == first["x"]
    assert all(second["x_1"][name] != first["x_1"][name] for name in first["x_1"])


def test_bars_are_not_told_to_who_is_to_find_them():
    table = song(1, bars=2)
    assert not len(without_answer(table, "analysis").meters)
    assert without_answer(table, "analysis").replace(meters=table.meters) == table
    assert without_answer(table, "chord-to-melody") == table


def test_likelihoods_by_hand(place):
    """Two windows of 24 steps, each from its own beginning; the second is filled up."""
    model, table = pretrained.load(place / "cross"), song(1, bars=2)
    melody, chords = (select(table, part) for part in ("track-0", "track-1"))
    total, count = nll(model, melody, chords)
    tokens = [to_tokens(to_rows(part.notes, 32, 4)) for part in (melody, chords)]
    first = model.token_nll(tokens[0][None, :24], tokens[1][None, :24])
    # A causal target: what stands after a row does not touch it; of chords all 24 steps are read.
    second = [np.concatenate([rows[24:], empty(16)])[None] for rows in tokens]
    rest = model.token_nll(*second)[:, :8]
    assert total == pytest.approx(float(first.sum() + rest.sum()), rel=1e-5)
    assert count == (tokens[0] != LM.system.lm.vocabulary.pad).sum()
    found = figures(model, LM, melody, chords)
    assert found["nll_token"] == pytest.approx(total / count)
    assert found["nll_step"] == pytest.approx(total / 32)
    alone = LM.token_nll(tokens[0][None, :24]).sum() + LM.token_nll(second[0])[:, :8].sum()
    assert found["lm_perplexity"] == pytest.approx(np.exp(alone / count), rel=1e-5)
    # Steps that were given are read, and not counted.
    total, count = nll(model, melody, chords, skip=8)
    assert total == pytest.approx(float(first[:, 8:].sum() + rest.sum()), rel=1e-5)
    assert count == (tokens[0][8:] != LM.system.lm.vocabulary.pad).sum()
    assert figures(model, None, melody, None) == {}
    assert set(figures(LM, LM, melody, None)) == {"nll_token", "nll_step", "lm_perplexity"}


def empty(steps: int) -> np.ndarray:
    rows = np.full((steps, 8), LM.system.lm.vocabulary.pad, np.int32)
    rows[:, 0] = LM.system.lm.vocabulary.eos
    return rows


@pytest.mark.parametrize("ratio", [1, 2])
def test_likelihoods_of_a_song_that_begins_with_part_of_a_bar(place, ratio):
    """It is read as if the rest of the bar were silent, which does not count."""
    model = pretrained.load(place / "cross")
    changes = {"starts": "bars", "compress": Compression(ratio, ratio)}
    trained = dataclasses.replace(model, card=model.card.model_copy(update=changes))
    pickup = song(2, bars=2).replace(meters=np.array([[0.0, 1.0, 4.0], [4.0, 2.0, 4.0]]))
    notes = pickup.notes + np.array([4, 0, 0, 0, 0, 0], np.int32)
    meters = np.array([[0.0, 2.0, 4.0]])
    whole = pickup.replace(notes=notes, length=pickup.length + 4, meters=meters)
    for skip in (0, 6):
        found = nll(trained, *(select(pickup, f"track-{k}") for k in (0, 1)), skip=skip)
        assert found == nll(trained, *(select(whole, f"track-{k}") for k in (0, 1)), skip=skip + 4)


def test_likelihoods_given_the_harmony_of_a_band(place):
    model = pretrained.load(place / "cross")
    trained = dataclasses.replace(
        model, card=model.card.model_copy(update={"harmony_by_quarter": True})
    )
    band = song(1, bars=2)
    part, reference = select(band, "track-0"), select(band, "track-1")
    assert set(reference.notes[:, 3]) == {1}
    assert nll(trained, part, reference) == nll(model, part, reduced(reference))
    assert nll(trained, part, reference) != nll(model, part, reference)


def test_likelihoods_of_chords_struck_on_each_quarter(place):
    """Chords that were written as they last are as likely as those that were struck."""
    model = pretrained.load(place / "cross")
    about = {"harmony_by_quarter": True, "task": "melody-to-chord"}
    trained = dataclasses.replace(model, card=model.card.model_copy(update=about))
    band = song(1, bars=2)
    reference = select(band, "track-0")
    notes = np.array([[0, 7, 48, 1, 90, 1], [0, 7, 52, 1, 90, 1]], np.int32)
    part = select(band, "track-1").replace(notes=notes)
    assert len(struck(part).notes) == 4
    expected = nll(model, struck(part), reduced(reference))
    assert nll(trained, part, reference) == nll(trained, struck(part), reference) == expected
    assert nll(model, part, reduced(reference)) != expected


def test_the_language_model_reads_chords_of_the_judged_task_in_their_octave(place):
    model = pretrained.load(place / "lm")
    card = model.card.model_copy(update={"common_key": True})
    trained = dataclasses.replace(model, card=card)
    lowered = (moved(select(song(1, bars=2), "track-1"), -k) for k in range(12))
    part = next(one for one in lowered if to_common_key(one.notes) + one.notes[0, 2] % 12 > 11)
    key = to_common_key(part.notes)
    as_chords = nll(model, moved(part, key, chords=True), None)
    assert nll(trained, part, None, 0, "target") == as_chords
    assert nll(trained, part, None) == nll(model, moved(part, key), None) != as_chords
    named = part.replace(tracks=tuple(dataclasses.replace(t, name="chords") for t in part.tracks))
    assert nll(trained, named, None) == as_chords


@pytest.mark.parametrize("name", ["cross", "lm"])
def test_likelihoods_in_the_common_key(place, name):
    model = pretrained.load(place / name)
    trained = dataclasses.replace(model, card=model.card.model_copy(update={"common_key": True}))
    band = moved(song(1, bars=2), 1)
    part, reference = select(band, "track-0"), select(band, "track-1")
    given = reference if name == "cross" else None
    expected = nll(trained, part, given)
    key = to_common_key((part if given is None else given).notes)
    for shift in (key - 3, key + 2):
        there = None if given is None else moved(given, shift, chords=True)
        assert nll(trained, moved(part, shift), there) == expected
    there = None if given is None else moved(given, key, chords=True)
    assert nll(model, moved(part, key), there) == expected != nll(model, part, given)


def test_likelihoods_are_kept(place, tmp_path):
    table = song(1, bars=2)
    melody, chords = (select(table, part) for part in ("track-0", "track-1"))
    first = Likelihoods(LM, None, tmp_path / "kept.jsonl")(melody, chords)
    again = Likelihoods(None, None, tmp_path / "kept.jsonl")  # computes nothing
    assert again(melody, chords) == first
    kept = tmp_path / "kept.jsonl"
    (line,) = kept.read_text().splitlines()
    # A line that was being written when the command was stopped.
    kept.write_text(f'{line}\n["abc", {{"nll_to')
    assert Likelihoods(None, None, kept)(melody, chords) == first
    assert kept.read_text() == f"{line}\n"
    # Other bars, other windows.
    moved = melody.replace(meters=np.array([[0.0, 1.0, 4.0], [4.0, 4.0, 4.0]]))
    Likelihoods(LM, None, kept)(moved, chords)
    assert len(kept.read_text().splitlines()) == 2
    # Other names, which say what is block chords.
    tracks = tuple(dataclasses.replace(track, name="chords") for track in melody.tracks)
    Likelihoods(LM, None, kept)(melody.replace(tracks=tracks), chords)
    assert len(kept.read_text().splitlines()) == 3


def test_mistakes(place, tmp_path):
    songs = Folder(place / "songs")

    def refused(*given, **options) -> str:
        with pytest.raises(M4MError) as error:
            command.evaluate(*given, **options)
        return str(error.value)

    out, model = tmp_path / "out", place / "cross"
    # What needs no model is told before one is looked for.
    gone = tmp_path / "cross"
    assert "give --data" in refused("chord-to-melody", out, None, model=gone)
    assert "trained for chord-to-melody" in refused("copy", out, songs, model=model)
    taken = [f"cross={place / 'songs'}"]
    assert "the model's name" in refused("chord-to-melody", out, songs, taken, model=gone)
    assert not out.exists()
    out.write_text("")
    assert "is no folder" in refused("chord-to-melody", out, songs, model=gone)
    out.unlink()
    long = Draws(prompt_steps=24)
    message = refused("chord-to-melody", out, songs, model=model, draws=long, steps=32)
    assert "4 left out" in message
    assert "leaves nothing to write" in message
    # What failed leaves nothing that would bind the next.
    assert not out.exists()
    message = refused("chord-to-melody", out, songs, model=model, target="oboe")
    assert "--target oboe: no song has it; a: no part 'oboe'" in message
    assert not out.exists()
    out.mkdir()
    for text in ("{", "[1]", '{"theme": "dark"}'):
        (out / "settings.json").write_text(text)
        message = refused("chord-to-melody", out, songs, model=model)
        assert "settings.json does not tell what samples are made of" in message
        assert (out / "settings.json").read_text() == text


def test_what_a_model_is_called(place, tmp_path):
    (tmp_path / "cross-0.1").mkdir()
    assert model_side.system_name(tmp_path / "cross-0.1") == "cross-0.1"
    assert model_side.system_name("runs/x.ckpt") == "x"
    assert model_side.system_name(place / "cross" / "0") == "cross-0"
    with pytest.raises(M4MError, match="rename the model"):
        model_side.check(tmp_path / "truth", Folder(place / "songs"), [])
