"""How long sampling takes, beside the PyTorch build: `m4m bench sample`."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from etils import epath

from m4m_jax.bench import limits, table, works
from m4m_jax.bench.ours import OursSampling
from m4m_jax.bench.peer import PeerSampling
from m4m_jax.bench.sides import Side
from m4m_jax.bench.works import WINDOW
from m4m_jax.models.cross import CrossConfig
from m4m_jax.models.lm import preset
from m4m_jax.music.tasks import get_task

PROMPT, SAMPLES = 128, 8


def measure(
    work: str | None = None,
    folder: epath.PathLike | None = None,
    *,
    size: str = "1",
    rounds: int = 3,
    steps: int = WINDOW - PROMPT,
    say: Callable[[str], None] = print,
) -> list[table.Row]:
    """Time continuations by this build and by the PyTorch build, in turn.

    The tokens of a real song, or of one made up, are forced upon both after each is drawn, so that
    both write the same.

    Args:
        work: one of `works.SAMPLING` by name; all of them when `None`.
        folder: of MIDI files; songs made up to be as full as real ones when `None`.
        size: the language model's.
        rounds: of each, after one of a step that compiles.
        steps: to be written, after a prompt of 128.
        say: told each row as text.

    Returns:
        A row for each kind of work, as `table` describes them.

    Raises:
        M4MError: no such work, or the music does not have the parts for it.
    """
    rows = []
    for one in works.chosen(works.SAMPLING, work):
        windows = works.windows(get_task(one.task), folder, 1, 1)
        given = (size, windows, PROMPT, SAMPLES)
        with (
            Side(OursSampling, *given) as ours,
            Side(PeerSampling, *given, large_pages=False) as peer,
        ):
            first = ours.call("run", 1).seconds
            peer.call("run", 1)
            for side in (ours, peer):
                side.call("forget_peak")
            spent: dict[str, list[float]] = {"ours_s": [], "peer_s": []}
            for _ in range(rounds):
                spent["ours_s"].append(ours.call("run", steps).seconds)
                spent["peer_s"].append(peer.call("run", steps).seconds)
            item = 2 if ours.call("accelerated").result else 4
            target = windows.target[0].repeat(SAMPLES, axis=0)[:, : PROMPT + steps]
            least = limits.writing(target, PROMPT, preset(size), CrossConfig(), item=item)
            row = {
                "work": f"sample {one.name}",
                "data": windows.music,
                "windows": SAMPLES,
                "steps": steps,
                "max_notes": target.shape[-1] // 2,
                **{name: statistics.median(seconds) for name, seconds in spent.items()},
                "first_s": first,
                "ours_bytes": ours.call("peak_bytes").result,
                "peer_bytes": peer.call("peak_bytes").result,
                "least_operations": least.operations,
                "least_bytes": least.bytes,
                "ours_rate": ours.call("matmul_rate").result,
                "peer_rate": peer.call("matmul_rate").result,
                "ours_read": ours.call("memory_rate").result,
                "device": ours.call("device").result,
            }
        rows.append(table.finish(row))
        say("\n".join(table.lines(rows[-1:])))
    return rows
