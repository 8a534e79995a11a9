"""Step folders of a run that are not what was saved: found, named, and left out."""

from __future__ import annotations

import sys

from etils import epath

from m4m_jax import digests
from m4m_jax.errors import M4MError

_UNFINISHED = ".orbax-checkpoint-tmp"
"""In the name of a step folder that is being written."""


def set_aside(path: epath.Path) -> None:
    """Rename step folders that are not as they were saved to `damaged-STEP`, and say so.

    Read whole is the latest, and the one before as long as one is not good; of the others, which
    training does not read, lengths and small files are compared.

    Raises:
        M4MError: no step is left, although one was saved to the end.
    """
    if not path.is_dir():
        return
    for folder in sorted(path.iterdir()):
        if _UNFINISHED in folder.name:
            step = folder.name.partition(".")[0]
            _tell(f"{path / step} was not saved to the end, and is left out")
    steps = sorted((x for x in path.iterdir() if x.name.isdigit()), key=lambda x: -int(x.name))
    faults: dict[epath.Path, str] = {}
    for folder in steps:
        fault = digests.fault(folder, quick=len(faults) < steps.index(folder))
        if fault is not None:
            faults[folder] = f"{folder} is damaged: {fault}"
    # A run that is killed leaves one folder without digests at most, its last.
    begun = [x for x in steps[:1] if x in faults and not (x / digests.FILE).exists()]
    if len(faults) == len(steps) > len(begun):
        raise M4MError(
            f"no checkpoint of {path} is as it was saved: {'; '.join(faults.values())}; "
            "name a new directory with -o, or remove them to begin again"
        )
    for folder, fault in faults.items():
        aside = path / f"damaged-{folder.name}"
        if aside.exists():
            aside.rmtree()
        folder.rename(aside)
        _tell(f"{fault}; it is now {aside.name}, and not used")


def _tell(line: str) -> None:
    print(f"m4m: {line}", file=sys.stderr, flush=True)
