"""The table of docs/tpu.md: what training steps of all sizes and systems cost on three pods.

    python -m m4m_jax.tpu.table --reports DIR --write docs/tpu.md

Each program is compiled in a process of its own, which takes minutes, and its report is kept in
DIR; a command that was stopped goes on where it was. With `--only v5e` or the like, only those
whose names hold that word are compiled. The table is written of the reports that there are.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from m4m_jax.config import ADAPTERS
from m4m_jax.files import atomic_path
from m4m_jax.tpu import compile as compiling
from m4m_jax.tpu.compile import Report, Target

TOPOLOGIES = ("v5e:16x16", "v5p:4x8x8", "v6e:16x16")
BEGIN, END = "<!-- table: m4m_jax.tpu.table -->", "<!-- end of table -->"
WINDOWS = 8
COMPUTE_BOUND = ("mesh={data: -1, fsdp: 16}", "remat=true", "encoder=masked")
"""What makes arithmetic, not memory, bound size 3's pretraining on v5e and v5p."""
NOTED = {"remat=true": "remat", "encoder=masked": "masked encoder"}
"""What of a case's changes its line tells beside the mesh."""


class Case(NamedTuple):
    """A program of the table: the file of its configuration, what is changed, windows a shard."""

    system: str
    size: str
    topology: str
    config: str
    changes: tuple[str, ...] = ()
    windows: int = WINDOWS

    @property
    def name(self) -> str:
        """Of its report."""
        shape = self.topology.replace(":", "-")
        more = "" if self.windows == WINDOWS else f"-{self.windows}"
        return f"{self.system}-{self.size}-{shape}{more}"

    def command(self, out: Path) -> list[str]:
        """The command that compiles it, after `m4m`."""
        given = [*self.changes, "--per-device-batch", str(self.windows)]
        return [
            *("compile", f"configs/{self.config}.yaml", *given),
            *("--topology", self.topology, "--json", str(out)),
        ]


def cases() -> Iterator[Case]:
    """All programs of the table."""
    for topology in TOPOLOGIES:
        for size in "0123":
            big = COMPUTE_BOUND if size == "3" else ()
            yield Case("lm", size, topology, "los_angeles_lm", (f"size={size}", *big))
            for system in ADAPTERS:
                changes = (f"system={system}", f"size={size}")
                yield Case(system, size, topology, "los_angeles_others_to_drums", changes)
        seq2seq = ("system=seq2seq",)
        yield Case("seq2seq", "1", topology, "los_angeles_others_to_drums", seq2seq)


def compile_case(case: Case, folder: Path) -> None:
    """Compile a case unless its report is there; what it prints goes to a log beside it."""
    out = folder / f"{case.name}.json"
    if out.exists():
        return
    program = "from m4m_jax.cli import main; main()"
    with (folder / f"{case.name}.log").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-c", program, *case.command(out)], stdout=log, stderr=log
        )
    print(f"{case.name}: {'compiled' if done.returncode == 0 else 'FAILED'}", flush=True)


def rows(folder: Path) -> Iterator[str]:
    """The table in Markdown."""
    head = (
        *("topology", "system", "size", "mesh", "parameters + moments", "activations", "peak"),
        *("TFLOP", "HBM", "sent", "least step", "bound by", "utilisation", "windows/s"),
    )
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for case in cases():
        path = folder / f"{case.name}.json"
        if path.exists():
            yield f"| {' | '.join(_cells(case, compiling.read(path)))} |"


def _cells(case: Case, report: Report) -> Iterator[str]:
    axes = [f"{axis} {n}" for axis, n in report.mesh.items() if n > 1]
    mesh = ", ".join([*axes, *(NOTED[change] for change in case.changes if change in NOTED)])
    gib = {kind: f"{size / 2**30:.2f} GiB" for kind, size in report.memory.items()}
    kept = (report.memory["parameters"] + report.memory["optimiser"]) / 2**30
    yield from (case.topology, case.system, case.size, mesh, f"{kept:.2f} GiB")
    if not report.fits:
        yield from ("", f"{gib['peak']}: does not fit", "", "", "", "", "", "", "")
        return
    yield from (gib["activations"], gib["peak"], f"{report.flops / 1e12:.2f}")
    yield from (f"{report.hbm / 1e9:.1f} GB", f"{sum(report.collectives.values()) / 1e6:.0f} MB")
    yield from (f"{1e3 * report.seconds:.1f} ms", report.bound)
    yield f"{report.utilisation(Target(case.topology)):.0%}"
    yield f"{report.windows / report.seconds:,.0f}"


def write(folder: Path, page: Path) -> None:
    """Put the table between its marks in a page."""
    text = page.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    with atomic_path(page) as temporary:
        temporary.write_text("\n".join([before + BEGIN, *rows(folder), END]) + after)


def reporting_parser(about: str) -> argparse.ArgumentParser:
    """The parser of a command that compiles programs and keeps their reports."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument(
        "--reports",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the reports; a program whose report is there is not compiled again",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile what is missing and write the table."""
    parser = reporting_parser(__doc__)
    parser.add_argument(
        "--only",
        default="",
        metavar="WORD",
        help="compile those programs whose names hold it, such as lm-3-v5e-16x16 (default: all)",
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="page to put the table into, between its marks"
    )
    given = parser.parse_args(arguments)
    given.reports.mkdir(parents=True, exist_ok=True)
    for case in cases():
        if given.only in case.name:
            compile_case(case, given.reports)
    if given.write is not None:
        write(given.reports, given.write)


if __name__ == "__main__":
    main()
