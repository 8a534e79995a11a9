"""Fixtures that the tests of this folder share."""

import pytest

from tests.compiling import quick_compile as quick_compile
from tests.compiling import shared_compilations as shared_compilations
from tests.training import runs


@pytest.fixture
def micro(monkeypatch):
    """The size `micro` is known."""
    runs.prepare(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Where a data set of made-up songs lives."""
    return runs.build_data(tmp_path_factory.mktemp("data"))
