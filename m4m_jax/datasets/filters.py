"""Which songs are good enough to learn from. Filters apply to data sets, not to generation."""

from __future__ import annotations

import numpy as np

from m4m_jax.datasets.ingest import Rejected
from m4m_jax.music.notes import STEP, TRACK, NoteTable

# The filter of the published models' data.
MIN_NOTES = 20
ODD_SHARE_LIMIT = 0.45
SYNCOPATED_SHARES = (0.65, 1.0)


def quality_filter(table: NoteTable) -> NoteTable:
    """Return the song unchanged when it is long enough and on the grid.

    Some track must have more than 20 notes. Of such tracks' shares of onsets on odd steps, the
    least must be at most 0.45 or strictly between 0.65 and 1: a song whose beats are wrong has
    about as many onsets on odd steps as on even ones, or all of them.

    Raises:
        Rejected: "too short" or "off the grid".
    """
    track = table.notes[:, TRACK]
    counts = np.bincount(track)
    odd = np.bincount(track, weights=table.notes[:, STEP] % 2)
    long = counts > MIN_NOTES
    if not long.any():
        raise Rejected("too short", f"no track has more than {MIN_NOTES} notes")
    share = float((odd[long] / counts[long]).min())
    low, high = SYNCOPATED_SHARES
    if not (share <= ODD_SHARE_LIMIT or low < share < high):
        raise Rejected(
            "off the grid",
            f"{share:.1%} of onsets are on odd steps in the track with the fewest of them",
        )
    return table
