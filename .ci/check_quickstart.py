"""Check that what `m4m quickstart` wrote is music, and that the adapter listens."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.image
import numpy as np

from m4m_jax.music import read_midi
from m4m_jax.music.notes import TRACK

SONGS = 20  # unseen chorales at the least
GAIN = 0.05  # nats a token that the right references are worth at the least
WIDTH, HEIGHT = 600, 300  # pixels at the least


def check_report(report: dict) -> None:
    """The models learnt, and a right reference helps."""
    for model in ("language_model", "adapter"):
        assert report[model]["best"] < report[model]["before"], f"the {model} did not learn"
    assert report["songs"] >= SONGS, f"only {report['songs']} unseen chorales"
    gain = report["shuffled"] - report["own"]
    print(f"own references help by {gain:.3f} nats a token")
    assert gain >= GAIN, f"own references help by less than {GAIN} nats a token"


def check_midi(path: Path) -> None:
    """Reference and target have notes, and all are on the grid."""
    song = read_midi(path)
    names = np.array([track.name for track in song.tracks])[song.notes[:, TRACK]]
    reference = int((names == "Soprano").sum())
    print(f"{path.name}: {reference} notes given, {len(names) - reference} written")
    assert reference, "the reference part has no notes"
    assert len(names) > reference, "the target part has no notes"
    assert song.off_grid == 0, f"{song.off_grid:.0%} of the onsets are off the grid"


def check_png(path: Path) -> None:
    """A picture of some size, with notes in two colours."""
    image = matplotlib.image.imread(path)[..., :3]
    height, width, _ = image.shape
    assert width >= WIDTH, f"{width} pixels wide"
    assert height >= HEIGHT, f"{height} pixels high"
    colourful = image[np.ptp(image, axis=-1) > 0.3]
    blue, orange = colourful[:, 2] > colourful[:, 0], colourful[:, 0] > colourful[:, 2]
    print(f"{path.name}: {width} x {height}, {blue.sum()} blue and {orange.sum()} orange pixels")
    assert blue.sum() > 500, "no reference part in the picture"
    assert orange.sum() > 500, "no generated part in the picture"


def main(folder: Path) -> None:
    """Check the folder that `m4m quickstart -o` was given."""
    report = json.loads((folder / "report.json").read_text())
    print(json.dumps(report))
    check_report(report)
    check_midi(folder / "harmonised.mid")
    check_png(folder / "harmonised.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
