"""Settings of all tests."""

from __future__ import annotations

import importlib.metadata
import os
import signal

import pytest

# Most of the time of these tests goes into compiling small programs, which this older generator of
# code does in half the time. Where jaxlib no longer has it, it does not know the flag.
if int(importlib.metadata.version("jaxlib").split(".")[1]) < 11:
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false".strip()

# A skipped test proves nothing, so where everything is installed there must be none.
FAIL_SKIPPED = bool(os.environ.get("M4M_FAIL_SKIPPED"))

# A shell's background jobs ignore Ctrl-C, and so would the commands that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _fail_if_skipped(report):
    if FAIL_SKIPPED and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, and M4M_FAIL_SKIPPED is set: " + str(
            report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
        )
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return _fail_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return _fail_if_skipped((yield))
