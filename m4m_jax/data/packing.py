"""Token rows -> the packed batch that the models read: music without its padding.

Most tokens of a batch are PAD and most of its rows are equal. So the batch carries each distinct
row once, with an index (the local encoder reads those), and the real target tokens in blocks (the
local decoder reads those). A shard is what one device holds; every array leads with shards, and
all shards of a batch have one size, out of a few.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from m4m_jax.music.simunote import Vocabulary

BLOCK = 64
"""Positions of a block: it holds the tokens of whole steps, 2N <= 64 each."""


class Read(NamedTuple):
    """Distinct rows without their PADs, in E blocks of P positions, for the masked local encoder.

    tokens: [S, E, P], SOS and the tokens of each row, together; PAD where unused.
    row: [S, E, P], the row that a token belongs to; -1 where unused.
    position: [S, E, P], a token's place within its row, 0 .. 2N.
    first: [S, E, Q], where in a block its rows begin; 0 where unused.
    place: [S, R], where among the [E Q] beginnings each row's is; 0 for PAD rows.
    """

    tokens: Any
    row: Any
    position: Any
    first: Any
    place: Any


class PackedBatch(NamedTuple):
    """A batch of B windows of T steps on each of S shards; int32 arrays of numpy or JAX.

    rows: [S, R, 2N], the distinct rows of a shard's references and targets, then PAD rows.
    reference: [S, B, L], which of `rows` each step of the references is; None without references.
        L is T unless a stream is compressed.
    target: [S, B, T], likewise.
    tokens: [S, K, P], the targets' tokens that are not PAD, a step's together; PAD where unused.
    step: [S, K, P], the step b * T + t that a token belongs to; -1 where unused.
    position: [S, K, P], a token's place within its step, 0 .. 2N - 1.
    read: the distinct rows again, for a local encoder that does not read PADs; None for others.
    """

    rows: Any
    reference: Any
    target: Any
    tokens: Any
    step: Any
    position: Any
    read: Read | None = None


class Size(NamedTuple):
    """How large a shard's packed arrays are: distinct rows, blocks of the targets', of the rows'.

    read: 0 where the local encoder reads whole rows.
    """

    rows: int
    blocks: int
    read: int = 0

    def holds(self, other: Size) -> bool:
        """Whether a batch of size `other` fits."""
        return all(mine >= theirs for mine, theirs in zip(self, other, strict=True))


class _Laid(NamedTuple):
    """Tokens of sequences in blocks: each one's sequence, its place there, its slot; the blocks."""

    owner: np.ndarray
    position: np.ndarray
    slot: np.ndarray
    blocks: int


class _Shard(NamedTuple):
    """One shard, not yet filled up to a common size."""

    rows: np.ndarray
    which: np.ndarray
    target: _Laid
    read: _Laid | None


def distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of int32 `rows` [n, 2N], in a fixed order, and each row's index there."""
    pairs = np.ascontiguousarray(rows, np.int32).view(np.uint64)  # two tokens each
    weights = np.random.default_rng(0).integers(1, 2**63, pairs.shape[1], np.uint64)
    digest = np.einsum("np,p->n", pairs, weights | np.uint64(1))
    _, first, index = np.unique(digest, return_index=True, return_inverse=True)
    if np.array_equal(pairs[first].take(index, axis=0), pairs):
        return rows[first], index
    return np.unique(rows, axis=0, return_inverse=True)  # two rows share a digest


def _lay(lengths: np.ndarray, positions: int, most: int) -> _Laid:
    """Lay sequences of these lengths in order into blocks, none across two, `most` in each."""
    ends = np.cumsum(lengths)
    listed, begins, done, before = ends.tolist(), [], 0, 0
    while done < len(listed):
        begins.append(done)
        done = min(bisect.bisect_right(listed, before + positions, done), done + most)
        before = listed[done - 1]
    block = np.zeros(len(lengths), np.int64)
    block[begins] = 1
    block = np.cumsum(block) - 1
    first = ends - lengths
    starts = positions * block + first - first[begins][block]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(owner)) - np.repeat(first, lengths)
    return _Laid(owner, position, starts[owner] + position, len(begins))


def _read_shape(width: int) -> tuple[int, int]:
    """Positions P of a block of rows of `width` tokens and SOS, and how many rows Q may be in it.

    A row with a note has three tokens at the least.
    """
    positions = max(BLOCK, width + 1)
    return positions, positions // 3


def _pack_shard(
    reference: np.ndarray | None, target: np.ndarray, pad: int, masked: bool, per_row: bool
) -> _Shard:
    streams = [target] if reference is None else [reference, target]
    rows = np.concatenate([s.reshape(-1, s.shape[-1]) for s in streams])
    rows, index = (rows, np.arange(len(rows))) if per_row else distinct(rows)
    length = np.count_nonzero(rows != pad, axis=1)
    if ((rows == pad) != (np.arange(rows.shape[1]) >= length[:, None])).any():
        raise ValueError("a PAD stands before other tokens of its row")
    which = index[-target.shape[0] * target.shape[1] :]
    return _Shard(
        rows,
        index,
        _lay(length[which], BLOCK, len(which)),
        _lay(1 + length, *_read_shape(rows.shape[1])) if masked else None,
    )


