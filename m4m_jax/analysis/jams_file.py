"""JAMS: annotations of music as JSON.

Humphrey et al., "JAMS: A JSON annotated music specification for reproducible MIR research" (ISMIR
2014), as the package jams 0.3 reads it.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import numpy as np

from m4m_jax.analysis.recognise import Analysis
from m4m_jax.music.labels import seconds_at

_VERSION = "0.3.5"


def as_jams(analysis: Analysis, title: str) -> dict[str, Any]:
    """An analysis as the contents of a JAMS file: chords (`chord`) and beats (`beat`)."""
    duration = float(seconds_at(analysis.song, np.array(analysis.song.length)))
    chords = [_observation(start, end - start, text) for start, end, text in analysis.chords]
    beats = [
        _observation(time, 0.0, number)
        for time, number in zip(
            analysis.beat_times.tolist(), analysis.numbers.tolist(), strict=True
        )
    ]
    return {
        "file_metadata": {
            "title": title,
            "artist": "",
            "release": "",
            "duration": duration,
            "identifiers": {},
            "jams_version": _VERSION,
        },
        "annotations": [
            _annotation("chord", chords, duration, analysis.method),
            _annotation("beat", beats, duration, analysis.method),
        ],
        "sandbox": {},
    }


def _observation(time: float, duration: float, value: str | int) -> dict[str, Any]:
    return {"time": time, "duration": duration, "value": value, "confidence": None}


def _annotation(
    namespace: str, data: list[dict[str, Any]], duration: float, method: str
) -> dict[str, Any]:
    tool = f"m4m_jax {importlib.metadata.version('m4m_jax')}, {method}"
    return {
        "namespace": namespace,
        "annotation_metadata": {"annotation_tools": tool, "data_source": "program"},
        "data": data,
        "time": 0.0,
        "duration": duration,
        "sandbox": {},
    }
