"""How much memory a process takes for a data set does not depend on how large the set is."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Prints how many songs of 6 MB an epoch of 960 MB reads, within 500 MB more than it takes to start.
READ = """
import resource

import numpy as np

from m4m_jax import data
from m4m_jax.music import NoteTable, Task, Track


class Songs:
    def __init__(self, number, notes):
        self.number, self.notes = number, notes

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        notes = np.full((self.notes, 6), [0, 1, 60, 0, 80, 0], np.int32)
        notes[:, 0] = np.arange(self.notes) // 4
        return NoteTable(notes, (Track("", 0),), self.notes // 4)


def read(songs):
    batches = data.batches(songs, Task("all", "", None, "all", max_notes=4), batch_size=8)
    return set().union(*(next(batches)["song"].tolist() for _ in range(len(songs) // 8)))


read(Songs(8, 2_000))
with open("/proc/self/status") as file:
    (used,) = (int(line.split()[1]) for line in file if line.startswith("VmData"))
_, hard = resource.getrlimit(resource.RLIMIT_DATA)
resource.setrlimit(resource.RLIMIT_DATA, (used * 2**10 + 500 * 2**20, hard))
print(len(read(Songs(160, 250_000))))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory may not be limited")
def test_songs_that_are_larger_than_the_memory_are_read():
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("160\n", "")
