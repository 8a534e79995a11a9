from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m4m_jax.data import packing
from m4m_jax.data.packing import BLOCK, Size, choose_sizes, largest, measure, pack, unpack
from m4m_jax.music.simunote import PLAIN, VELOCITY, Vocabulary


def token_rows(rng, batch: int, steps: int, notes: int, vocabulary: Vocabulary) -> np.ndarray:
    """Rows with 0 to N notes, few different ones, as a codec would write them."""
    count = rng.integers(0, notes + 1, (batch, steps, 1))
    place = np.arange(2 * notes)
    low = np.where(place % 2, vocabulary.pitch_range.start, 0)
    rows = low + rng.integers(0, 3, (batch, steps, 2 * notes))
    rows = np.where(place < 2 * count, rows, vocabulary.pad)
    return np.where(place == 2 * count, vocabulary.eos, rows).astype(np.int32)


@st.composite
def batches(draw):
    """(target, reference or None, shards, vocabulary)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shards, windows = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    steps, notes = draw(st.integers(1, 40)), draw(st.integers(1, 32))
    vocabulary = draw(st.sampled_from([PLAIN, VELOCITY]))
    target, reference = (
        token_rows(rng, shards * windows, length, notes, vocabulary)
        for length in (steps, draw(st.sampled_from([steps, draw(st.integers(1, 40))])))
    )
    return target, reference if draw(st.booleans()) else None, shards, vocabulary


def in_windows(values: np.ndarray) -> np.ndarray:
    """[S, B, ...] -> [S B, ...]."""
    return values.reshape(-1, *values.shape[2:])


@settings(max_examples=150, deadline=None)
@given(batches())
def test_packed_form_decodes_to_the_rows(example):
    target, reference, shards, vocabulary = example
    packed = pack(target, reference, vocabulary=vocabulary, shards=shards)
    for rows, index in ((target, packed.target), (reference, packed.reference)):
        if rows is None:
            assert index is None
            continue
        found = np.stack([r[i] for r, i in zip(packed.rows, index, strict=True)])
        assert np.array_equal(in_windows(found), rows)
    decoded = unpack(packed.tokens, packed)
    real = target != vocabulary.pad
    assert np.array_equal(decoded[real], target[real])
    assert not decoded[~real].any()
    assert (packed.step >= 0).sum() == real.sum()
    assert all(x.dtype == np.int32 for x in packed if x is not None)


@settings(max_examples=100, deadline=None)
@given(batches())
def test_tokens_of_a_step_stand_together_in_one_block(example):
    target, reference, shards, vocabulary = example
    packed = pack(target, reference, vocabulary=vocabulary, shards=shards)
    for step, position in zip(packed.step, packed.position, strict=True):
        used = step >= 0
        same = used[:, 1:] & used[:, :-1] & (step[:, 1:] == step[:, :-1])
        assert (np.diff(position, axis=1)[same] == 1).all()
        # A step's tokens from place 0 to the last, once each: no block begins inside a step.
        starts = (position == 0) & used
        assert starts.sum() == len(np.unique(step[used]))
        assert starts[used[:, 0], 0].all()
    unused = packed.step < 0
    assert (packed.tokens[unused] == vocabulary.pad).all()


@settings(max_examples=100, deadline=None)
@given(batches(), st.integers(0, 5), st.integers(0, 5))
def test_rows_without_pads_stand_each_in_a_block(example, rows, blocks):
    target, reference, shards, vocabulary = example
    own = pack(target, reference, vocabulary=vocabulary, shards=shards, masked=True)
    need = packing.size_of(own)
    wide = packing.widen(own, Size(need.rows + rows, need.blocks, need.read + blocks), vocabulary)
    plain = pack(target, reference, vocabulary=vocabulary, shards=shards)
    assert np.array_equal(wide.rows[:, : need.rows], plain.rows)
    for shard in range(shards):
        read = packing.Read(*(x[shard] for x in wide.read))
        used = read.row >= 0
        for number, row in enumerate(plain.rows[shard]):
            real = row[row != vocabulary.pad]
            if not len(real):  # fills the shard up to the others' size
                continue
            block, begin = divmod(read.place[number], read.first.shape[1])
            begin = read.first[block, begin]
            place = np.s_[block, begin : begin + 1 + len(real)]
            assert read.tokens[place].tolist() == [vocabulary.sos, *real]
            assert read.position[place].tolist() == list(range(1 + len(real)))
            assert (read.row[place] == number).all()
            assert (read.row == number).sum() == 1 + len(real)
        assert (read.tokens[~used] == vocabulary.pad).all()
        assert used.sum() == sum(1 + (row != vocabulary.pad).sum() for row in _taken(wide, shard))


def _taken(batch, shard: int) -> np.ndarray:
    """The rows of a shard that stand in its blocks."""
    return batch.rows[shard][: batch.read.row[shard].max() + 1]


def test_each_row_may_be_taken_for_itself():
    target = token_rows(np.random.default_rng(5), 2, 30, 1, PLAIN)
    reference = target[:, :20]
    packed = pack(target, reference, vocabulary=PLAIN, per_row=True)
    assert packed.rows.shape == (1, 2 * 50, 2)
    assert np.array_equal(packed.rows[0][packed.target[0]], target)
    assert np.array_equal(packed.rows[0][packed.reference[0]], reference)
    assert len(np.unique(np.concatenate([packed.target, packed.reference], -1))) == 100


@settings(max_examples=100, deadline=None)
@given(batches())
def test_rows_are_distinct_and_the_rest_is_padding(example):
    target, reference, shards, vocabulary = example
    need = measure(target, reference, shards=shards, vocabulary=vocabulary)
    size = Size(need.rows + 3, need.blocks + 2)
    packed = pack(target, reference, vocabulary=vocabulary, shards=shards, sizes=[size])
    assert packed.rows.shape[1] == size.rows
    assert packed.tokens.shape[1:] == (size.blocks, BLOCK)
    streams = [target] if reference is None else [target, reference]
    for s, rows in enumerate(packed.rows):
        parts = [np.split(x, shards)[s].reshape(-1, x.shape[-1]) for x in streams]
        count = len(np.unique(np.concatenate(parts), axis=0))
        assert len(np.unique(rows[:count], axis=0)) == count
        assert (rows[count:] == vocabulary.pad).all()


@settings(max_examples=100, deadline=None)
@given(batches())
def test_the_largest_size_holds_any_batch(example):
    target, reference, shards, vocabulary = example
    heard = None if reference is None else reference.shape[1]
    how = {"shards": shards, "vocabulary": vocabulary}
    for masked in (False, True):
        most = largest(len(target) // shards, *target.shape[1:], heard, masked=masked)
        assert most.holds(measure(target, reference, masked=masked, **how))
        pack(target, reference, sizes=[most], masked=masked, **how)


@pytest.mark.parametrize("notes", [1, 3, 11, 16, 31, 32])
def test_the_largest_size_holds_full_rows_that_all_differ(notes):
    number = np.arange(2 * 20, dtype=np.int32).reshape(2, 20, 1)
    target = np.broadcast_to(number % 128, (2, 20, 2 * notes)).copy()
    reference = target + 300
    need = measure(target, reference, shards=1, vocabulary=PLAIN)
    assert need.rows == largest(2, 20, 2 * notes).rows
    assert largest(2, 20, 2 * notes).holds(need)
    need = measure(target, reference, shards=1, vocabulary=PLAIN, masked=True)
    assert largest(2, 20, 2 * notes, masked=True).holds(need)
    need = measure(target, reference[:, :5], shards=1, vocabulary=PLAIN)
    assert need.rows == largest(2, 20, 2 * notes, 5).rows
    assert need.blocks == largest(2, 20, 2 * notes, 0).blocks


def test_a_batch_takes_the_first_size_that_holds_it():
    rng = np.random.default_rng(0)
    target = token_rows(rng, 2, 30, 4, PLAIN)
    need = measure(target, None, shards=1, vocabulary=PLAIN)
    too_small = [Size(need.rows - 1, need.blocks), Size(need.rows, need.blocks - 1)]
    larger, most = Size(need.rows + 1, need.blocks), Size(need.rows + 9, need.blocks + 9)
    packed = pack(target, vocabulary=PLAIN, sizes=[*too_small, larger, most])
    assert packed.rows.shape[1] == larger.rows
    own = pack(target, vocabulary=PLAIN)
    assert Size(own.rows.shape[1], own.tokens.shape[1]) == need
    with pytest.raises(ValueError, match="no size of"):
        pack(target, vocabulary=PLAIN, sizes=too_small)


def test_chosen_sizes_ascend_to_the_most():
    most = Size(768, 400)
    seen = [*[Size(30, 9)] * 9, Size(80, 30)]
    sizes = choose_sizes(seen, most)
    assert sizes == (Size(32, 16), Size(88, 40), Size(120, 48), most)
    assert choose_sizes([Size(700, 390)], most)[-1] == most
    assert all(size.holds(Size(80, 30)) for size in sizes[1:])
    assert choose_sizes([most], most) == (most,)


@pytest.mark.parametrize(
    "seen",
    [
        [Size(80, 16), Size(16, 80)] * 4,  # half need the rows, the others the blocks
        [*[Size(64, 72)] * 9, Size(80, 80)],  # all need nearly as much
    ],
)
def test_the_usual_size_is_left_out_where_it_saves_little(seen):
    """It would be a program more to compile: the largest serves all."""
    assert choose_sizes(seen, Size(800, 800)) == (
        *(Size(88, 88), Size(120, 120)),
        Size(800, 800),
    )


@settings(max_examples=100, deadline=None)
@given(batches(), st.integers(0, 20), st.integers(0, 5))
def test_a_wider_batch_holds_the_same(example, rows, blocks):
    target, reference, shards, vocabulary = example
    own = pack(target, reference, vocabulary=vocabulary, shards=shards)
    need = packing.size_of(own)
    wide = Size(need.rows + rows, need.blocks + blocks)
    found = packing.widen(own, wide, vocabulary)
    assert packing.size_of(found) == wide
    assert np.array_equal(found.rows[:, : need.rows], own.rows)
    assert np.array_equal(unpack(found.tokens, found), unpack(own.tokens, own))
    assert (found.step >= 0).sum() == (own.step >= 0).sum()


def test_sizes_of_a_masked_encoder_count_its_blocks():
    most = Size(768, 400, 700)
    seen = [*[Size(30, 9, 5)] * 9, Size(80, 30, 50)]
    sizes = choose_sizes(seen, most)
    assert sizes == (Size(32, 16, 8), Size(88, 40, 56), Size(120, 48, 80), most)


def test_equal_digests_do_not_make_rows_equal(monkeypatch):
    class Zero:
        def integers(self, low, high, size, dtype):
            return np.zeros(size, dtype)

    rows = np.array([[1, 2, 3, 4], [3, 4, 1, 2], [1, 2, 3, 4], [1, 2, 1, 2]], np.int32)
    monkeypatch.setattr(packing.np.random, "default_rng", lambda seed: Zero())
    # The weights are made odd, so all are 1 here: the first two rows share a digest.
    found, index = packing.distinct(rows)
    assert np.array_equal(found[index], rows)
    assert len(found) == 3


def test_packing_does_not_depend_on_what_was_packed_before():
    rng = np.random.default_rng(1)
    target, other = (token_rows(rng, 2, 30, 4, PLAIN) for _ in range(2))
    first = pack(target, vocabulary=PLAIN)
    pack(other, vocabulary=PLAIN)
    again = pack(target, vocabulary=PLAIN)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_values_with_more_axes_unpack():
    rng = np.random.default_rng(2)
    target = token_rows(rng, 4, 10, 3, PLAIN)
    packed = pack(target, vocabulary=PLAIN, shards=2)
    values = np.stack([packed.tokens, 2 * packed.tokens], axis=-1)
    got = unpack(values, packed)
    real = target != PLAIN.pad
    assert got.shape == (*target.shape, 2)
    assert np.array_equal(got[real], np.stack([target, 2 * target], -1)[real])


def test_what_does_not_fit_is_refused():
    target = token_rows(np.random.default_rng(3), 3, 5, 4, PLAIN)
    with pytest.raises(ValueError, match="3 windows does not divide over 2 shards"):
        pack(target, vocabulary=PLAIN, shards=2)
    for other in (target[:2], target[..., :4]):
        with pytest.raises(ValueError, match="differ in more than their steps"):
            pack(target, other, vocabulary=PLAIN)
    wide = np.full((1, 2, 66), PLAIN.pad, np.int32)
    with pytest.raises(ValueError, match="66 tokens is longer than a block"):
        measure(wide, None, shards=1, vocabulary=PLAIN)


def test_a_pad_within_a_row_is_refused():
    target = token_rows(np.random.default_rng(4), 1, 5, 4, PLAIN)
    target[0, 2] = [PLAIN.pad] * 7 + [PLAIN.eos]
    with pytest.raises(ValueError, match="a PAD stands before other tokens"):
        pack(target, vocabulary=PLAIN)
