"""Tasks: a named pair of part selectors, a view of songs that a linked system is trained on."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any

from m4m_jax.errors import M4MError
from m4m_jax.music.compression import Compression
from m4m_jax.music.keys import Part


@dataclass(frozen=True)
class Task:
    """What is given and what is to be written.

    Attributes:
        name: As on the command line.
        description: One line.
        reference: Selector of the part that is given; None for a language model, which gets none.
        target: Selector of the part to be written.
        max_notes: Notes that a step holds, N.
        dedup: Whether notes equal in program, step and pitch are made one.
        harmony_by_quarter: Whether of the reference only the harmony is read, and chords of the
            target are struck on each quarter (`reduction`).
        common_key: Whether songs are transposed to C major or A minor, from the key of the
            reference, or of the target where there is none (`keys`).
        chords: Which part is block chords, which keep their octave in the common key.
        compress: Ratios of the two streams.
        temperature, top_p: How targets are drawn where nothing else is said (`as_drawn`).
    """

    name: str
    description: str
    reference: str | None
    target: str
    max_notes: int = 16
    dedup: bool = False
    harmony_by_quarter: bool = False
    common_key: bool = False
    chords: Part | None = None
    compress: Compression = field(default_factory=Compression)
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.reference is None and self.compress.reference > 1:
            raise M4MError(f"task {self.name} has no reference to compress")
        if self.reference is None and self.harmony_by_quarter:
            raise M4MError(f"task {self.name} has no reference to reduce")
        if self.common_key and self.reference == "drum":
            raise M4MError(f"task {self.name} is given drums, which have no key")

    @property
    def view(self) -> dict[str, Any]:
        """Which parts of songs it is of, as a model's card has it."""
        return {
            "task": self.name,
            "reference": self.reference,
            "target": self.target,
            "dedup": self.dedup,
            "harmony_by_quarter": self.harmony_by_quarter,
            "common_key": self.common_key,
        }


ANALYSIS = "analysis"
"""The task of finding beats and chords."""

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        # Temperatures of 0 to 1, and top_p of .9, were compared on folk tunes: at .7 melodies keep
        # to their chords most; chords agree with the tunes' own the better, and are the fewer, the
        # nearer to 0.
        Task(
            "chord-to-melody",
            "a melody over given chords",
            "track-1",
            "track-0",
            8,
            chords="reference",
            temperature=0.7,
        ),
        Task(
            "melody-to-chord",
            "chords under a given melody",
            "track-0",
            "track-1",
            8,
            chords="target",
            temperature=0.2,
        ),
        Task(
            "drums-to-others", "all other parts to given drums", "drum", "nondrum", 16, dedup=True
        ),
        Task("others-to-drums", "drums to all other parts", "nondrum", "drum", 16, dedup=True),
        Task(
            "song-to-chord",
            "the chords of a song, recognised",
            "track-0",
            "track-1",
            16,
            chords="target",
        ),
        Task(
            "chord-to-song",
            "a song on given chords: accompaniment",
            "track-1",
            "track-0",
            16,
            chords="reference",
        ),
        Task(
            ANALYSIS,
            "beats and chords of a song",
            "from-2",
            "upto-1",
            chords="target",
            temperature=0.0,
        ),
        Task("random-split", "some tracks to the others, drawn by lot", "random-0", "random-1"),
        Task(
            "density-split",
            "tracks that move in quarter notes to those of finer rhythm",
            "dense",
            "sparse",
        ),
        Task("continuation", "a song from its beginning on", None, "all"),
        Task("copy", "a song to itself", "all", "all"),
        Task("harmonize", "alto, tenor and bass to a given soprano", "track-0", "from-1", 4),
    )
}


UNKNOWN = "unknown"
"""What stands for the task of weights that do not tell what they were trained for."""


def written_name(task: str) -> str:
    """The name of the tracks that are written for a task."""
    return task.partition("-to-")[2] or "generated"


def chords_of(task: str) -> Part | None:
    """Which part of the task of that name is block chords; none where the task is not known."""
    return TASKS[task].chords if task in TASKS else None


def as_drawn(
    name: str, temperature: float | None = None, top_p: float | None = None
) -> tuple[float, float]:
    """Temperature and top_p as given, or as the task of that name has them.

    A top_p of 1 leaves all tokens. Weights of a task that is not known are drawn from as they are.
    """
    own = TASKS.get(name)
    if temperature is None:
        temperature = 1.0 if own is None else own.temperature
    if top_p is None:
        top_p = 1.0 if own is None else own.top_p
    return temperature, top_p


def get_task(name: str) -> Task:
    """The task of that name.

    Raises:
        M4MError: There is none; the message names the nearest.
    """
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(name, TASKS, n=1)
    near = near or [task for task in TASKS if name in task.split("-")]
    meant = " or ".join(map(repr, near))
    hint = f"did you mean {meant}?" if near else f"there are {', '.join(TASKS)}"
    raise M4MError(f"no task {name!r}; {hint}")
