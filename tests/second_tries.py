"""Second tries of tests that start real processes, and an account of each: a plugin of pytest (tests/conftest.py).

``MMTUI_SECOND_TRIES=0``: none is made. ``MMTUI_MOST_SECOND_TRIES``: with more of them than so many (3) a run fails.
"""

from __future__ import annotations

import os

import pytest

_first: dict[str, str] = {}
"""By the test's name: how its first try failed."""


def may_be_tried_again(item: pytest.Item) -> bool:
    """What such a test sees depends on how the machine shares itself out; a number or a text does not."""
    marked = {marker.name for marker in item.iter_markers()}
    return bool({"e2e", "slurm"} & marked) or {"tui", "terminal"} <= marked


def most() -> int:
    """So many second tries may be needed."""
    return int(os.environ.get("MMTUI_MOST_SECOND_TRIES", "") or 3)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("MMTUI_SECOND_TRIES", "") != "0":
        for item in filter(may_be_tried_again, items):
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.outcome == "rerun":
        _first[report.nodeid] = _first.get(report.nodeid, "") + report.longreprtext


def pytest_sessionfinish(session: pytest.Session) -> None:
    if len(_first) > most() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _first:
        terminalreporter.section("second tries")
    for name, text in _first.items():
        terminalreporter.write_line(f"tried again: {name}", yellow=True)
        terminalreporter.write_line(text)
    if len(_first) > most():
        terminalreporter.write_line(f"FAILED: {len(_first)} second tries; {most()} at most may be needed", red=True)
