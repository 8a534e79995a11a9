"""Rows of measurements, in numbers and as text.

A row has `work`, `data` (where the music comes from), `device`, and of both builds, ours and the
PyTorch peer's:

    ours_s, peer_s          seconds of wall-clock time, medians; ratio is peer_s / ours_s
    peer_passes             in how many parts the peer takes a batch, so that its memory holds it
    compiled_s              the peer's, compiled by torch.compile, on an accelerator
    ours_bytes, peer_bytes  the most memory held at a time while it ran; None where unknown
    peer_whole_bytes        what the peer would take in one part at the least, where it takes more
    *_operations            arithmetic operations of the matrix products; least_operations are those
                            that the music alone needs
    least_bytes             of weights and caches that must be read
    *_rate                  operations (ours_read: bytes) a second of a plain large matrix product
                            (sum) on the same machine
    limit_s                 seconds of the least work at our rates; distance is limit_s / ours_s
    first_s                 the first call's seconds, with compilation
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def finish(row: Row) -> Row:
    """The row with what follows from its measurements."""
    limits = [row["least_operations"] / row["ours_rate"]]
    if "least_bytes" in row:
        limits.append(row["least_bytes"] / row["ours_read"])
    limit = max(limits)
    ratios = {"ratio": row["peer_s"] / row["ours_s"]}
    if "compiled_s" in row:
        ratios["compiled_ratio"] = row["compiled_s"] / row["ours_s"]
    return row | ratios | {"limit_s": limit, "distance": limit / row["ours_s"]}


def lines(rows: Sequence[Row]) -> list[str]:
    """Rows as text, a few lines each."""
    return [line for row in rows for line in _lines(row)]


def _lines(row: Row) -> list[str]:
    compiled = f", {row['compiled_s']:.3g} s compiled" if "compiled_s" in row else ""
    what = [
        f"{row['work']}: {row['ours_s']:.3g} s, PyTorch {row['peer_s']:.3g} s{compiled}: "
        f"{row['ratio']:.1f} times as fast; the least would be {row['limit_s']:.3g} s "
        f"({row['distance']:.0%})",
        f"    {row['windows']} windows, N = {row['max_notes']}, music: {row['data']}; "
        f"on {row['device']}; first {row['first_s']:.0f} s",
    ]
    arithmetic = f"    {row['least_operations'] / 1e9:.0f} Gflop at the least"
    if "ours_operations" in row:
        arithmetic += (
            f", {row['ours_operations'] / 1e9:.0f} done, {row['peer_operations'] / 1e9:.0f} by"
            " PyTorch"
        )
    if "least_bytes" in row:
        arithmetic += (
            f", {row['least_bytes'] / 1e9:.0f} GB at the least; "
            f"{row['ours_read'] / 1e9:.1f} GB/s read"
        )
    arithmetic += (
        f"; large matrices {row['ours_rate'] / 1e9:.0f} Gflop/s, "
        f"PyTorch {row['peer_rate'] / 1e9:.0f}"
    )
    what.append(arithmetic)
    if row.get("peer_passes", 1) > 1:
        parts, whole = row["peer_passes"], row["peer_whole_bytes"] / 2**30
        what.append(
            f"    PyTorch takes the batch in {parts} parts: in one, {whole:.0f} GiB are not enough"
        )
    if row.get("ours_bytes") and row.get("peer_bytes"):
        what.append(
            f"    memory {row['ours_bytes'] / 2**30:.2f} GiB, "
            f"PyTorch {row['peer_bytes'] / 2**30:.2f} GiB"
        )
    return what
