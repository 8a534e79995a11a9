import dataclasses

import pytest

from m4m_jax.errors import M4MError
from m4m_jax.music import TASKS, Compression, get_task
from m4m_jax.music.tasks import UNKNOWN, as_drawn


def test_tasks_of_the_paper():
    melody = get_task("chord-to-melody")
    assert (melody.reference, melody.target, melody.max_notes) == ("track-1", "track-0", 8)
    drums = get_task("others-to-drums")
    assert (drums.reference, drums.target, drums.max_notes) == ("nondrum", "drum", 16)
    assert drums.dedup
    analysis = get_task("analysis")
    assert (analysis.reference, analysis.target) == ("from-2", "upto-1")
    assert get_task("continuation").reference is None


def test_names_and_descriptions():
    for name, task in TASKS.items():
        assert task.name == name
        assert task.description
        assert "\n" not in task.description


def test_a_task_on_its_own_sequence():
    task = get_task("copy")
    assert task.reference == task.target == "all"


def test_compression_is_of_a_stream_that_is_there():
    coarse = dataclasses.replace(get_task("copy"), compress=Compression(reference=4))
    assert (coarse.compress.reference, coarse.compress.target) == (4, 1)
    assert get_task("copy").compress == Compression(1, 1)
    dataclasses.replace(get_task("continuation"), compress=Compression(target=2))
    with pytest.raises(M4MError, match="task continuation has no reference to compress"):
        dataclasses.replace(get_task("continuation"), compress=Compression(reference=2))


def test_drums_have_no_key():
    assert dataclasses.replace(get_task("others-to-drums"), common_key=True).common_key
    with pytest.raises(M4MError, match="drums-to-others is given drums, which have no key"):
        dataclasses.replace(get_task("drums-to-others"), common_key=True)


def test_a_harmony_by_quarter_is_of_a_reference():
    assert dataclasses.replace(get_task("copy"), harmony_by_quarter=True).harmony_by_quarter
    with pytest.raises(M4MError, match="task continuation has no reference to reduce"):
        dataclasses.replace(get_task("continuation"), harmony_by_quarter=True)


def test_unknown_task_names_the_nearest():
    with pytest.raises(M4MError, match="did you mean 'chord-to-melody'"):
        get_task("chords-to-melody")
    with pytest.raises(M4MError, match=r"there are .*harmonize"):
        get_task("xyz")


def test_a_task_says_how_its_targets_are_drawn():
    own = (get_task("analysis").temperature, get_task("analysis").top_p)
    assert as_drawn("analysis") == own == (0.0, 1.0)
    assert as_drawn("analysis", temperature=0.7) == (0.7, 1.0)
    assert as_drawn("analysis", top_p=0.9) == (0.0, 0.9)
    assert as_drawn(UNKNOWN) == (1.0, 1.0)
