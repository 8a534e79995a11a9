"""From a MIDI file to a MIDI file: the target that a model writes to a song."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath

from m4m_jax.analysis.meter import find_meters
from m4m_jax.data.windows import as_read, whole_bars
from m4m_jax.errors import M4MError
from m4m_jax.models.card import Card
from m4m_jax.music.compression import compress_rows, stretch
from m4m_jax.music.inspect import select_notes
from m4m_jax.music.instruments import checked_program
from m4m_jax.music.keys import moved
from m4m_jax.music.notes import DRUM_PROGRAM, STEP, TRACK, NoteTable, Track, write_midi
from m4m_jax.music.reduction import tied
from m4m_jax.music.simunote import Vocabulary, from_rows, from_tokens, to_rows, to_tokens
from m4m_jax.music.tasks import ANALYSIS, UNKNOWN, as_drawn, chords_of, get_task, written_name
from m4m_jax.plot import piano_roll
from m4m_jax.pretrained import Model
from m4m_jax.sampling.sampler import well_formed
from m4m_jax.sampling.songs import empty_rows


def as_tracks(
    tokens: np.ndarray,
    song: NoteTable,
    name: str,
    vocabulary: Vocabulary,
    *,
    ratio: int = 1,
    steps: int | None = None,
) -> NoteTable:
    """Token rows int32 [T, 2N] as a table of `song`'s tempo and metre, its tracks called `name`.

    ratio: how many steps of the song a row stands for. steps: length of the table (default: all).
    """
    table = from_rows(from_tokens(tokens, vocabulary))
    table = stretch(table, ratio, len(tokens) * ratio if steps is None else steps)
    tracks = tuple(Track(name, t.program, t.is_drum) for t in table.tracks)
    return table.replace(tracks=tracks, tempos=song.tempos, meters=song.meters)


def generate(
    model: Model,
    song: NoteTable,
    task: str | None = None,
    *,
    name: str = "this song",
    reference: str | None = None,
    prompt_steps: int = 0,
    steps: int | None = None,
    programs: Iterable[int] | None = None,
    samples: int = 1,
    seed: int = 0,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
) -> list[tuple[NoteTable, NoteTable]]:
    """Write the target of a task to a song.

    What was compressed in training is so here: of a reference with ratio r the model reads every
    r-th step; a target with ratio r is written at every r-th step, its durations r times as long.
    Where its windows began on bars, those that it writes do, from a whole first bar on; for an
    analysis, whose bars are to be found, they are those that the rules find (`find_meters`), and
    the steps before the song that make the first whole are written with it, and cut off. A model of
    the common key reads the song there, and what it writes is moved back to the song's. Chords that
    it writes quarter by quarter are `tied`, those that were given as a prompt too.

    Args:
        model: as `load` gives it.
        song: whose part is read; its tempo and metre are the target's.
        task: one that the model was trained for; its own, or the first of several, by default.
        name: what errors call the song.
        reference: the part that is read (default: as in training).
        prompt_steps: so many steps of the song's own target part (of all of it, for a language
            model) begin the target.
        steps: length of the target (default: the song's).
        programs: the only instruments to write for (drums are 127), by default all, or those that
            a target `drum` or `nondrum` may have; the rows written are well-formed in any case.
        temperature, top_p: by default those of the task; a top_p of 1 leaves all tokens.
        samples, seed, top_k: as in `Model.generate`.

    Returns:
        For each sample the reference (without tracks where there is none) and the target.

    Raises:
        M4MError: the song has no such part, it is not the model's task, or as `Model.generate`.
    """
    card, vocabulary = model.card, model.system.lm.vocabulary
    ratio, steps = card.compress.target, steps or song.length
    check_task(card.tasks, task)
    card = card.of_task(task or card.task)
    temperature, top_p = as_drawn(card.task, temperature, top_p)
    _check_prompt(prompt_steps, steps, song, ratio, name)
    given, heard, prompt = _given(song, card, reference, name), None, None
    read, begun = given if card.reference else None, _begun(song, card, prompt_steps, name)
    chords = chords_of(card.task)
    read, begun, key = as_read(
        read,
        begun,
        chords,
        common_key=card.common_key,
        harmony_by_quarter=card.harmony_by_quarter,
    )
    if read is not None:
        heard = _tokens(_heard(read, card, name), card, card.compress.reference, vocabulary)
    if prompt_steps:
        prompt = _tokens(begun, card, ratio, vocabulary)[: prompt_steps // ratio]
    starts, lead = _starts(song, given, card), 0
    if heard is not None and card.task == ANALYSIS and starts is not None and not prompt_steps:
        lead = -int(starts[0])
        starts, heard = starts + lead, _after(lead, heard, card, vocabulary)
    written = model.generate(
        heard,
        steps=-(-(steps + lead) // ratio),
        prompt=prompt,
        samples=samples,
        seed=seed,
        temperature=temperature,
        top_k=top_k,
        top_p=None if top_p == 1 else top_p,
        allowed=well_formed(vocabulary, _allowed(programs, card.target)),
        starts=starts,
    )[:, lead // ratio :]
    given, label = without_silent_tracks(given), written_name(card.task)
    tables = [
        as_tracks(rows, song, label, vocabulary, ratio=ratio, steps=steps) for rows in written
    ]
    tables = [moved(table, -key, chords=chords == "target") for table in tables]
    if card.harmony_by_quarter and chords == "target":
        tables = [tied(table) for table in tables]
    return [(given, table) for table in tables]


def _check_prompt(prompt: int, steps: int, song: NoteTable, ratio: int, name: str) -> None:
    """M4MError where a prompt of so many steps does not go with what is written."""
    if prompt % ratio:
        raise M4MError(
            f"a prompt of {prompt} steps is no multiple of {ratio}, the steps of a song that the"
            " model writes as one"
        )
    if prompt >= steps:
        raise M4MError(f"a prompt of {prompt} steps leaves nothing to write of {steps}")
    if prompt > song.length:
        raise M4MError(f"{name}: there is no prompt of {prompt} steps in a song of {song.length}")


def _given(song: NoteTable, card: Card, reference: str | None, name: str) -> NoteTable:
    """The part of a song that a model is given, without tracks where it reads none."""
    if card.reference is None:
        if reference is not None:
            raise M4MError(f"a language model reads no reference; leave {reference!r} out")
        return song.replace(notes=song.notes[:0], tracks=())
    return select_notes(song, reference or card.reference, name, names=card.parts)


def _begun(song: NoteTable, card: Card, steps: int, name: str) -> NoteTable:
    """The first steps of a song's own target part, which is not looked for where there are none."""
    if not steps:
        return song.replace(notes=song.notes[:0])
    part = select_notes(song, card.target, name, names=card.parts)
    return part.replace(notes=part.notes[part.notes[:, STEP] < steps])


def _heard(given: NoteTable, card: Card, name: str) -> NoteTable:
    """What a model reads of the part that it is given; M4MError where it reads no note of it."""
    ratio = card.compress.reference
    if card.harmony_by_quarter and not len(given.notes):
        raise M4MError(f"{name}: the model reads no drums, and what it is given has only drums")
    if not (given.notes[:, STEP] % ratio == 0).any():
        raise M4MError(
            f"{name}: the model reads only steps that are multiples of {ratio}, and no note of what"
            " it is given starts on one"
        )
    return given


def _starts(song: NoteTable, given: NoteTable, card: Card) -> np.ndarray | None:
    """Where windows begin, int64 [k], as they did in training; None for anywhere."""
    if card.starts == "anywhere":
        return None
    if card.task == ANALYSIS:
        song = given.replace(meters=find_meters(given))
    return whole_bars(song, card.window, card.compress.stride)


def _after(lead: int, heard: np.ndarray, card: Card, vocabulary: Vocabulary) -> np.ndarray:
    """A reference's token rows after so many silent steps, which make a first bar whole.

    An analysis begins with that bar, as the songs that it was learned from begin with one, and what
    is before the song is cut off again. Beats that were silent until then would stay so.
    """
    before = empty_rows(lead // card.compress.reference, heard.shape[1], vocabulary)
    return np.concatenate([before, heard])


def _tokens(part: NoteTable, card: Card, ratio: int, vocabulary: Vocabulary) -> np.ndarray:
    """Token rows int32 [T / ratio, 2N] of a part, as a model takes them."""
    rows = to_rows(part.notes, part.length, card.max_notes, dedup=card.dedup)
    return to_tokens(compress_rows(rows, ratio), vocabulary)


def without_silent_tracks(table: NoteTable) -> NoteTable:
    """The table with only those tracks that have notes, numbered anew."""
    used, track = np.unique(table.notes[:, TRACK], return_inverse=True)
    notes = table.notes.copy()
    notes[:, TRACK] = track
    return table.replace(notes=notes, tracks=tuple(table.tracks[k] for k in used))


def check_task(trained: Sequence[str], wanted: str | None) -> None:
    """M4MError where a model is asked for a task that it was not trained for."""
    if wanted is not None and UNKNOWN in trained:
        raise M4MError(
            "the weights do not tell what they were trained for; "
            f"say so with m4m convert to-flax --task {wanted}"
        )
    if wanted is not None and get_task(wanted).name not in trained:
        raise M4MError(f"the model was trained for {', '.join(trained)}, not for {wanted}")


def _allowed(programs: Iterable[int] | None, target: str) -> np.ndarray | None:
    """Programs as a mask bool [128]; by default those that the target's selector can select."""
    mask = np.zeros(128, bool)
    if programs is None:
        mask[DRUM_PROGRAM] = True
        return {"drum": mask, "nondrum": ~mask}.get(target)
    for program in programs:
        mask[checked_program(program)] = True
    return mask


def write_samples(
    written: Sequence[tuple[NoteTable, NoteTable]],
    out: epath.PathLike,
    plot: epath.PathLike | None = None,
) -> list[epath.Path]:
    """Write each reference and target as one MIDI file; several are numbered, STEM_1 and so on.

    Args:
        written: as `generate` gives it.
        out: the MIDI file.
        plot: also draw the first sample as a piano roll, a PNG of this name.

    Returns:
        The paths written.

    Raises:
        M4MError: a file cannot be written.
    """
    out, paths = epath.Path(out), []
    for number, (reference, target) in enumerate(written, start=1):
        path = out if len(written) == 1 else out.with_name(f"{out.stem}_{number}{out.suffix}")
        write_midi(NoteTable.concat([reference, target]), path)
        paths.append(path)
    if plot is not None:
        reference, target = written[0]
        parts = {"reference": reference} if len(reference.notes) else {}
        piano_roll(parts | {"generated": target}, plot, out.stem)
        paths.append(epath.Path(plot))
    return paths