def _check(reference: np.ndarray | None, target: np.ndarray, shards: int) -> None:
    if target.shape[0] % shards:
        raise ValueError(
            f"a batch of {target.shape[0]} windows does not divide over {shards} shards"
        )
    if target.shape[-1] > BLOCK:
        raise ValueError(f"a row of {target.shape[-1]} tokens is longer than a block of {BLOCK}")
    if reference is not None and reference.shape[::2] != target.shape[::2]:
        raise ValueError(
            f"reference {reference.shape} and target {target.shape} differ in more than their steps"
        )


def _shards(
    target: np.ndarray, reference: np.ndarray | None, shards: int, *how: Any
) -> list[_Shard]:
    _check(reference, target, shards)
    targets = np.split(target, shards)
    references = [None] * shards if reference is None else np.split(reference, shards)
    return [_pack_shard(r, t, *how) for r, t in zip(references, targets, strict=True)]


def _need(packed: Sequence[_Shard]) -> Size:
    return Size(
        max(len(s.rows) for s in packed),
        max(s.target.blocks for s in packed),
        max(0 if s.read is None else s.read.blocks for s in packed),
    )


def measure(
    target: np.ndarray,
    reference: np.ndarray | None,
    *,
    shards: int,
    vocabulary: Vocabulary,
    masked: bool = False,
    per_row: bool = False,
) -> Size:
    """The least size that holds a batch of token rows [B, T, 2N], references [B, L, 2N].

    masked, per_row: as in `pack`.
    """
    return _need(_shards(target, reference, shards, vocabulary.pad, masked, per_row))


