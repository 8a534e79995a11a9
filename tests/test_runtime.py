from __future__ import annotations

import os
import subprocess
import sys

import pytest

from m4m_jax import runtime

SHOW = """
import os, sys
from m4m_jax import cli, runtime
cli._run = lambda _: print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:]) or 0
cli.main()
"""


def shown(*arguments: str, **environment: str) -> str:
    """What a command line that prints its memory's settings and its arguments prints."""
    kept = {k: v for k, v in os.environ.items() if k != runtime.TUNABLES}
    command = [sys.executable, "-c", SHOW, *arguments]
    return subprocess.check_output(command, env=kept | environment, text=True).strip()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_commands_that_compute_start_again_with_large_pages():
    assert shown("train", "a b", "x=1") == f"{runtime.LARGE_PAGES} ['train', 'a b', 'x=1']"
    assert shown("tracks", "x") == "None ['tracks', 'x']"
    assert shown("train", GLIBC_TUNABLES="mine=1") == "mine=1 ['train']"


def test_devices_are_listed_without_a_word_of_tpus_that_are_not_there():
    program = (
        "from m4m_jax import runtime; runtime.leave_out_missing_tpus();"
        " import jax; print(jax.devices()[0].platform)"
    )
    environment = {k: v for k, v in os.environ.items() if k not in runtime.NO_TPU}
    command = [sys.executable, "-c", program]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "tpu" not in answer.stderr.lower()
    assert answer.stdout.strip()


def test_programs_are_kept_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runtime.keep_compiled_programs()
    folder = os.environ["JAX_COMPILATION_CACHE_DIR"]
    assert folder.startswith(str(tmp_path / "m4m_jax" / "programs"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    runtime.keep_compiled_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == ""
