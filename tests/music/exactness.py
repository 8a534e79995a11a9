"""How many rows of the MIDI files in folders equal those of the second opinion; run as a program.

    python -m tests.music.exactness DIR...

Prints a line for each folder and kind of selector: the share of rows (steps) that are equal, byte for
byte, N = 16; then, for files that differ, in what. It takes about half a second a file.
"""  # noqa: E501

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from m4m_jax.errors import M4MError
from m4m_jax.music import NoteTable, parse_midi, select, to_rows
from tests.music import oracle

N = 16
WHOLE = ("all", "drum", "nondrum")
KINDS = ("track", "upto", "from", "notrack")


def selectors(tracks: int) -> Iterator[tuple[str, str]]:
    """(kind, selector): the first two, the middle and the last number of each numbered kind."""
    yield from ((name, name) for name in WHOLE)
    for k in sorted({0, 1, tracks // 2, tracks - 1} & set(range(tracks))):
        yield from (("numbered", f"{kind}-{k}") for kind in KINDS)


def equal_rows(table: NoteTable | None, song: oracle.Song, selector: str) -> tuple[int, int]:
    """(rows that are equal, rows), of the longer of the two."""
    expected = np.frombuffer(oracle.as_bytes(oracle.rows(song, selector, N), N), np.uint8)
    expected = expected.reshape(-1, N, 4)
    if table is None:
        return 0, len(expected)
    notes = select(table, selector).notes
    found = to_rows(notes, table.length, N)
    shared = min(len(found), len(expected))
    equal = (found[:shared] == expected[:shared]).all(axis=(1, 2)).sum()
    return int(equal), max(len(found), len(expected))


def difference(table: NoteTable | None, song: oracle.Song) -> str:
    """In what two readings differ."""
    if table is None:
        return "refused by the package"
    if table.length != song.length:
        return f"length {table.length}, second opinion {song.length}"
    found = [(t.program, t.is_drum) for t in table.tracks]
    expected = [(i.program, i.is_drum) for i in song.instruments]
    if found != expected:
        return f"{len(found)} instruments, second opinion {len(expected)}, or in another order"
    return "notes"


def compare(path: Path) -> tuple[Counter, Counter, str]:
    """Equal rows and rows by kind, and in what the readings of a file differ."""
    equal, rows = Counter(), Counter()
    data = path.read_bytes()
    try:
        table, refusal = parse_midi(data, path.name), ""
    except M4MError as error:
        table, refusal = None, str(error)
    try:
        song = oracle.read(data)
    except Exception as error:
        both = "neither reads it" if table is None else "the second opinion does not read it"
        return equal, rows, f"{both} ({refusal or type(error).__name__})"
    if table is None and not any(oracle.rows(song, "all", 1)):
        return equal, rows, ""  # no notes, and refused for that
    count = len(song.instruments if table is None else table.tracks)
    for kind, selector in selectors(min(count, len(song.instruments))):
        same, all_ = equal_rows(table, song, selector)
        equal[kind] += same
        rows[kind] += all_
    same = equal == rows
    return equal, rows, "" if same else f"{difference(table, song)} {refusal}".strip()


def report(folder: Path) -> Iterator[str]:
    """Lines on all MIDI files of a folder."""
    equal, rows, told, files = Counter(), Counter(), {}, 0
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".mid", ".midi")):
        files += 1
        found, all_, reason = compare(path)
        equal += found
        rows += all_
        if reason:
            told[path.relative_to(folder)] = reason
    yield f"{folder}: {files} files"
    for kind in (*WHOLE, "numbered"):
        share = equal[kind] / max(rows[kind], 1)
        yield f"  {kind}: {equal[kind]} of {rows[kind]} rows equal ({share:.4%})"
    for name, reason in told.items():
        yield f"  {name}: {reason}"


if __name__ == "__main__":
    oracle.bin_of = functools.cache(oracle.bin_of)
    for argument in sys.argv[1:]:
        for line in report(Path(argument)):
            print(line, flush=True)
