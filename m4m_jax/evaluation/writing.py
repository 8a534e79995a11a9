"""Samples of a model for every song, as MIDI files; what is there already is not written again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from etils import epath
from flax import nnx

from m4m_jax import generation
from m4m_jax.errors import M4MError
from m4m_jax.evaluation.draws import Draws
from m4m_jax.evaluation.judging import Setting
from m4m_jax.evaluation.pairing import LeftOut, Source
from m4m_jax.files import atomic_path
from m4m_jax.models import parameters
from m4m_jax.music.notes import NoteTable, write_midi
from m4m_jax.pretrained import Model

_SETTINGS = "settings.json"


@dataclass(frozen=True)
class Written:
    """What was written: the stems of the songs, what was left out."""

    stems: list[str]
    left_out: list[LeftOut]


def settle(out: epath.Path, settings: Mapping[str, Any]) -> None:
    """Note what samples in a folder are made of, or see that it is what they were made of.

    Raises:
        M4MError: the folder has samples made otherwise; the message says what differs.
    """
    path = out / _SETTINGS
    wanted = json.loads(json.dumps(settings))
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(wanted, indent=1) + "\n")
        return
    there = json.loads(path.read_text())
    for name in sorted(there.keys() | wanted.keys()):
        if there.get(name) != wanted.get(name):
            raise M4MError(
                f"{out} holds samples made with {name} {there.get(name)}, not {wanted.get(name)};"
                " give the same, or another folder with -o"
            )


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
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Written:
    """Write a model's samples to the first songs, up to `limit`, as `STEM_1.mid` and so on.

    A song that the model can write nothing to is left out; it does not count.
    """
    stems = songs.stems()
    done: list[str] = []
    left_out: list[LeftOut] = []
    total = len(stems) if limit is None else min(limit, len(stems))
    for stem in stems:
        if len(done) == total:
            break
        paths = [folder / f"{stem}_{k + 1}.mid" for k in range(draws.samples)]
        try:
            if not all(path.exists() for path in paths):
                _write(setting, model, setting.read(songs, stem), stem, paths, draws)
        except M4MError as error:
            left_out.append(LeftOut(stem, str(error)))
            continue
        done.append(stem)
        progress(len(done), total)
    return Written(done, left_out)


def _write(
    setting: Setting,
    model: Model,
    song: NoteTable,
    stem: str,
    paths: list[epath.Path],
    draws: Draws,
) -> None:
    written = generation.generate(
        model, song, setting.task, name=stem, reference=setting.views.reference, **asdict(draws)
    )
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for path, parts in zip(paths, written, strict=True):
        write_midi(NoteTable.concat(list(parts)), path)
