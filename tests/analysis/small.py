"""Models small enough to analyse in seconds."""

from __future__ import annotations

from m4m_jax import pretrained
from m4m_jax.models.card import Card
from m4m_jax.pretrained import Model
from tests.models.small import CONFIG, LINKS, small_cross, small_lm

ABOUT = {"max_notes": 4, "window": 12}


def small_base() -> Model:
    """The language model of `small_model`, which looks for it in `../base`."""
    about = {"task": "continuation", "reference": None, "target": "all", **ABOUT}
    return Model(small_lm(), Card(system="lm", lm=CONFIG, **about))


def small_model(task: str = "analysis") -> Model:
    """An adapter of a task on `small_lm()`."""
    base = pretrained.base_of(small_lm(), "base", "adapter")
    about = {"reference": "from-2", "target": "upto-1", **ABOUT}
    card = Card(system="cross", lm=CONFIG, adapter=LINKS, base=base, task=task, **about)
    return Model(small_cross(), card)
