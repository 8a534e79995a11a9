"""Fixtures that the tests of this folder share.

Beam is an extra for clusters; its tests run where it is installed.
"""

import importlib.util
import shutil

import pytest

from m4m_jax.music import write_midi
from tests.datasets.music import song

collect_ignore = [] if importlib.util.find_spec("apache_beam") else ["test_run_beam.py"]


@pytest.fixture
def source(tmp_path):
    """A folder of 40 songs, of which two are the same, and a file that is none."""
    folder = tmp_path / "source"
    folder.mkdir()
    for seed in range(40):
        write_midi(song(seed), folder / f"song{seed:02}.mid")
    shutil.copy(folder / "song03.mid", folder / "song33.mid")
    (folder / "damaged.mid").write_bytes(b"MThd")
    return folder
