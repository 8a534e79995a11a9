"""How long a training step takes, beside the PyTorch build: `m4m bench train`."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from etils import epath

from m4m_jax.bench import limits, table, works
from m4m_jax.bench.ours import OursTraining
from m4m_jax.bench.peer import PeerTraining
from m4m_jax.bench.sides import Side
from m4m_jax.bench.works import Windows, Work
from m4m_jax.errors import M4MError
from m4m_jax.models.cross import CrossConfig
from m4m_jax.models.lm import preset
from m4m_jax.music.tasks import get_task

BATCHES = 3


def measure(
    work: str | None = None,
    folder: epath.PathLike | None = None,
    *,
    size: str = "1",
    rounds: int = 3,
    say: Callable[[str], None] = print,
) -> list[table.Row]:
    """Time training steps of this build and of the PyTorch build, in turn.

    Args:
        work: one of `works.TRAINING` by name; all of them when `None`.
        folder: of MIDI files; songs made up to be as full as real ones when `None`.
        size: the language model's.
        rounds: steps of each, after one that compiles.
        say: told each row as text.

    Returns:
        A row for each kind of work, as `table` describes them.

    Works whose parts the music does not have are left out, with a line that says so.

    Raises:
        M4MError: no such work, or the music does not have the parts of the one that is named.
    """
    rows = []
    for one in works.chosen(works.TRAINING, work):
        with (
            Side(OursTraining, size, one.encoder) as ours,
            Side(PeerTraining, size, large_pages=False) as peer,
        ):
            accelerated = ours.call("accelerated").result
            try:
                windows = _windows(one, folder, 64 if accelerated else 2)
            except M4MError as error:
                if work is not None:
                    raise
                say(f"train {one.name}: left out: {error}")
                continue
            row = _described(one, windows, size)
            row |= _timed(ours, peer, windows, rounds)
        if accelerated:
            row["compiled_s"] = _compiled(windows, row["peer_passes"], size, rounds)
        rows.append(table.finish(row))
        say("\n".join(table.lines(rows[-1:])))
    return rows


def _windows(work: Work, folder: epath.PathLike | None, number: int) -> Windows:
    """Batches of so many windows."""
    masked = work.encoder == "masked"
    return works.windows(get_task(work.task), folder, BATCHES, number, masked=masked)


def _described(work: Work, windows: Windows, size: str) -> table.Row:
    """What is measured, and the least that it takes."""
    lm, batches = preset(size, encoder=work.encoder), zip(*windows[1:3], strict=True)
    counts = [limits.least(*batch, work.encoder) for batch in batches]
    operations = [limits.step_operations(c, lm, CrossConfig()) for c in counts]
    return {
        "work": f"train {work.name}",
        "data": windows.music,
        "windows": windows.target.shape[1],
        "max_notes": windows.target.shape[-1] // 2,
        "least_operations": statistics.median(operations),
    }


def _timed(ours: Side, peer: Side, windows: Windows, rounds: int) -> table.Row:
    """Seconds, memory and arithmetic of both sides."""
    for side in (ours, peer):
        side.call("load", windows)
    first = ours.call("run", 0)
    operations = peer.call("operations", 0).result  # its first step, in what memory is left
    for k in range(1, BATCHES):
        ours.call("run", k)  # compiles for another size, where a batch needs one
    for side in (ours, peer):
        side.call("forget_peak")
    spent: dict[str, list[float]] = {"ours_s": [], "peer_s": []}
    for k in range(rounds):
        step = peer.call("run", k)
        spent["peer_s"].append(step.seconds)
        spent["ours_s"].append(ours.call("run", k).seconds)
    return {
        "peer_passes": step.result,
        **{name: statistics.median(seconds) for name, seconds in spent.items()},
        "first_s": first.seconds,
        "ours_bytes": ours.call("peak_bytes").result,
        "peer_bytes": peer.call("peak_bytes").result,
        "peer_whole_bytes": peer.call("whole_bytes").result,
        "ours_operations": statistics.median(
            ours.call("operations", k).result for k in range(BATCHES)
        ),
        "peer_operations": operations,
        "ours_rate": ours.call("matmul_rate").result,
        "peer_rate": peer.call("matmul_rate").result,
        "device": ours.call("device").result,
    }


def _compiled(windows: Windows, passes: int, size: str, rounds: int) -> float:
    """Seconds of a step of the PyTorch build when it is compiled."""
    with Side(PeerTraining, size, True, passes, large_pages=False) as peer:
        peer.call("load", windows)
        peer.call("run", 0)
        return statistics.median(peer.call("run", k).seconds for k in range(rounds))
