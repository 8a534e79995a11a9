"""Music-for-music modelling: symbolic-music language models, linked by lightweight adapters.

The public API. Names are imported when they are first used, so that `import m4m_jax` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m4m_jax.analysis import Analysis as Analysis
    from m4m_jax.analysis import analyze as analyze
    from m4m_jax.analysis import write_analysis as write_analysis
    from m4m_jax.config import Config as Config
    from m4m_jax.config import load_config as load_config
    from m4m_jax.errors import M4MError as M4MError
    from m4m_jax.generation import generate as generate
    from m4m_jax.generation import write_samples as write_samples
    from m4m_jax.music import NoteTable as NoteTable
    from m4m_jax.music import Track as Track
    from m4m_jax.music import read_midi as read_midi
    from m4m_jax.music import write_midi as write_midi
    from m4m_jax.music.tokenizer import SimuNoteTokenizer as SimuNoteTokenizer
    from m4m_jax.plot import piano_roll as piano_roll
    from m4m_jax.pretrained import Model as Model
    from m4m_jax.pretrained import load as load
    from m4m_jax.pretrained import save as save
    from m4m_jax.training.run import run as train  # noqa: F401

_HOMES = {
    "Analysis": "analysis",
    "Config": "config",
    "M4MError": "errors",
    "Model": "pretrained",
    "NoteTable": "music",
    "SimuNoteTokenizer": "music.tokenizer",
    "Track": "music",
    "analyze": "analysis",
    "generate": "generation",
    "load": "pretrained",
    "load_config": "config",
    "piano_roll": "plot",
    "read_midi": "music",
    "save": "pretrained",
    "train": "training.run",
    "write_analysis": "analysis",
    "write_midi": "music",
    "write_samples": "generation",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'm4m_jax' has no attribute {name!r}")
    module = importlib.import_module(f"m4m_jax.{_HOMES[name]}")
    return getattr(module, "run" if name == "train" else name)


def __dir__() -> list[str]:
    return __all__
