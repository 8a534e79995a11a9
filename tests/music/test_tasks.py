import pytest

from m4m_jax.errors import M4MError
from m4m_jax.music import TASKS, get_task


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


def test_unknown_task_names_the_nearest():
    with pytest.raises(M4MError, match="did you mean 'chord-to-melody'"):
        get_task("chords-to-melody")
    with pytest.raises(M4MError, match=r"there are .*harmonize"):
        get_task("xyz")
