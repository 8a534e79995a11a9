"""Part selectors: which notes of a song a view shows."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

import numpy as np

from m4m_jax.errors import M4MError
from m4m_jax.music.grid import STEPS_PER_QUARTER
from m4m_jax.music.notes import STEP, TRACK, NoteTable

SELECTORS = (
    *("all", "track-K", "upto-K", "from-K", "notrack-K", "drum", "nondrum"),
    *("random-0", "random-1", "dense", "sparse", "empty"),
)
_NUMBERED = re.compile(r"(track|upto|from|notrack)-(\d+)")

# Share of onsets on quarter notes at which a track counts as sparse, and what a song must hold on
# either side of it to be split by it.
_SPARSE_ABOVE = 0.75
_DENSE_BELOW, _CLEARLY_SPARSE_ABOVE = 0.7, 0.8


class NoSplitError(M4MError):
    """A song whose tracks cannot be split in the way asked for."""


def select(
    table: NoteTable,
    selector: str,
    *,
    names: Mapping[str, str] | None = None,
    seed: int | None = None,
) -> NoteTable:
    """Show only the notes of some parts.

    `all`; `track-K`; `upto-K` (tracks 0 to K); `from-K` (K and later); `notrack-K` (all but K);
    `drum`, `nondrum`; `random-0`, `random-1` (the two sides of a random split of the tracks);
    `dense`, `sparse` (tracks of whose onsets at most, or more than, three quarters fall on quarter
    notes); `empty` (no notes); a name that `names` defines; or the name of a track, whatever the
    case (of all tracks that share it). They are tried in the order: `names`, selector, track name.

    Args:
        table: The song.
        selector: One of those above.
        names: A data set's own names, and the selectors that they stand for.
        seed: Of the random split; both sides of one split have the same. When `None`, it comes from
            the song's own notes, so that a song is split the same way wherever that is done.

    Returns:
        A table with fewer notes; tracks and their numbers, length, tempo and metre stay. It has no
        notes where the song has none of that kind (no drums, say).

    Raises:
        M4MError: No such part, or (NoSplitError) the song cannot be split that way. The message
            lists its parts.
    """
    wanted = selected_tracks(table, selector, names=names, seed=seed)
    return table.replace(notes=table.notes[wanted[table.notes[:, TRACK]]])


def selected_tracks(
    table: NoteTable,
    selector: str,
    *,
    names: Mapping[str, str] | None = None,
    seed: int | None = None,
) -> np.ndarray:
    """The tracks that `select` shows, bool [tracks]."""
    names = names or {}
    wanted = _wanted_tracks(table, names.get(selector, selector), seed)
    if wanted is None:
        offered = ", ".join([*names, *SELECTORS, "a track's name"])
        raise M4MError(
            f"no part {selector!r}; choose from {offered}; this song has {list_parts(table)}"
        )
    return wanted


def chord_tracks(table: NoteTable, names: Mapping[str, str] | None = None) -> np.ndarray:
    """The tracks that are said to be block chords, bool [tracks].

    Those that the data set's `names` or the tracks' own call `chords`; none where none are.
    """
    try:
        return selected_tracks(table, "chords", names=names)
    except M4MError:
        return np.zeros(len(table.tracks), bool)


def _wanted_tracks(table: NoteTable, selector: str, seed: int | None) -> np.ndarray | None:
    """Mask of the tracks that a selector shows, bool [tracks]; None where it means nothing."""
    number = np.arange(len(table.tracks))
    drums = np.array([t.is_drum for t in table.tracks], bool)
    if match := _NUMBERED.fullmatch(selector):
        k = int(match[2])
        if k >= len(table.tracks):
            raise M4MError(f"no part {selector!r}; this song has {list_parts(table)}")
        return {"track": number == k, "upto": number <= k, "from": number >= k}.get(
            match[1], number != k
        )
    if selector in ("random-0", "random-1"):
        return _random_side(table, seed) == (selector == "random-1")
    if selector in ("dense", "sparse"):
        return _is_sparse(table) == (selector == "sparse")
    fixed = {
        "all": np.ones(len(number), bool),
        "empty": np.zeros(len(number), bool),
        "drum": drums,
        "nondrum": ~drums,
    }
    if selector in fixed:
        return fixed[selector]
    wanted = selector.strip().casefold()
    named = np.array([t.name.strip().casefold() == wanted for t in table.tracks], bool)
    return named if wanted and named.any() else None


def _random_side(table: NoteTable, seed: int | None) -> np.ndarray:
    """The side of a random split each track is on, bool [tracks]; both sides have notes."""
    sounding = np.unique(table.notes[:, TRACK])
    if len(sounding) < 2:
        raise NoSplitError(
            f"a random split needs two tracks with notes; this song has {list_parts(table)}"
        )
    if seed is None:
        seed = zlib.crc32(table.notes.tobytes())
    rng = np.random.default_rng(seed)
    side = np.zeros(len(table.tracks), bool)
    side[rng.permutation(sounding)[: rng.integers(1, len(sounding))]] = True
    return side


def _is_sparse(table: NoteTable) -> np.ndarray:
    """Which tracks play mostly on quarter notes, bool [tracks]."""
    onsets = np.bincount(table.notes[:, TRACK], minlength=len(table.tracks))
    on_quarter = table.notes[:, STEP] % STEPS_PER_QUARTER == 0
    hits = np.bincount(table.notes[on_quarter, TRACK], minlength=len(table.tracks))
    share = hits / np.maximum(onsets, 1)
    sounding = share[onsets > 0]
    if (
        len(sounding) < 2
        or sounding.min() >= _DENSE_BELOW
        or (sounding.max() <= _CLEARLY_SPARSE_ABOVE)
    ):
        raise NoSplitError(
            "a split by density needs a track with under 70 % of its onsets on quarter notes and"
            f" one with over 80 %; this song has {list_parts(table)}"
        )
    return share > _SPARSE_ABOVE


def list_parts(table: NoteTable) -> str:
    """The parts of a song, for messages."""
    if not table.tracks:
        return "no tracks"
    named = [
        f"track-{k}" + (f" ({t.name})" if t.name else "") + (" (drums)" if t.is_drum else "")
        for k, t in enumerate(table.tracks)
    ]
    shown = named if len(named) <= 8 else [*named[:7], f"... track-{len(named) - 1}"]
    return ", ".join(shown)
