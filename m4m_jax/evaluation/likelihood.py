"""How likely parts are: under a model that is given the reference, and under the LM alone."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from etils import epath

from m4m_jax.data.windows import as_read, whole_bars
from m4m_jax.errors import M4MError
from m4m_jax.evaluation.scoring import Figures
from m4m_jax.music.compression import compress_rows
from m4m_jax.music.keys import Part
from m4m_jax.music.notes import NoteTable
from m4m_jax.music.parts import chord_tracks
from m4m_jax.music.simunote import to_rows, to_tokens
from m4m_jax.music.tasks import chords_of
from m4m_jax.pretrained import Model, base_path, load
from m4m_jax.sampling.songs import empty_rows, fill

_VERSION = 3
"""Raised whenever other figures come from the same parts."""

_BATCH = 4
"""Windows that are read at once; the last batch of a part is filled up with empty ones."""


def language_model(
    model: Model, path: epath.PathLike, base: epath.PathLike | None = None
) -> Model | None:
    """The language model that a model at `path` was trained on: itself, where it is one.

    base: where it is, if given. None for a model that has none, or whose base is not to be found.
    """
    if model.card.system == "lm":
        return model
    if base is not None:
        return load(base)
    if model.card.base is None:
        return None
    try:
        return load(base_path(model.card.base, path))
    except M4MError:
        return None


class Likelihoods:
    """Figures of parts under a model and a language model.

    A part is read in windows of the trained length, each from its own beginning, with the notes
    that the model's N leaves of a step. Where a model's windows begin on bars, a song that begins
    with part of one is read from the whole bar, as it would be written. What was computed is kept
    in a file, by what it was computed from.
    """

    def __init__(self, model: Model, lm: Model | None, kept: epath.PathLike, skip: int = 0):
        """kept: a file of JSON lines, made if there is none. skip: as in `figures`."""
        self._model, self._lm, self._skip = model, lm, skip
        self._file = epath.Path(kept)
        text = self._file.read_text() if self._file.exists() else ""
        # What was cut off in the middle of a line is computed again.
        lines = text[: text.rfind("\n") + 1].splitlines()
        self._kept: dict[str, Figures] = dict(map(json.loads, lines))
        if text and not text.endswith("\n"):
            self._file.write_text("".join(f"{line}\n" for line in lines))

    def __call__(self, part: NoteTable, reference: NoteTable | None) -> Figures:
        """`nll_token`, `nll_step` and `lm_perplexity` of a target part; see `figures`."""
        given = [[_VERSION], part.notes, part.meters, [part.length, self._skip]]
        if reference is not None:
            given += [reference.notes, [reference.length]]
        names = [track.name for track in part.tracks]  # which tell what is block chords
        data = b"|".join(np.asarray(x, np.float64).tobytes() for x in given)
        data += json.dumps(names).encode()
        key = hashlib.sha256(data).hexdigest()[:24]
        if key not in self._kept:
            self._kept[key] = figures(self._model, self._lm, part, reference, self._skip)
            with self._file.open("a") as file:
                file.write(json.dumps([key, self._kept[key]]) + "\n")
        return self._kept[key]


def figures(
    model: Model, lm: Model | None, part: NoteTable, reference: NoteTable | None, skip: int = 0
) -> Figures:
    """The likelihood of a target part, in nats and as perplexity.

    nll_token: the mean NLL of its tokens under the model given the reference; nll_step: the sum
    over its steps. lm_perplexity: exp of the mean NLL of its tokens under the language model alone.
    The first `skip` steps are read, and not counted. What cannot be said, for want of a reference
    or a language model, is left out.
    """
    found: Figures = {}
    if reference is not None or model.card.system == "lm":
        total, count = nll(model, part, reference, skip)
        if count:
            found |= {"nll_token": total / count, "nll_step": total / (part.length - skip)}
    if lm is not None:
        total, count = nll(lm, part, None, skip, chords_of(model.card.task))
        if count:
            found["lm_perplexity"] = float(np.exp(total / count))
    return found


def nll(
    model: Model,
    part: NoteTable,
    reference: NoteTable | None,
    skip: int = 0,
    chords: Part | None = None,
) -> tuple[float, int]:
    """The NLL of a part's tokens from step `skip` on, summed up in nats, and their number.

    chords: for a language model, "target" where the part is block chords; by default that is asked
    of the names of the part's tracks.
    """
    card = model.card
    read = reference if card.reference else None
    of_chords: Part | np.ndarray | None = chords_of(card.task) or chords
    if read is None and of_chords is None:
        of_chords = chord_tracks(part, card.parts)
    read, part, _ = as_read(
        read,
        part,
        of_chords,
        common_key=card.common_key,
        harmony_by_quarter=card.harmony_by_quarter,
    )
    ratios = card.compress
    lead = -_first_start(model, part)
    target = _windows(model, part, part.length, ratios.target, lead)
    given = None
    if read is not None:
        given = _windows(model, read, part.length, ratios.reference, lead)
    counted = slice(-(-(lead + skip) // ratios.target), -(-(lead + part.length) // ratios.target))
    found = [np.zeros((0, target.shape[-1]))]
    for start in range(0, len(target), _BATCH):
        batch = slice(start, start + _BATCH)
        values = model.token_nll(target[batch], None if given is None else given[batch])
        found.append(values.reshape(-1, values.shape[-1]))
    rows = target.reshape(-1, target.shape[-1])[counted]
    total = np.concatenate(found)[counted].sum(dtype=np.float64)
    return float(total), int((rows != model.system.lm.vocabulary.pad).sum())


def _first_start(model: Model, part: NoteTable) -> int:
    """Where a song's first window begins: 0, or before a first bar that is not whole."""
    if model.card.starts == "anywhere":
        return 0
    return int(whole_bars(part, model.card.window, model.card.compress.stride)[0])


def _windows(model: Model, part: NoteTable, length: int, ratio: int, lead: int) -> np.ndarray:
    """Token rows of a part's windows, int32 [W, window / ratio, 2N]; empty rows after its end.

    The first window begins `lead` empty steps before the part. W is a multiple of `_BATCH`.
    """
    card, vocabulary = model.card, model.system.lm.vocabulary
    notes = part.notes[part.notes[:, 0] < length]
    rows = to_rows(notes, length, card.max_notes, dedup=card.dedup)
    tokens = to_tokens(compress_rows(rows, ratio), vocabulary)
    silence = empty_rows(lead // ratio, tokens.shape[1], vocabulary)
    tokens = np.concatenate([silence, tokens])
    steps = card.window // ratio
    number = -(-len(tokens) // (steps * _BATCH)) * _BATCH
    if not len(tokens):
        return empty_rows(0, 2 * card.max_notes, vocabulary).reshape(0, steps, 2 * card.max_notes)
    return fill(tokens, number * steps, vocabulary).reshape(number, steps, -1)
