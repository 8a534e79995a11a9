"""Data sets of songs: built with TFDS, stored as notes, one record a song."""

from m4m_jax.datasets.ingest import Report as Report
from m4m_jax.datasets.record import RECORD_VERSION as RECORD_VERSION
from m4m_jax.datasets.record import Song as Song
from m4m_jax.datasets.record import content_hash as content_hash
from m4m_jax.datasets.record import hash_split as hash_split
from m4m_jax.datasets.store import NAMES as NAMES
from m4m_jax.datasets.store import DatasetInfo as DatasetInfo
from m4m_jax.datasets.store import Songs as Songs
from m4m_jax.datasets.store import build as build
from m4m_jax.datasets.store import build_command as build_command
from m4m_jax.datasets.store import info as info
from m4m_jax.datasets.store import is_built as is_built
from m4m_jax.datasets.store import open_split as open_split
