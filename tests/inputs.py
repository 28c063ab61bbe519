"""How many hostile inputs the tests have made, told at the end of `make fuzz`: a plugin of pytest."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator

import pytest

FUZZ = float(os.environ.get("MMTUI_FUZZ", "1"))
"""How many times as many inputs as in an ordinary run of the tests (``make fuzz``)."""

_made: Counter[str] = Counter()
_told: Counter[str] = Counter()


def count(kind: str) -> None:
    """One more input of a kind, in this process."""
    _made[kind] += 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    _made.clear()
    result = yield
    item.user_properties.append(("inputs", dict(_made)))  # the report takes it along from a worker
    return result


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        for name, value in report.user_properties:
            if name == "inputs" and isinstance(value, dict):
                _told.update(value)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FUZZ == 1 or not _told:
        return
    terminalreporter.section("hostile inputs")
    for kind, number in sorted(_told.items()):
        terminalreporter.write_line(f"{number:>8,} {kind}")
    terminalreporter.write_line(f"{_told.total():>8,} in all")
