"""Beam is an extra for clusters; its tests run where it is installed."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("apache_beam") else ["test_run_beam.py"]
