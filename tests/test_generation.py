"""From a MIDI file to a MIDI file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from m4m_jax import generation, pretrained
from m4m_jax.errors import M4MError
from m4m_jax.models.card import Card
from m4m_jax.music import (
    PLAIN,
    Compression,
    NoteTable,
    Track,
    compress_rows,
    from_rows,
    from_tokens,
    get_task,
    read_midi,
    select,
    tasks,
    to_rows,
    to_tokens,
    write_midi,
)
from m4m_jax.music.keys import moved, to_common_key
from m4m_jax.music.reduction import harmony_by_quarter, struck
from m4m_jax.pretrained import Model
from tests.analysis.music import play
from tests.compiling import quick_compile as quick_compile
from tests.datasets.music import song
from tests.models.small import CONFIG, LINKS, small_cross, small_lm
from tests.test_cli import m4m

pytestmark = pytest.mark.usefixtures("quick_compile")


def with_drums(bars: int = 2) -> NoteTable:
    """A made-up song with a drum part, two tempos and a change of metre."""
    table = song(1, bars=bars)
    beats = np.arange(0, table.length, 4)
    drums = np.stack(
        [beats, *(np.full(len(beats), v) for v in (1, 38, 127, 90, len(table.tracks)))], axis=1
    )
    return table.replace(
        notes=np.concatenate([table.notes, drums]).astype(np.int32),
        tracks=(*table.tracks, Track("kit", 0, True)),
        tempos=np.array([[0.0, 96.0], [16.0, 120.0]]),
        meters=np.array([[0.0, 4.0, 4.0], [16.0, 3.0, 4.0]]),
    )


def model(task: str, compress: Compression | None = None, **parts: str) -> Model:
    pair = {"reference": get_task(task).reference, "target": get_task(task).target}
    about = {"task": task, **pair, "max_notes": 4, "window": 12, "parts": parts}
    about["compress"] = compress or Compression()
    if task == "continuation":
        return Model(small_lm(), Card(system="lm", lm=CONFIG, **about))
    base = pretrained.base_of(small_lm(), "base", "adapter")
    return Model(small_cross(), Card(system="cross", lm=CONFIG, adapter=LINKS, base=base, **about))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "song.mid"
    write_midi(with_drums(), path)
    return path


def refused(*args, **kwargs) -> str:
    with pytest.raises(M4MError) as error:
        generation.generate(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_target_is_written_beside_its_reference(file, tmp_path):
    source = read_midi(file)
    written = generation.generate(
        model("others-to-drums"), source, "others-to-drums", programs=[127, 9]
    )
    (paths,) = (generation.write_samples(written, tmp_path / "out.mid", tmp_path / "out.png"),)
    assert [p.name for p in paths] == ["out.mid", "out.png"]
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    result = read_midi(tmp_path / "out.mid")
    np.testing.assert_allclose(result.tempos, source.tempos)
    np.testing.assert_array_equal(result.meters, source.meters)
    # The reference: every part but the drums, note for note.
    kept = [k for k, t in enumerate(result.tracks) if t.name in ("part 0", "part 1")]
    assert len(kept) == 2
    old = source.notes[source.notes[:, 5] < 2][:, :5]
    new = result.notes[np.isin(result.notes[:, 5], kept)][:, :5]
    assert sorted(map(tuple, old)) == sorted(map(tuple, new))
    made = [t for t in result.tracks if t.name == "drums"]
    assert {t.is_drum for t in made} == {True, False}
    assert {t.program for t in made if not t.is_drum} == {9}
    assert not any(t.name == "kit" for t in result.tracks)
    # Drums stand on the drum channel: a note-on of channel 10 is a byte 0x99.
    drum_only = generation.generate(model("others-to-drums"), source, programs=[127])
    assert all(t.is_drum for t in drum_only[0][1].tracks)
    (path,) = generation.write_samples(drum_only, tmp_path / "drums.mid")
    assert b"\x99" in path.read_bytes()


def test_several_samples_are_numbered(file, tmp_path):
    written = generation.generate(model("chord-to-melody"), read_midi(file), samples=3, seed=4)
    paths = generation.write_samples(written, tmp_path / "out.mid")
    assert [p.name for p in paths] == ["out_1.mid", "out_2.mid", "out_3.mid"]
    assert len({p.read_bytes() for p in paths}) == 3
    alone = generation.generate(model("chord-to-melody"), read_midi(file), seed=4)
    assert alone[0][1] == written[0][1]


def test_targets_are_drawn_as_the_task_says(file, monkeypatch):
    copier, given = model("copy"), read_midi(file)

    def notes(**how: float) -> list[list[int]]:
        (_, written), *_ = generation.generate(copier, given, **how)
        return written.notes.tolist()

    drawn = notes()
    assert drawn == notes(temperature=1.0, top_p=1.0) != notes(temperature=0.0)
    cold = dataclasses.replace(get_task("copy"), temperature=0.0)
    monkeypatch.setitem(tasks.TASKS, "copy", cold)
    assert notes() == notes(temperature=0.0) != drawn
    assert notes(temperature=1.0) == drawn


@pytest.mark.parametrize(("task", "drums"), [("others-to-drums", True), ("drums-to-others", False)])
def test_drums_are_written_for_drums_alone(file, task, drums):
    (_, written), *_ = generation.generate(model(task), read_midi(file))
    assert len(written.notes) > 10
    assert {track.is_drum for track in written.tracks} == {drums}


def test_targets_are_as_long_as_the_song_or_as_asked(file):
    source = read_midi(file)
    for steps, length in ((None, source.length), (5, 5), (40, 40)):
        ((_, target),) = generation.generate(model("chord-to-melody"), source, steps=steps)
        assert target.length == length
        assert target.notes[:, 0].max() < length


def test_a_prompt_of_the_songs_own_target(file):
    source = read_midi(file)
    ((_, target),) = generation.generate(model("chord-to-melody"), source, prompt_steps=8)
    melody = source.notes[(source.notes[:, 5] == 0) & (source.notes[:, 0] < 8)]
    kept = target.notes[target.notes[:, 0] < 8]
    assert sorted(map(tuple, kept[:, [0, 2, 3]])) == sorted(map(tuple, melody[:, [0, 2, 3]]))


def test_a_language_model_goes_on(file, tmp_path):
    source = read_midi(file)
    written = generation.generate(model("continuation"), source, prompt_steps=4, steps=20)
    ((given, target),) = written
    assert not len(given.notes)
    assert not given.tracks
    assert target.length == 20
    generation.write_samples(written, tmp_path / "a.mid", tmp_path / "a.png")
    assert len(read_midi(tmp_path / "a.mid").notes) == len(target.notes)


def test_a_sample_without_a_note_is_told(file, tmp_path):
    writer = model("continuation")
    bias = writer.system.lm.head.bias
    bias[...] = bias[...].at[PLAIN.eos].set(1e6)
    pretrained.save(writer, tmp_path / "silent")
    pretrained.save(model("continuation"), tmp_path / "lively")
    prompted = ("--prompt", "4", "--steps", "8")
    for name, told, how in (
        ("silent", True, ("--steps", "4")),
        ("silent", True, prompted),
        ("lively", False, prompted),
    ):
        out = tmp_path / f"{name}.mid"
        answer = m4m(
            *("generate", "continuation", str(file), "--model", str(tmp_path / name)),
            *("-o", str(out), *how),
        )
        assert (answer.status, answer.out) == (0, f"{out}\n")
        assert answer.err.startswith(f"m4m: warning: {out}: no note was written;") == told
        assert answer.err.count("\n") == told


def test_names_of_parts_and_another_reference(file):
    source = read_midi(file)
    named = model("chord-to-melody", chords="track-0")
    ((by_name, _),) = generation.generate(named, source, reference="chords")
    ((by_number, _),) = generation.generate(named, source, reference="track-0")
    assert by_name == by_number
    assert {t.name for t in by_name.tracks} == {"part 0"}


class Seen:
    """What a model's `generate` was given."""

    def __init__(self, model: Model, monkeypatch):
        write = Model.generate

        def spy(self, reference=None, **options):
            seen.reference, seen.options = reference, options
            seen.written = write(self, reference, **options)
            return seen.written

        seen = self
        monkeypatch.setattr(Model, "generate", spy)


