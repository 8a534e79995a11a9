"""The Dockerfile: by its linter, and against what it takes from this repository."""

from __future__ import annotations

import shlex
import subprocess
import tomllib

from tests.launch.scripts import LAUNCH, tool

ROOT = LAUNCH.parent


def instructions() -> list[tuple[str, str]]:
    lines = (LAUNCH / "Dockerfile").read_text().replace("\\\n", "").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in kept)]


def test_hadolint_finds_nothing():
    done = subprocess.run([tool("hadolint"), LAUNCH / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_copied_is_there_and_not_ignored():
    kept = (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines()
    sources = [
        source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in kept


def test_it_installs_extras_that_there_are():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (install,) = (rest for word, rest in instructions() if word == "RUN")
    (what,) = (word for word in shlex.split(install) if word.startswith(".["))
    named = what[2:-1].split(",")
    (default,) = (
        rest.partition("=")[2]
        for word, rest in instructions()
        if word == "ARG" and rest.startswith("EXTRA")
    )
    assert named == ["${EXTRA}", "gcs"]
    assert {default, "gpu", "gcs"} <= {*extras["optional-dependencies"]}


def test_signals_reach_m4m():
    """In shell form a shell would be the container's first process, and pass no signal on."""
    assert dict(instructions())["ENTRYPOINT"] == '["m4m"]'
