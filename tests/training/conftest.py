"""Fixtures that the tests of this folder share."""

from tests.compiling import quick_compile as quick_compile
from tests.compiling import shared_compilations as shared_compilations
