"""How a training step scales from 8 to 256 chips, predicted from compiled programs, as a plot.

    python -m m4m_jax.tpu.scaling --reports DIR --plot docs/tpu_scaling.png

Pretraining of size 1 with parameters whole on each chip is compiled for v5e:16x16 with 1, 2, 4 and
8 windows a chip. What a chip computes, and what it moves in its memory, depends on its windows
alone, and is interpolated between these; what it sends is the gradient, 2 (n - 1) / n times on n
chips. Weak: 8 windows a chip. Strong: 256 windows in all, where a chip takes more than 8 in parts
of 8 one after another, whose gradients it adds before it sends them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from m4m_jax.files import atomic_path
from m4m_jax.tpu import compile as compiling
from m4m_jax.tpu.compile import Report
from m4m_jax.tpu.table import Case, compile_case, reporting_parser

CHIPS = (8, 16, 32, 64, 128, 256)
WINDOWS, TOTAL = (1, 2, 4, 8), 256
TOPOLOGY = "v5e:16x16"


class Step(NamedTuple):
    """Seconds of a predicted step: in arithmetic, in memory, in links."""

    compute: float
    memory: float
    links: float

    @property
    def overlapped(self) -> float:
        """If all of it goes on at once."""
        return max(self)

    @property
    def in_turn(self) -> float:
        """If what is sent waits for what is computed: nothing of it is hidden."""
        return max(self.compute, self.memory) + self.links


def predict(reports: Mapping[int, Report], chips: int, windows: float) -> Step:
    """A step on so many chips of so many windows each, from reports by windows a chip."""
    most = max(reports)
    parts = max(int(np.ceil(windows / most)), 1)
    known = sorted(reports)

    def at(kind: str) -> float:
        times = [reports[w].roofline[kind] for w in known]
        return parts * float(np.interp(windows / parts, known, times))

    whole = reports[most]
    sent = whole.roofline["links"] * whole.chips / (whole.chips - 1)
    return Step(at("compute"), at("memory"), sent * (chips - 1) / chips)


def predictions(reports: Mapping[int, Report]) -> tuple[list[Step], list[Step]]:
    """Steps on `CHIPS`: with fixed work a chip, and with fixed work in all."""
    weak = [predict(reports, n, max(WINDOWS)) for n in CHIPS]
    return weak, [predict(reports, n, TOTAL / n) for n in CHIPS]


def plot(weak: Sequence[Step], strong: Sequence[Step], path: Path) -> None:
    """Both, as a PNG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    titles = (f"weak: {max(WINDOWS)} windows a chip", f"strong: {TOTAL} windows in all")
    for panel, steps, title in zip(panels, (weak, strong), titles, strict=True):
        for kind in Step._fields:  # broad, as the longest of them lies under the step
            times = [1e3 * getattr(step, kind) for step in steps]
            panel.plot(CHIPS, times, linewidth=6, alpha=0.35, label=kind)
        panel.plot(CHIPS, [1e3 * s.overlapped for s in steps], "k-o", label="step, overlapped")
        panel.plot(CHIPS, [1e3 * s.in_turn for s in steps], "k--", label="step, nothing hidden")
        panel.set(xscale="log", yscale="log", xlabel="chips", ylabel="ms", title=title)
        panel.set_xticks(CHIPS, map(str, CHIPS))
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile what is missing, print the predictions and plot them."""
    parser = reporting_parser(__doc__)
    parser.add_argument(
        "--plot", type=Path, required=True, metavar="FILE", help="the picture to write, a PNG"
    )
    given = parser.parse_args(arguments)
    given.reports.mkdir(parents=True, exist_ok=True)
    reports = {}
    for windows in WINDOWS:
        case = Case("lm", "1", TOPOLOGY, "los_angeles_lm", ("size=1",), windows)
        compile_case(case, given.reports)
        reports[windows] = compiling.read(given.reports / f"{case.name}.json")
    weak, strong = predictions(reports)
    print("chips  weak ms  windows/s  strong ms  windows/s")
    for n, one, all_ in zip(CHIPS, weak, strong, strict=True):
        rates = max(WINDOWS) * n / one.overlapped, TOTAL / all_.overlapped
        figures = f"{1e3 * one.overlapped:7.2f}  {rates[0]:9,.0f}"
        print(f"{n:5}  {figures}  {1e3 * all_.overlapped:9.2f}  {rates[1]:9,.0f}")
    plot(weak, strong, given.plot)
    print(given.plot)


if __name__ == "__main__":
    main()
