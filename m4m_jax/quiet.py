"""What libraries say of their own internals, kept off the console."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_absl() -> Iterator[None]:
    """In the block, let only errors through of what Orbax, TFDS and others say by absl."""
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
