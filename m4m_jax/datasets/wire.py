"""Examples of TFDS features as bytes, without TFDS.

TFDS stores an example as a `tf.train.Example` message. Worker processes write that message
themselves: importing TFDS takes longer than the rest of their start, and its serializer a tenth of
the time that a song takes. The bytes of a message depend on nothing but the example, so that a data
set has the same ones wherever it is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# Of the only kind of field that is used: bytes with their length before them.
_SIZED = 2


def serialize(example: Mapping[str, Any]) -> bytes:
    """Return an example as a `tf.train.Example` message, features sorted by name.

    Args:
        example: text (str or bytes), arrays of text (object), and arrays of numbers or truth
            values, which features with `encoding="bytes"` are for.
    """
    entries = []
    for name in sorted(example):
        values = b"".join(_field(1, value) for value in _values(example[name]))
        feature = _field(1, values)  # as a list of bytes
        entries.append(_field(1, _field(1, name.encode()) + _field(2, feature)))
    return _field(1, b"".join(entries))


def _values(value: Any) -> list[bytes]:
    if isinstance(value, np.ndarray):
        return [_text(v) for v in value] if value.dtype == object else [value.tobytes()]
    return [_text(value)]


def _text(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | _SIZED]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