def rows_of(table: NoteTable, part: str, ratio: int) -> np.ndarray:
    """A part's compressed token rows, N = 4."""
    rows = to_rows(select(table, part).notes, table.length, 4)
    return to_tokens(compress_rows(rows, ratio))


def test_a_compressed_reference_is_read_as_in_training(file, monkeypatch):
    source, coarse = read_midi(file), model("chord-to-melody", Compression(reference=4))
    seen = Seen(coarse, monkeypatch)
    ((given, target),) = generation.generate(coarse, source, steps=30)
    assert np.array_equal(seen.reference, rows_of(source, "track-1", 4))
    assert target.length == len(seen.written[0]) == 30
    assert len(given.notes) == len(select(source, "track-1").notes)


def test_a_compressed_target_is_spread_out_again(file, tmp_path, monkeypatch):
    source, coarse = read_midi(file), model("chord-to-melody", Compression(target=2))
    seen = Seen(coarse, monkeypatch)
    ((_, target),) = written = generation.generate(coarse, source, steps=31, prompt_steps=6)
    assert np.array_equal(seen.reference, rows_of(source, "track-1", 1))
    assert np.array_equal(seen.options["prompt"], rows_of(source, "track-0", 2)[:3])
    # 16 rows for 31 steps, past a window of 12 steps, which holds 6.
    assert seen.written.shape[1] == 16
    assert target.length == 31
    narrow = from_rows(from_tokens(seen.written[0])).notes
    assert len(narrow)
    assert np.array_equal(target.notes[:, 0], 2 * narrow[:, 0])
    assert np.array_equal(target.notes[:, 1], 2 * narrow[:, 1])
    generation.write_samples(written, tmp_path / "out.mid")
    made = [t.name == "melody" for t in read_midi(tmp_path / "out.mid").tracks]
    assert any(made)