def largest(
    windows: int,
    steps: int,
    width: int,
    reference_steps: int | None = None,
    *,
    masked: bool = False,
) -> Size:
    """A size that holds any batch: `windows` pairs a shard, `steps` rows of `width` tokens each.

    reference_steps: rows of a reference, where they are not as many. masked: as in `pack`.
    """
    rows = windows * (steps + (steps if reference_steps is None else reference_steps))
    positions, most = _read_shape(width)
    read = -(-rows // min(positions // (width + 1), most)) if masked else 0
    return Size(rows, -(-windows * steps // (BLOCK // width)), read)


def choose_sizes(seen: Sequence[Size], most: Size) -> tuple[Size, ...]:
    """A few sizes for batches like those `seen`, ascending; a batch past one takes the next.

    One for the usual batch, as small as makes the work least over those seen, where that saves a
    quarter; one with a tenth to spare over the largest of them, one with half, and `most`, which
    holds them all. Every size that is needed is a program to compile, and the last two hardly ever
    are.
    """
    need = np.array(seen, np.float64)
    large = need.max(axis=0)
    share = np.divide(1, large, where=large > 0, out=np.zeros_like(large))
    whole = 1.1 * np.count_nonzero(large)

    def work(size: Size) -> float:
        """What the batches seen cost with this size and `large`, all kinds weighing alike."""
        fits = (need <= size).all(axis=1)
        return float(np.where(fits, share @ size, whole).mean())

    quantiles = np.quantile(need, np.linspace(0.5, 1, 21), axis=0)
    usual = min((_rounded(q) for q in quantiles), key=work)
    ladder = [_rounded(1.1 * large), _rounded(1.5 * large), most]
    if work(usual) < 0.75 * whole:
        ladder.insert(0, usual)
    return tuple(dict.fromkeys(Size(*map(min, size, most)) for size in ladder))


def halvings(most: Size) -> tuple[Size, ...]:
    """`most`, and it halved again and again, ascending: few sizes for batches of any fill."""
    shares = [2**k for k in range(8, -1, -1)]
    return tuple(Size(*(-(-part // share) for part in most)) for share in shares)


def _rounded(size: np.ndarray) -> Size:
    """The next multiples of 8."""
    return Size(*(int(x) for x in np.ceil(size / 8) * 8))


def pack(
    target: np.ndarray,
    reference: np.ndarray | None = None,
    *,
    vocabulary: Vocabulary,
    shards: int = 1,
    sizes: Iterable[Size] | None = None,
    masked: bool = False,
    per_row: bool = False,
) -> PackedBatch:
    """Pack token rows int32 [B, T, 2N]; shard s takes windows s B / S up to (s + 1) B / S.

    References are int32 [B, L, 2N]; L may be another number of steps.
    The batch takes the first of `sizes` that holds it (default: its own size). Raises ValueError
    where none does or where B does not divide over the shards.

    masked: for a masked local encoder, which does not read PADs.
    per_row: take each row for itself, though others be equal.
    """
    packed = _shards(target, reference, shards, vocabulary.pad, masked, per_row)
    need = _need(packed)
    windows, steps, width = target.shape[0] // shards, *target.shape[1:]
    cells = windows * steps
    index = np.stack([s.which for s in packed]).astype(np.int32)

    def blocks(values: Sequence[np.ndarray], empty: int) -> np.ndarray:
        slots = [s.target.slot for s in packed]
        return _in_blocks(slots, values, need.blocks, BLOCK, empty)

    rows = np.full((shards, need.rows, width), vocabulary.pad, np.int32)
    for i, s in enumerate(packed):
        rows[i, : len(s.rows)] = s.rows
    written = [s.rows[s.which[-cells:][s.target.owner], s.target.position] for s in packed]
    batch = PackedBatch(
        rows=rows,
        reference=None if reference is None else index[:, :-cells].reshape(shards, windows, -1),
        target=index[:, -cells:].reshape(shards, windows, steps),
        tokens=blocks(written, vocabulary.pad),
        step=blocks([s.target.owner for s in packed], -1),
        position=blocks([s.target.position for s in packed], 0),
        read=_read(packed, need, vocabulary) if masked else None,
    )
    return batch if sizes is None else widen(batch, first_that_holds(need, sizes), vocabulary)


def _in_blocks(
    slots: Sequence[np.ndarray],
    values: Sequence[np.ndarray],
    blocks: int,
    positions: int,
    empty: int,
) -> np.ndarray:
    """Each shard's values at its slots: int32 [S, blocks, positions]."""
    out = np.full((len(slots), blocks * positions), empty, np.int32)
    for shard, slot, value in zip(out, slots, values, strict=True):
        shard[slot] = value
    return out.reshape(len(slots), blocks, positions)


def _read(packed: Sequence[_Shard], need: Size, vocabulary: Vocabulary) -> Read:
    positions, most = _read_shape(packed[0].rows.shape[1])
    laid = [s.read for s in packed if s.read is not None]
    tokens = [
        np.where(x.position == 0, vocabulary.sos, s.rows[x.owner, np.maximum(x.position, 1) - 1])
        for s, x in zip(packed, laid, strict=True)
    ]
    begins = [x.slot[x.position == 0] for x in laid]
    block = [begin // positions for begin in begins]
    place = [most * b + np.arange(len(b)) - np.searchsorted(b, b) for b in block]

    def blocks(values: Sequence[np.ndarray], empty: int) -> np.ndarray:
        return _in_blocks([x.slot for x in laid], values, need.read, positions, empty)

    return Read(
        tokens=blocks(tokens, vocabulary.pad),
        row=blocks([x.owner for x in laid], -1),
        position=blocks([x.position for x in laid], 0),
        first=_in_blocks(place, [begin % positions for begin in begins], need.read, most, 0),
        place=_in_blocks([np.arange(len(p)) for p in place], place, 1, need.rows, 0)[:, 0],
    )


def size_of(batch: PackedBatch) -> Size:
    """How large the arrays of a packed batch [..., S, ...] are."""
    read = 0 if batch.read is None else batch.read.tokens.shape[-2]
    return Size(batch.rows.shape[-2], batch.tokens.shape[-2], read)


def first_that_holds(need: Size, sizes: Iterable[Size]) -> Size:
    """The first of `sizes` that holds a batch of size `need`; ValueError where none does."""
    for size in sizes:
        if size.holds(need):
            return size
    raise ValueError(f"no size of {list(sizes)} holds a batch of {need}")


def widen(batch: PackedBatch, size: Size, vocabulary: Vocabulary) -> PackedBatch:
    """A packed batch [..., S, ...] with its arrays filled up to a larger size."""

    def fill(values: np.ndarray, length: int, empty: int) -> np.ndarray:
        out = np.full((*values.shape[:-2], length, values.shape[-1]), empty, np.int32)
        out[..., : values.shape[-2], :] = values
        return out

    if size == size_of(batch):
        return batch
    read = batch.read
    if read is not None:
        read = Read(
            tokens=fill(read.tokens, size.read, vocabulary.pad),
            row=fill(read.row, size.read, -1),
            position=fill(read.position, size.read, 0),
            first=fill(read.first, size.read, 0),
            place=fill(read.place[..., None], size.rows, 0)[..., 0],
        )
    return batch._replace(
        rows=fill(batch.rows, size.rows, vocabulary.pad),
        tokens=fill(batch.tokens, size.blocks, vocabulary.pad),
        step=fill(batch.step, size.blocks, -1),
        position=fill(batch.position, size.blocks, 0),
        read=read,
    )


def unpack(values: np.ndarray, batch: PackedBatch) -> np.ndarray:
    """Values per packed token [S, K, P, ...] -> per target token [B, T, 2N, ...], 0 at PAD."""
    shards, windows, steps = batch.target.shape
    width, rest = batch.rows.shape[-1], values.shape[3:]
    out = np.zeros((shards, windows * steps, width, *rest), values.dtype)
    shard, block, slot = np.nonzero(batch.step >= 0)
    cell = (shard, batch.step[shard, block, slot], batch.position[shard, block, slot])
    out[cell] = values[shard, block, slot]
    return out.reshape(shards * windows, steps, width, *rest)
