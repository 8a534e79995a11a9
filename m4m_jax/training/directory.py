"""A run's directory: what it says of the run, and which configurations go on with it."""

from __future__ import annotations

from typing import Any

import yaml
from etils import epath

from m4m_jax import pretrained
from m4m_jax.config import Config, load_config
from m4m_jax.data.supply import Supply, tasks_of
from m4m_jax.errors import M4MError
from m4m_jax.files import atomic_path
from m4m_jax.models import card as cards
from m4m_jax.models.card import Card, read_card

_MAY_CHANGE = ("steps", "every", "keep", "keep_every", "packed", "profile", "mesh", "remat")


def described(config: Config, windows: Supply) -> dict[str, Any]:
    """What a card says of the data of a run."""
    parts = [
        cards.Part(
            data=str(part.data),
            parts=parts,
            weight=part.weight,
            task=task.name,
            reference=task.reference,
            target=task.target,
            dedup=task.dedup,
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


def settle(config: Config, card: Card, path: epath.Path) -> None:
    """Write config and card into a new run's directory; refuse one of another run.

    That is one of another configuration, or of a base that has changed since.
    """
    file, now = path / "config.yaml", config.model_dump(mode="json")
    if file.exists():
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
    path.mkdir(parents=True, exist_ok=True)
    pretrained.write_card(card, path)
    with atomic_path(file) as temporary:
        temporary.write_text(yaml.safe_dump(now, sort_keys=False))