def test_a_ratio_of_one_writes_the_same(file):
    source = read_midi(file)
    plain = generation.generate(model("chord-to-melody"), source, seed=3, steps=30)
    same = generation.generate(
        model("chord-to-melody", Compression(1, 1)), source, seed=3, steps=30
    )
    assert plain == same


@pytest.mark.parametrize("ratio", [1, 2])
def test_songs_begin_on_a_bar_where_training_windows_did(ratio):
    """One that begins with part of a bar is written as if the rest of the bar were silent."""
    trained = model("chord-to-melody", Compression(reference=ratio))
    trained = dataclasses.replace(trained, card=trained.card.model_copy(update={"starts": "bars"}))
    pickup = song(2, bars=2).replace(meters=np.array([[0.0, 1.0, 4.0], [4.0, 2.0, 4.0]]))
    notes = pickup.notes.copy()
    notes[:, 0] += 4
    whole = pickup.replace(
        notes=notes, length=pickup.length + 4, meters=np.array([[0.0, 2.0, 4.0]])
    )
    ((_, written),) = generation.generate(trained, pickup, seed=1)
    ((_, longer),) = generation.generate(trained, whole, seed=1, prompt_steps=4)
    assert len(written.notes)
    moved = longer.notes - [4, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(written.notes[:, :5], moved[moved[:, 0] >= 0][:, :5])
    plain = dataclasses.replace(
        trained, card=trained.card.model_copy(update={"starts": "anywhere"})
    )
    ((_, other),) = generation.generate(plain, pickup, seed=1)
    assert other.notes.tolist() != written.notes.tolist()
    message = refused(trained, pickup, prompt_steps=8)
    assert "a prompt of 8 steps leaves nothing to write of a window of 8" in message


@pytest.mark.parametrize("ratios", [(1, 1), (2, 2), (4, 2), (1, 4)])
def test_an_analysis_finds_the_bars_itself(ratios, monkeypatch):
    """A pickup of one beat: windows begin three beats before it, whether the meters tell or not."""
    about = {"reference": "all", "target": "upto-1", "task": "analysis", "starts": "bars"}
    heard, wrote = ratios
    trained = model("chord-to-melody", Compression(*ratios))
    card = trained.card.model_copy(update={**about, "window": 24})
    trained = dataclasses.replace(trained, card=card)
    vocabulary = trained.system.lm.vocabulary
    seen = Seen(trained, monkeypatch)
    labels = ["C:maj", "F:maj", "G:7", "C:maj"] * 2
    music = play(labels, 16, meter=(4, 4))
    notes = music.notes + np.array([4, 0, 0, 0, 0, 0], np.int32)
    for meters in ([[0, 1, 4], [4, 4, 4]], [[0, 4, 4]], np.zeros((0, 3))):
        song = music.replace(
            notes=notes, length=music.length + 4, meters=np.array(meters, float).reshape(-1, 3)
        )
        ((_, found),) = generation.generate(trained, song)
        assert seen.options["starts"][:3].tolist() == [0, 16, 32]
        before, rows = np.split(seen.reference, [12 // heard])
        assert (before[:, 0] == vocabulary.eos).all()
        given = compress_rows(to_rows(song.notes, song.length, 4), heard)
        assert np.array_equal(rows, to_tokens(given))
        assert seen.options["steps"] == (song.length + 12) // wrote
        assert found == generation.as_tracks(
            seen.written[0, 12 // wrote :], song, "generated", vocabulary, ratio=wrote
        ).replace(length=song.length)
        assert len(found.notes)


def test_a_prompt_in_the_common_key_is_given_back():
    """Of a language model, which has read chords of that name in their octave."""
    card = model("continuation").card.model_copy(update={"common_key": True})
    trained = dataclasses.replace(model("continuation"), card=card)
    rows = [[0, 4, 57], [0, 4, 61], [4, 4, 50], [4, 4, 54]]
    notes = np.array([[*row, 0, 90, 0] for row in rows], np.int32)
    music = NoteTable(notes, (Track("chords", 0),), 16)
    assert to_common_key(notes)
    ((_, whole),) = generation.generate(trained, music, prompt_steps=8)
    assert whole.notes[whole.notes[:, 0] < 8, :3].tolist() == rows


def test_a_model_hears_the_harmony_of_a_band(monkeypatch):
    card = model("others-to-drums").card
    trained = dataclasses.replace(
        model("others-to-drums"), card=card.model_copy(update={"harmony_by_quarter": True})
    )
    band = with_drums()
    seen = Seen(trained, monkeypatch)
    ((given, _),) = generation.generate(trained, band)
    heard = select(band, "nondrum")
    assert np.array_equal(given.notes, heard.notes)
    rows = to_rows(harmony_by_quarter(heard.notes, heard.length), heard.length, 4)
    assert np.array_equal(seen.reference, to_tokens(rows))
    message = refused(trained, band, reference="drum", name="a song")
    assert message == "a song: the model reads no drums, and what it is given has only drums"


def test_chords_are_written_quarter_by_quarter_and_tied(monkeypatch):
    card = model("melody-to-chord").card.model_copy(update={"harmony_by_quarter": True})
    trained = dataclasses.replace(model("melody-to-chord"), card=card)
    notes = [[0, 8, 67, 0, 90, 0], [2, 8, 48, 0, 90, 1], [2, 8, 52, 0, 90, 1]]
    tracks = (Track("melody", 0), Track("chords", 0))
    music = NoteTable(np.array(notes, np.int32), tracks, 16)
    seen = Seen(trained, monkeypatch)
    ((_, whole),) = generation.generate(trained, music, prompt_steps=11)
    strikes = struck(select(music, "track-1"))
    rows = to_rows(strikes.notes, 16, card.max_notes)
    assert np.array_equal(seen.options["prompt"], to_tokens(rows)[:11])
    assert len(strikes.notes) == 6
    first = whole.notes[whole.notes[:, 0] < 11, :3].tolist()
    assert first == [[2, 8, 48], [2, 8, 52]]


def test_what_compression_does_not_allow(file):
    source = read_midi(file)
    message = refused(model("chord-to-melody", Compression(target=4)), source, prompt_steps=6)
    assert "a prompt of 6 steps is no multiple of 4" in message
    late = source.notes.copy()
    late[:, 0] |= 1
    late = source.replace(notes=late)
    coarse = model("chord-to-melody", Compression(reference=2))
    message = refused(coarse, late, name=str(file))
    assert message.startswith(str(file))
    assert "multiples of 2" in message


def test_arguments_that_mean_nothing():
    table = song(1, bars=2)
    message = refused(model("continuation"), table, reference="track-1", steps=40)
    assert message == "a language model reads no reference; leave 'track-1' out"
    message = refused(model("chord-to-melody"), table, prompt_steps=36, steps=40, name="a song")
    assert message == "a song: there is no prompt of 36 steps in a song of 32"


def test_mistakes_name_the_file(file):
    source, cross = read_midi(file), model("chord-to-melody")
    message = refused(cross, source, name=str(file), reference="track-7")
    assert message.startswith(str(file))
    assert "track-7" in message
    message = refused(cross, source.replace(tracks=source.tracks), "drums-to-others", name="x")
    assert "trained for chord-to-melody, not for drums-to-others" in message
    empty = with_drums()
    lone = empty.replace(notes=empty.notes[empty.notes[:, 5] == 2])
    message = refused(model("others-to-drums"), lone, name=str(file))
    assert str(file) in message
    assert "128" in refused(cross, source, programs=[128])
    assert "did you mean 'chord-to-melody'" in refused(cross, source, "chord-to-melodi")
    message = refused(cross, source, prompt_steps=9999)
    assert f"a prompt of 9999 steps leaves nothing to write of {source.length}" in message
    message = refused(cross, source, prompt_steps=12)
    assert "a prompt of 12 steps leaves nothing to write" in message


def classes(table: NoteTable, shift: int = 0) -> list[tuple[int, ...]]:
    """Notes moved in pitch, whatever their octave: step, duration, pitch class, program."""
    pitched = table.notes[:, 3] != 127
    pitch = np.where(pitched, (table.notes[:, 2] + shift) % 12, table.notes[:, 2])
    return sorted(zip(*table.notes[:, [0, 1, 3]].T.tolist(), pitch.tolist(), strict=True))


@pytest.mark.parametrize("task", ["melody-to-chord", "continuation"])
def test_a_song_in_another_key_is_written_to_alike(task, monkeypatch):
    about = model(task).card.model_copy(update={"common_key": True})
    trained = dataclasses.replace(model(task), card=about)
    options = {"prompt_steps": 8, "seed": 3, "temperature": 1.0}
    table = moved(song(1, bars=2), 1)
    seen = Seen(trained, monkeypatch)
    ((given, here),) = generation.generate(trained, table, **options)
    read, begun = seen.reference, seen.options["prompt"]
    heard = given.notes if task == "melody-to-chord" else table.notes[table.notes[:, 0] < 8]
    key = to_common_key(heard)
    assert key
    for shift in (key - 3, key + 2):
        ((_, there),) = generation.generate(trained, moved(table, shift), **options)
        assert np.array_equal(seen.reference, read)
        assert np.array_equal(seen.options["prompt"], begun)
        assert classes(there) == classes(here, shift)
    plain = dataclasses.replace(trained, card=model(task).card)
    generation.generate(plain, moved(table, key), **options)
    assert np.array_equal(seen.reference, read)
    assert np.array_equal(seen.options["prompt"], begun)
