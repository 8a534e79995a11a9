"""Fixtures that the tests of this folder share."""

from tests.compiling import quick_compile as quick_compile
