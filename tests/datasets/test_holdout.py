"""One song in several data sets is in one split."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from m4m_jax import datasets
from m4m_jax.music import Track, seconds_at, write_midi
from m4m_jax.music.labels import Label, write_lab
from tests.datasets.music import song

SONGS = 24


def piano(seed):
    table = song(seed)
    notes = table.notes * [1, 1, 1, 0, 1, 1]
    return table.replace(notes=notes, tracks=(Track("piano", 0), Track("chords", 0)))


CALLED = {"chords": "MIDI 01"}
"""Another name that a part goes by."""


def disguised(table, seed):
    """The same notes under other names, louder, in another tempo and metre, a little longer."""
    rng = np.random.default_rng(seed)
    notes = table.notes.copy()
    notes[:, 4] = rng.integers(1, 128, len(notes))
    return table.replace(
        notes=notes,
        tracks=tuple(Track(CALLED.get(t.name, t.name), t.program) for t in table.tracks),
        tempos=np.array([[0.0, 60 + seed]]),
        meters=np.array([[0.0, 3.0, 4.0]]),
        length=table.length + 3,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Data sets of the same songs, as files differ; name -> content -> split."""
    root = tmp_path_factory.mktemp("holdout")
    folders = {name: root / name for name in ("plain", "disguised", "rwc")}
    for folder in folders.values():
        folder.mkdir()
    for seed in range(SONGS):
        table = piano(seed)
        write_midi(table, folders["plain"] / f"{seed:02}.mid")
        write_midi(disguised(table, seed), folders["disguised"] / f"x{SONGS - seed:02}.mid")
        write_midi(table, folders["rwc"] / f"{seed:02}.mid")
        end = float(seconds_at(table, np.array([table.length]))[0])
        write_lab([Label(0, end, "C:maj")], folders["rwc"] / f"{seed:02}.lab")
    archive = shutil.make_archive(str(root / "songs"), "zip", folders["disguised"])
    sources = {
        "midi_folder/plain": folders["plain"],
        "los_angeles": archive,
        "los_angeles/first_12": archive,
        "lakh": folders["disguised"],
        "pop909_cl": folders["plain"],
        "pop909_cl/analysis": folders["disguised"],
        "rwc_pop": folders["rwc"],
    }
    found = {}
    for name, source in sources.items():
        datasets.build(name, source, root / "data", workers=1)
        splits = {
            s: datasets.open_split(name, s, root / "data") for s in ("train", "validation", "test")
        }
        found[name] = {
            songs.song(i).content: split
            for split, songs in splits.items()
            for i in range(len(songs))
        }
    return found


def test_all_data_sets_agree(built):
    everywhere = built["midi_folder/plain"]
    assert len(everywhere) == SONGS
    assert set(everywhere.values()) == {"train", "validation", "test"}
    for name, splits in built.items():
        assert len(splits) == (12 if name.endswith("first_12") else SONGS)
        assert splits.items() <= everywhere.items()


def test_a_song_is_kept_once_however_it_is_disguised(tmp_path):
    for seed in range(3):
        write_midi(song(seed), tmp_path / f"{seed}.mid")
        write_midi(disguised(song(seed), seed), tmp_path / f"again{seed}.mid")
    report = datasets.build("midi_folder", tmp_path, tmp_path / "data", workers=1)
    assert report.kept == 3
    # The first by name stays.
    assert set(report.rejected["duplicate"]) == {f"again{seed}.mid" for seed in range(3)}
