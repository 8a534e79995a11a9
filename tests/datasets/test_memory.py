"""Building: how much memory the process that sorts what others read takes for a large data set."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Sorts the indexes of 100,000 files within 300 MB more than it takes to start; prints what it kept.
SORT = """
import dataclasses
import hashlib
import json
import resource
import sys

from etils import epath

from m4m_jax.datasets import staging
from m4m_jax.datasets.ingest import Source, split_by_content

folder, kept = epath.Path(sys.argv[1]), sys.argv[2] == "kept"
with open("/proc/self/status") as file:
    (used,) = (int(line.split()[1]) for line in file if line.startswith("VmData"))
_, hard = resource.getrlimit(resource.RLIMIT_DATA)
resource.setrlimit(resource.RLIMIT_DATA, (used * 2**10 + 300 * 2**20, hard))

names = [f"a/folder/of/songs/{k % 16:x}/{k:032x}.mid" for k in range(100_000)]
plan = staging.Plan.of("songs", Source("here", names, str), "", 60.0)
(folder / "plan.json").write_text(json.dumps(dataclasses.asdict(plan)))
for chunk in plan.chunks:
    files = [
        {
            "content": hashlib.sha256(name.encode() if kept else b"").hexdigest(),
            "size": 20_000,
            "notices": {},
        }
        for name in plan.chunk(chunk)
    ]
    text = json.dumps({"crc": 0, "files": files})
    (folder / f"chunk-{chunk:06}.index.json").write_text(text)
layout = staging.lay_out(folder, split_by_content)
print(layout.report.kept, sum(shard.songs for shard in layout.shards))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory may not be limited")
@pytest.mark.parametrize(("kind", "songs"), [("kept", "100000 100000"), ("duplicates", "1 1")])
def test_sorting_many_files(tmp_path, kind, songs):
    command = [sys.executable, "-c", SORT, str(tmp_path), kind]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{songs}\n", "")
