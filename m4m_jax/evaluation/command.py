"""`m4m evaluate`: songs and samples in, a report out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from etils import epath

from m4m_jax.errors import M4MError
from m4m_jax.evaluation.distribution import distances
from m4m_jax.evaluation.draws import Draws
from m4m_jax.evaluation.judged import TRUTH, Judged
from m4m_jax.evaluation.judging import Setting, judge
from m4m_jax.evaluation.page.build import build
from m4m_jax.evaluation.pairing import Folder, LeftOut, Source, Split, Views
from m4m_jax.files import absolute, atomic_path, check_folder
from m4m_jax.music.tasks import Task, get_task, written_name
from m4m_jax.progress import progress_bar

if TYPE_CHECKING:
    from m4m_jax.models.card import Card

REPORT, PAGE = "report.json", "report.html"


def source(
    truth: epath.PathLike | None,
    data: str | None,
    split: str,
    data_dir: epath.PathLike | None,
) -> Source | None:
    """Where songs come from: a folder, a data set, or nowhere.

    Raises:
        M4MError: there is no such place, or two are named.
    """
    if truth is not None and data is not None:
        raise M4MError("--truth and --data both say where the songs are; give one of them")
    if data is not None:
        return Split(data, split, data_dir)
    return None if truth is None else Folder(truth)


def named_folders(given: Sequence[str]) -> dict[str, Folder]:
    """Folders written as DIR or NAME=DIR, by name; a folder without one has its own.

    Raises:
        M4MError: there is no such folder, or two have one name.
    """
    found: dict[str, Folder] = {}
    for text in given:
        name, equals, place = text.partition("=")
        if not equals or "/" in name:
            place, name = text, ""
        name = name or absolute(place).name
        if name in found or name == TRUTH:
            raise M4MError(f"--generated {text}: {name} is taken; give another name, NAME={place}")
        found[name] = Folder(place)
    return found


def parts_of_samples(given: Sequence[str], systems: Sequence[str]) -> dict[str, str]:
    """The parts of systems, written as PART for all or NAME=PART for one.

    Raises:
        M4MError: there is no such system, or none at all.
    """
    found: dict[str, str] = {}
    if given and not systems:
        raise M4MError(f"--target-part {given[0]}: it is of --generated folders; there are none")
    for text in given:
        name, equals, part = text.partition("=")
        if equals and name not in systems:
            raise M4MError(
                f"--target-part {text}: no system {name}; there are {', '.join(systems)}"
            )
        found |= {name: part} if equals else dict.fromkeys(systems, text)
    return found


def evaluate(
    task: str,
    out: epath.PathLike,
    songs: Source | None,
    generated: Sequence[str] = (),
    *,
    model: epath.PathLike | None = None,
    base: Sequence[epath.PathLike] = (),
    target_part: Sequence[str] = (),
    reference: str | None = None,
    target: str | None = None,
    draws: Draws | None = None,
    steps: int | None = None,
    limit: int | None = None,
) -> Judged:
    """Judge a model, and folders of samples beside it, and write the report to the folder `out`.

    task: its name. songs: what samples are compared with, and what the model writes to. generated:
    as for `named_folders`. model, base: as for `pretrained.load`; its samples are written to
    `out`/midi, and those that are there are not written again. target_part: of the folders'
    samples, as for `parts_of_samples`. reference, target: parts of the songs (default: as the model
    was trained, or the task's). draws: how the model's samples are drawn; the prompt is not judged,
    of folders' samples neither. steps: so much of each song is judged (default: all). limit: the
    first songs only.

    Raises:
        M4MError: nothing can be judged, no song has the part named, `out` is no folder, or as said
            above.
    """
    check_folder(out)
    systems, draws = named_folders(generated), (draws or Draws()).of_task(task)
    if not systems and model is None:
        raise M4MError("nothing to judge: give --model DIR or --generated NAME=DIR")
    own: Task | Card = get_task(task)
    names = {} if songs is None else dict(songs.parts)
    if model is not None:
        from m4m_jax.evaluation import model_side  # jax is heavy, and folders need none

        model_side.check(model, songs, systems)
        writer = model_side.load(model, base, task)
        own, names = writer.model.card, names | writer.model.card.parts
    views = Views(
        reference or own.reference,
        target or own.target,
        written_name(task),
        names,
        parts_of_samples(target_part, list(systems)),
    )
    setting = Setting(task, songs, systems, views, draws.prompt_steps, steps, limit)
    _check_given(setting, reference, target)
    only: list[str] | None = None
    left_out: list[LeftOut] = []
    if model is not None:
        side = model_side.write(setting, writer, epath.Path(out), draws)
        setting, only, left_out = side.setting, side.stems, side.left_out
    with progress_bar("judging") as progress:
        judged = judge(setting, only, progress)
    judged.left_out[:0] = left_out
    judged.settings |= _told(setting, draws if model is not None else None)
    judged.distances, remarks = distances(judged, skip=setting.skip)
    judged.notes += remarks
    write_report(judged, out)
    return judged


def _check_given(setting: Setting, reference: str | None, target: str | None) -> None:
    """Raise M4MError where a part that the user names is in no song at all."""
    for option, given in (("--reference", reference), ("--target", target)):
        if given is None or setting.songs is None:
            continue
        if (lacks := _lacked_by_all(setting, setting.songs, given)) is not None:
            raise M4MError(f"{option} {given}: no song has it; {lacks}")


def _lacked_by_all(setting: Setting, songs: Source, part: str) -> str | None:
    """Why the first song lacks a part, where all do; None where one has it, or none is read."""
    first = None
    for stem in songs.stems():
        try:
            reason = setting.views.part(setting.read(songs, stem), part)[1]
        except M4MError:  # such a song is left out when it is judged
            continue
        if reason is None:
            return None
        first = first or f"{stem}: {reason}"
    return first


def _told(setting: Setting, draws: Draws | None) -> dict[str, Any]:
    """How it was judged, as `report.json` has it."""
    return {
        "songs": None if setting.songs is None else setting.songs.about,
        "systems": {name: str(folder.path) for name, folder in setting.systems.items()},
        **{"prompt": setting.skip, "steps": setting.steps, "limit": setting.limit},
        "draws": None if draws is None else asdict(draws),
    }


def write_report(judged: Judged, out: epath.PathLike) -> None:
    """Write a report's files into a folder, which is made."""
    folder = epath.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    report = json.dumps(judged.as_json(), indent=1, allow_nan=False)
    for name, text in ((REPORT, report + "\n"), (PAGE, build(judged))):
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(text.encode())
