from __future__ import annotations

import numpy as np
import pytest

from m4m_jax.datasets import record, wire
from m4m_jax.music import NoteTable, Track
from tests.datasets.music import song

tfds = pytest.importorskip("tensorflow_datasets")


def stored(name, table):
    return record.Song(name, record.content_hash(table), table)


EMPTY = NoteTable(notes=np.zeros((0, 6), np.int32), tracks=(), length=0)
ODD_NAME = NoteTable(np.array([[0, 1, 60, 0, 9, 0]]), (Track("\u00e9\n", 0),), 4)
SONGS = [
    stored("a/b.mid", song(0)),
    stored("long.mid", song(1, bars=400, tracks=5)),
    stored("bad \udcff.mid", ODD_NAME),
    stored("", EMPTY),
]


@pytest.mark.parametrize("item", SONGS, ids=lambda item: repr(item.name))
def test_it_is_the_message_that_tfds_writes(item):
    from tensorflow_datasets.core.example_serializer import ExampleSerializer
    from tensorflow_datasets.proto import tf_example_pb2

    features = record.features()
    example = record.encode(item)
    theirs = ExampleSerializer(features.get_serialized_info()).serialize_example(
        features.encode_example(example)
    )
    ours = wire.serialize(example)
    assert tf_example_pb2.Example.FromString(ours) == tf_example_pb2.Example.FromString(theirs)
    assert record.decode(features.deserialize_example_np(ours)) == item


def test_the_order_of_the_features_does_not_matter():
    example = record.encode(SONGS[0])
    backwards = dict(reversed(example.items()))
    assert wire.serialize(backwards) == wire.serialize(example)
