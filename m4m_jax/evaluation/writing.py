"""Samples of a model for every song, as MIDI files; what is there already is not written again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from etils import epath
from flax import nnx

from m4m_jax import generation
from m4m_jax.errors import M4MError
from m4m_jax.evaluation.draws import Draws
from m4m_jax.evaluation.judging import Setting
from m4m_jax.evaluation.pairing import Paired, Source, not_judged
from m4m_jax.files import atomic_path
from m4m_jax.models import parameters
from m4m_jax.music.notes import NoteTable, write_midi
from m4m_jax.music.tasks import ANALYSIS
from m4m_jax.pretrained import Model

_SETTINGS, _WRITTEN = "settings.json", "written"


class MadeOf:
    """What the samples in a folder are made of, as its `settings.json` has it.

    That file is there once a song's samples are: the settings, and under `written` a digest of
    each song, by its stem.
    """

    def __init__(self, out: epath.Path, settings: Mapping[str, Any]):
        """Raises M4MError where the folder has samples made otherwise, and says what differs."""
        self._path = out / _SETTINGS
        self._settings = json.loads(json.dumps(settings))
        self._written: dict[str, str] = {}
        if not self._path.exists():
            return
        there = self._read()
        self._written = there.pop(_WRITTEN)
        for name, wanted in self._settings.items():
            if there[name] != wanted:
                raise M4MError(
                    f"{out} holds samples made with {name} {there[name]}, not {wanted};"
                    " give the same, or another folder with -o"
                )

    def _read(self) -> dict[str, Any]:
        try:
            there = json.loads(self._path.read_bytes())
        except ValueError:
            there = None
        if not isinstance(there, dict) or there.keys() != {*self._settings, _WRITTEN}:
            raise M4MError(
                f"{self._path} does not tell what samples are made of; give another folder with -o"
            )
        return there

    def has(self, stem: str, song: NoteTable) -> bool:
        """Whether samples were written to just this song."""
        return self._written.get(stem) == _digest(song)

    def note(self, stem: str, song: NoteTable) -> None:
        """Note that a song's samples are written."""
        self._written[stem] = _digest(song)
        text = json.dumps({**self._settings, _WRITTEN: self._written}, indent=1)
        with atomic_path(self._path) as temporary:
            temporary.write_text(text + "\n")


def _digest(song: NoteTable) -> str:
    """A hash of all of a song."""
    arrays = [array.tolist() for array in (song.notes, song.tempos, song.meters)]
    return hashlib.sha256(repr([song.tracks, song.length, arrays]).encode()).hexdigest()[:16]


def settings_of(setting: Setting, model: Model, draws: Draws) -> dict[str, Any]:
    """What the samples of a model depend on."""
    return {
        "task": setting.task,
        "model": parameters.fingerprint(nnx.state(model.system))[:16],
        "songs": None if setting.songs is None else setting.songs.about,
        "reference": setting.views.reference,
        "steps": setting.steps,
        **asdict(draws),
    }


def write_samples(
    setting: Setting,
    songs: Source,
    model: Model,
    folder: epath.Path,
    draws: Draws,
    made_of: MadeOf,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Paired:
    """Write a model's samples to the first songs, up to the limit, as `STEM_1.mid` and so on.

    A song that the model can write nothing to is a stranger; it does not count.
    """
    stems = songs.stems()
    done: dict[str, list[str]] = {}
    left_out = []
    total = min(setting.limit or len(stems), len(stems))
    for stem in stems:
        if len(done) == total:
            break
        names = [f"{stem}_{k + 1}" for k in range(draws.samples)]
        paths = [folder / f"{name}.mid" for name in names]
        try:
            song = setting.read(songs, stem)
            if not made_of.has(stem, song) or not all(path.exists() for path in paths):
                _write(setting, model, song, stem, paths, draws)
                made_of.note(stem, song)
        except M4MError as error:
            left_out.append(not_judged(stem, error))
            continue
        done[stem] = names
        progress(len(done), total)
    return Paired(done, left_out)


def without_answer(song: NoteTable, task: str) -> NoteTable:
    """A song as a model is given it: of an analysis the meters are part of what is to be found."""
    return song.replace(meters=song.meters[:0]) if task == ANALYSIS else song


def _write(
    setting: Setting,
    model: Model,
    song: NoteTable,
    stem: str,
    paths: list[epath.Path],
    draws: Draws,
) -> None:
    written = generation.generate(
        model,
        without_answer(song, setting.task),
        setting.task,
        name=stem,
        reference=setting.views.reference,
        **asdict(draws),
    )
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for path in paths:
        path.unlink(missing_ok=True)  # of several, some of which are older, none is kept
    for path, parts in zip(paths, written, strict=True):
        write_midi(NoteTable.concat(list(parts)), path)
