"""The comparison with stored rows needs songs that are not part of this repository."""

import os

collect_ignore = [] if os.environ.get("M4M_MIDI_ARCHIVE") else ["test_archive.py"]
