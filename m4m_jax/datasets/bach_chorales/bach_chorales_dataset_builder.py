"""Four-voice chorales by J. S. Bach, from the scores inside the music21 package."""

from __future__ import annotations

import functools
import importlib.util
import os

from etils import epath

from m4m_jax.datasets.bach_chorales.scores import VOICES, read_score
from m4m_jax.datasets.builder import SongBuilder
from m4m_jax.datasets.folders import files_below
from m4m_jax.datasets.ingest import Source
from m4m_jax.errors import M4MError, lacking

_SUFFIXES = (".mxl", ".xml", ".musicxml", ".krn", ".rntxt")


def corpus_folder() -> epath.Path:
    """Return the folder of Bach's scores inside the installed music21 package.

    Raises:
        M4MError: music21 is not installed, or has come without its scores.
    """
    # Importing music21 takes a second, which only the workers need to spend.
    package = importlib.util.find_spec("music21")
    if package is None or not package.submodule_search_locations:
        raise lacking("the chorales are in music21", "demo")
    folder = epath.Path(package.submodule_search_locations[0]) / "corpus" / "bach"
    if not folder.is_dir():
        raise M4MError(f"{folder}: this music21 has no scores; install it with pip")
    return folder


class Builder(SongBuilder):
    """The chorales that have exactly the voices soprano, alto, tenor and bass."""

    PARTS = {voice.lower(): f"track-{k}" for k, voice in enumerate(VOICES)}  # noqa: RUF012
    HOMEPAGE = "https://github.com/cuthbertLab/music21/tree/master/music21/corpus/bach"
    LICENSE = (
        "The music is in the public domain. The encodings come with music21 by permission of their"
        " makers and may carry restrictions of their own, on commercial use above all; see"
        " corpus/license.txt in that package."
    )

    def source_files(self, folder: epath.Path | None) -> Source:
        """Return the scores in `folder`, or else in the music21 package."""
        folder = folder or corpus_folder()
        names = files_below(folder, _SUFFIXES, "score")
        return Source(os.fspath(folder), names, functools.partial(read_score, os.fspath(folder)))
