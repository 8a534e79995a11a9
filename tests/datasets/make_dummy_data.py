"""Writes the songs in the builders' `dummy_data` folders; they are made up, by rule.

After a change here: python -m tests.datasets.make_dummy_data
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from m4m_jax import datasets
from m4m_jax.music import NoteTable, Track, midi_bytes, seconds_at, write_midi
from m4m_jax.music.labels import Label, write_lab

BUILDERS = Path(datasets.__file__).parent

# Degrees of a major scale, from 0: a root for each bar, a melody above it.
ROOTS = np.array([0, 3, 4, 0, 5, 3, 4, 0])
FIGURE = np.array([0, 2, 4, 2, 1, 2, 4, 5])
SCALE = np.array([0, 2, 4, 5, 7, 9, 11])
TRIAD = np.array([0, 2, 4])
CHORDS = ("F", "G", "C", "A:min", "F:maj7", "G:7/3")
KICK, SNARE = 36, 38
# Names and octaves of voices, and what they sing.
VOICES = (("Soprano", 5), ("Alto", 4), ("Tenor", 4), ("Bass", 3))
CADENCES = (
    ("CBC", "GGG", "EDE", "CGC"),
    ("CCC", "GAG", "EFE", "CFC"),
    ("BC", "GG", "DE", "GC"),
)

PIANO = (Track("piano", 0), Track("chords", 0))
POP = (Track("MELODY", 73), Track("PAD", 50), Track("DRUMS", 0, is_drum=True))
BAND = (Track("Lead", 81), Track("Guitar", 25), Track("Drums", 0, is_drum=True))
UNNAMED = (Track("", 0), Track("", 0))


def song(
    number: int, tracks: Sequence[Track], *, bars: int = 8, eighths: int = 8, tempo: float = 120
) -> NoteTable:
    """A melody in eighths, over a chord a bar and quarters on drums if there are tracks for them.

    The numbers 0 to 23 give songs of different notes.
    """
    bar = 2 * eighths
    step, chord, beat = (np.arange(0, bar * bars, every) for every in (2, bar, 4))
    root = np.resize(ROOTS, bars)
    melody = root[step // bar] + FIGURE[(step // 2 + number) % len(FIGURE)]
    triads = (root[:, None] + TRIAD).ravel()
    drums = np.where(beat % 8, SNARE, KICK)
    key = 60 + number % 12
    parts = [
        (step, 2, key + 12 + _semitones(melody)),
        (np.repeat(chord, 3), bar, key - 12 + _semitones(triads)),
        (beat, 2, drums),
    ]
    notes = [
        np.column_stack(np.broadcast_arrays(*part, track.note_program, 80, k))
        for k, (part, track) in enumerate(zip(parts, tracks, strict=False))
    ]
    return NoteTable(
        notes=np.concatenate(notes),
        tracks=tuple(tracks),
        length=bar * bars,
        tempos=np.array([[0.0, tempo]]),
        meters=np.array([[0.0, eighths, 8] if eighths == 6 else [0.0, eighths // 2, 4]]),
    )


def _semitones(degrees: np.ndarray) -> np.ndarray:
    return 12 * (degrees // 7) + SCALE[degrees % 7]


def nottingham(folder: Path) -> None:
    """MIDI, with tunes named after collections, and the official split beside it."""
    midi = _made(folder / "MIDI")
    write_midi(song(0, UNNAMED, eighths=6), midi / "jigs1.mid")
    write_midi(song(1, UNNAMED), midi / "reelsa-c1.mid")
    write_midi(song(2, UNNAMED, eighths=6), midi / "jigs2.mid")
    write_midi(song(3, UNNAMED), midi / "xmas1.mid")
    write_midi(song(4, UNNAMED, bars=2), midi / "ashover1.mid")
    split = {"train": ["jigs1", "jigs2"], "val": ["reelsa-c1"]}
    (folder / "official_split.json").write_text(json.dumps(split, indent=1) + "\n")


def pop909_cl(folder: Path) -> None:
    """Several versions of songs named by number; chord tracks have one of two names."""
    processed, binned = _made(folder / "POP909_processed"), _made(folder / "POP909-24-bin-midi")
    write_midi(song(1, PIANO), processed / "001.mid")
    write_midi(song(8, (PIANO[0], Track("MIDI 01", 0))), processed / "002.mid")
    write_midi(song(12, PIANO), processed / "003.mid")
    write_midi(song(2, PIANO[:1]), processed / "004.mid")
    write_midi(song(1, PIANO[:1]), binned / "001.mid")


def rwc_pop(folder: Path) -> None:
    """Songs, and their chords on the clock of the MIDI file."""
    midi, chords = _made(folder / "midi"), _made(folder / "chords")
    for name, number in {"RM-P001": 1, "RM-P002": 4, "RM-P003": 13}.items():
        table = song(number, POP, tempo=100)
        write_midi(table, midi / f"{name}.mid")
        at = seconds_at(table, np.arange(0, table.length + 1, 16)).tolist()
        # The second begins without a chord, the third ends in an unknown one.
        texts = ["N" if name == "RM-P002" else "C", *CHORDS, "X" if name == "RM-P003" else "C"]
        labels = [Label(at[k], at[k + 1], text) for k, text in enumerate(texts)]
        write_lab(labels, chords / f"{name}.lab")
    write_midi(song(2, POP), midi / "RM-P004.mid")


def los_angeles(folder: Path) -> None:
    """Files named by the MD5 of their contents, in a folder for each first digit."""
    for number in range(7, 10):
        _write_by_md5(folder / "MIDIs", midi_bytes(song(number, BAND)))
    # The same notes at another tempo, and a song that is too short.
    _write_by_md5(folder / "MIDIs", midi_bytes(song(9, BAND, tempo=100)))
    _write_by_md5(folder / "MIDIs", midi_bytes(song(10, BAND, bars=2)))


def lakh(folder: Path) -> None:
    """As `los_angeles`; some files are damaged."""
    for number in range(16, 19):
        _write_by_md5(folder / "lmd_full", midi_bytes(song(number, BAND[:2])))
    _write_by_md5(folder / "lmd_full", midi_bytes(song(19, BAND))[:300])


def midi_folder(folder: Path) -> None:
    """Whatever lies in folders."""
    write_midi(song(12, PIANO), folder / "waltz.mid")
    write_midi(song(14, BAND), _made(folder / "band") / "march.midi")
    write_midi(song(20, BAND), _made(folder / "band" / "live") / "REEL.MID")
    (folder / "band" / "letter.mid").write_text("This is no music.\n")
    (folder / "notes.txt").write_text("Nor is this.\n")


def bach_chorales(folder: Path) -> None:
    """Scores as text and zipped, and what else lies among them."""
    (folder / "bwv2001.xml").write_text(_score(0))
    (folder / "bwv2003.xml").write_text(_score(1))
    with zipfile.ZipFile(folder / "bwv2002.mxl", "w") as archive:
        container = (
            '<container><rootfiles><rootfile full-path="score.xml"/></rootfiles></container>'
        )
        # A ZipInfo has a fixed date.
        archive.writestr(zipfile.ZipInfo("META-INF/container.xml"), container)
        archive.writestr(zipfile.ZipInfo("score.xml"), _score(2))
    (folder / "bwv2004.krn").write_text("**kern\t**kern\n4c\t4cc\n*-\t*-\n")


def _score(number: int) -> str:
    """A cadence in quarters for four voices, as MusicXML."""
    listed = parts = ""
    for voice, (name, octave) in enumerate(VOICES):
        steps = CADENCES[number][voice]
        notes = "".join(
            f"<note><pitch><step>{step}</step><octave>{octave - (step == 'B')}</octave></pitch>"
            "<duration>1</duration></note>"
            for step in steps
        )
        listed += f'<score-part id="P{voice}"><part-name>{name}</part-name></score-part>'
        time = f"<time><beats>{len(steps)}</beats><beat-type>4</beat-type></time>"
        head = f"<attributes><divisions>1</divisions>{time}</attributes>"
        parts += f'<part id="P{voice}"><measure number="1">{head}{notes}</measure></part>'
    return (
        f'<score-partwise version="4.0"><part-list>{listed}</part-list>{parts}</score-partwise>\n'
    )


def _write_by_md5(folder: Path, data: bytes) -> None:
    name = hashlib.md5(data).hexdigest()
    (_made(folder / name[0]) / f"{name}.mid").write_bytes(data)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


SOURCES: dict[str, Callable[[Path], None]] = {
    make.__name__: make
    for make in (nottingham, pop909_cl, rwc_pop, los_angeles, lakh, midi_folder, bach_chorales)
}


def main() -> None:
    """Write all folders anew."""
    for name, make in SOURCES.items():
        folder = BUILDERS / name / "dummy_data"
        shutil.rmtree(folder, ignore_errors=True)
        make(_made(folder))


if __name__ == "__main__":
    main()
