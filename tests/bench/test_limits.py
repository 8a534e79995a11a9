"""The least work, counted by hand for a batch of a few rows, and against what is done."""

from __future__ import annotations

import numpy as np

from m4m_jax.bench import limits
from m4m_jax.data import pack
from m4m_jax.models.cross import CrossConfig
from m4m_jax.models.lm import LMConfig
from m4m_jax.music.simunote import PLAIN

E, P = PLAIN.eos, PLAIN.pad
TARGET = np.array([[[1, 200, E, P], [E, P, P, P], [E, P, P, P]]], np.int32)  # [1, 3, 4]
REFERENCE = np.array([[[1, 200, E, P], [E, P, P, P], [2, 200, 2, 201]]], np.int32)


def test_counts():
    found = limits.least(TARGET, REFERENCE, "masked")
    # Rows with one note, none and two notes; SOS before each.
    assert found == limits.Counts(1, 3, 3, 4 + 2 + 5, 16 + 4 + 25, 4 + 2 + 5, 5, 6 + 1 + 1)
    found = limits.least(TARGET, REFERENCE, "reference")
    assert found == limits.Counts(1, 3, 3, 15, 75, 15, 5, 8)
    batch = pack(TARGET, REFERENCE, vocabulary=PLAIN)
    assert limits.packed(batch) == limits.Counts(1, 3, 3, 15, 75, 15, 64, 64 * 64)
    batch = pack(TARGET, REFERENCE, vocabulary=PLAIN, masked=True)
    assert limits.packed(batch) == limits.Counts(1, 3, 21, 64, 64 * 64, 21 * 64, 64, 64 * 64)


def test_operations_of_one_stack_at_a_time():
    """A step of one row, with one layer a stack, by hand: what of it every token adds."""
    lm = LMConfig(8, 1, 2, 16, local_layers=1, local_heads=2, local_ffn=16)
    adapter = CrossConfig(width=4, heads=2, lora=None)
    nothing = limits.Counts(0, 0, 0, 0, 0, 0, 0, 0)
    assert limits.step_operations(nothing, lm, adapter) == 0
    maps, ffn = 4 * 8 * 8, 2 * 8 * 16
    written = limits.step_operations(nothing._replace(tokens=3), lm, adapter)
    assert written == 2 * 2 * 3 * (maps + ffn + 8 * PLAIN.size)
    read = limits.step_operations(nothing._replace(read=5, last_pairs=5), lm, adapter)
    assert read == 2 * 2 * 5 * 2 * 8 * 8 + 3 * 4 * 8 * 5  # keys and values, looked at by one query
    # The target goes through the layer; the reference is read before it, and is not needed after.
    whole = limits.step_operations(nothing._replace(sequences=1, steps=2), lm, adapter)
    link = 3 * 2 * 4 * 8 * 4 * 2 + 3 * 4 * 4 * 2 * 2
    assert whole == 2 * 2 * 2 * (maps + ffn) + 3 * 4 * 8 * 3 + link


def test_updates_cost_their_own_gradient_too():
    lm = LMConfig(8, 1, 2, 16, local_layers=1, local_heads=2, local_ffn=16)
    one = limits.Counts(0, 0, 0, 0, 0, 0, 1, 0)
    with_, without = (
        limits.step_operations(one, lm, CrossConfig(width=4, heads=2, **option))
        for option in ({}, {"lora": None})
    )
    assert with_ - without == 2 * 3 * 2 * (8 * 16 + 16 * 8)


def test_writing_reads_the_weights_of_a_token_for_each():
    lm = LMConfig(8, 2, 2, 16, local_layers=1, local_heads=2, local_ffn=16)
    rows = np.repeat(TARGET, 4, axis=0)
    least = limits.writing(rows, 1, lm, CrossConfig(width=4, heads=2), item=4)
    layer, head = 4 * 8 * 8 + 2 * 8 * 16, 8 * PLAIN.size
    tokens = 2  # an EOS in each of the two steps after the prompt
    weights = tokens * (layer + head) + 2 * (2 * layer + 2 * 8 * 4 + layer)
    caches = 2 * 2 * 8 * 4 * (1 + 2) + 2 * 4 * 3 * 2
    assert least.bytes == 4 * (weights + caches)
    assert least.operations > 2 * 4 * weights
