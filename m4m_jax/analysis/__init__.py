"""Chords, beats and bars of a song, and the files that they are written to."""

from m4m_jax.analysis.recognise import Analysis as Analysis
from m4m_jax.analysis.recognise import analyze as analyze
from m4m_jax.analysis.write import write_analysis as write_analysis
