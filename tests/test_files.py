import pytest

from m4m_jax.errors import M4MError
from m4m_jax.files import atomic_path, made_folder


def test_file_appears_at_the_end(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        assert temporary.suffix == ".txt"
        assert temporary.parent == tmp_path
        temporary.write_text("x")
        assert not (tmp_path / "a.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_leaves_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")

    def fail():
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("new")
            raise KeyError("half written")

    with pytest.raises(KeyError):
        fail()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_folders_too(tmp_path):
    with atomic_path(tmp_path / "model") as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("x")
    assert (tmp_path / "model" / "a").read_text() == "x"


def test_missing_folder(tmp_path):
    with (
        pytest.raises(M4MError, match="does not exist"),
        atomic_path(tmp_path / "no" / "a.txt"),
    ):
        pass


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with (
        pytest.raises(M4MError, match="cannot be written"),
        atomic_path(tmp_path / "a.txt") as temporary,
    ):
        temporary.write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_made_folder_goes_if_it_stays_empty(tmp_path):
    with made_folder(tmp_path / "a" / "b") as folder:
        assert folder.is_dir()
    assert not (tmp_path / "a").exists()
    with made_folder(tmp_path / "a" / "b") as folder:
        (folder.parent / "file").write_text("x")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]
    with pytest.raises(KeyError), made_folder(tmp_path / "a"):
        raise KeyError
    assert (tmp_path / "a" / "file").exists()
