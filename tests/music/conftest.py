"""Settings of the tests of music."""

import os

from hypothesis import HealthCheck, settings

# Time limits for single examples fail on a busy machine.
settings.register_profile("m4m", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("m4m")

# The comparison with stored rows needs songs that are not part of this repository.
collect_ignore = [] if os.environ.get("M4M_MIDI_ARCHIVE") else ["test_archive.py"]
