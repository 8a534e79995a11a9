"""A run's directory: what it says of the run, and which configurations go on with it."""

from __future__ import annotations

from typing import Any

import yaml
from etils import epath

from m4m_jax import digests, pretrained
from m4m_jax.config import Config, load_config
from m4m_jax.data.supply import Supply, tasks_of
from m4m_jax.errors import M4MError
from m4m_jax.files import atomic_path
from m4m_jax.models import card as cards
from m4m_jax.models.card import Card, read_card
from m4m_jax.pretrained import METRIC
from m4m_jax.training.hooks import read_figures

CONFIG, FIGURES = "config.yaml", "metrics.jsonl"
_MAY_CHANGE = ("steps", "every", "keep", "keep_every", "packed", "profile", "mesh", "remat")


def described(config: Config, windows: Supply) -> dict[str, Any]:
    """What a card says of the data of a run."""
    parts = [
        cards.Part(
            data=str(part.data),
            parts=parts,
            weight=part.weight,
            **task.view,
        )
        for part, task, parts in zip(
            config.components, tasks_of(config), windows.parts, strict=True
        )
    ]
    told = {"data": parts[0].data, "parts": parts[0].parts}
    return told | ({"mixture": tuple(parts)} if len(parts) > 1 else {})


def _difference(before: Any, now: Any) -> str:
    """How a value of a configuration differs from that of the run that is there."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return f"{before} there, {now} here"
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return ", ".join(f"{key}: {_difference(before.get(key), now.get(key))}" for key in keys)


def refuse_another(config: Config, card: Card, path: epath.Path) -> None:
    """Raise M4MError where a directory holds another run.

    That is one of another configuration, or of a base that has changed since.
    """
    file, now = path / CONFIG, config.model_dump(mode="json")
    if not file.exists():
        return
    before = load_config(file).model_dump(mode="json")
    fixed = [key for key in now if key not in _MAY_CHANGE]
    if config.optimizer.schedule != "constant":  # its rates depend on where it ends
        fixed.append("steps")
    differ = [f"{k} ({_difference(before[k], now[k])})" for k in fixed if before[k] != now[k]]
    if differ:
        raise M4MError(
            f"{path} holds a run with another {', '.join(differ)}; name a new directory with -o"
        )
    old = read_card((path / "model.json").read_text(), str(path / "model.json"))
    if [b.fingerprint for b in old.bases] != [b.fingerprint for b in card.bases]:
        raise M4MError(
            f"{path} holds a run on another base than {config.base} is now; "
            "name a new directory with -o"
        )


def finished(path: epath.Path, steps: int) -> int | None:
    """The last step of a run that has made so many, where it was validated and saved whole.

    There is nothing left to do for such a run. None: there may be.
    """
    made = [int(x.name) for x in path.iterdir() if x.name.isdigit()] if path.is_dir() else []
    last = max(made, default=0)
    if last < steps or digests.fault(path / str(last)) is not None:
        return None
    validated = any(
        line["step"] == last and METRIC in line for line in read_figures(path / FIGURES)
    )
    return last if validated else None


def settle(config: Config, card: Card, path: epath.Path) -> None:
    """Write config and card into a run's directory, which is made."""
    path.mkdir(parents=True, exist_ok=True)
    pretrained.write_card(card, path)
    with atomic_path(path / CONFIG) as temporary:
        temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
