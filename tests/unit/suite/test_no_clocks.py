"""No test asserts how long something took: a machine that is busy, or that counts ticks, would fail it by chance."""

from __future__ import annotations

import re
from pathlib import Path

import tests

STOPWATCHES = re.compile(
    r"\b(perf_counter|process_time|thread_time|os\.times|getrusage|timeit)\b|assert .*(monotonic|time)\(\) - \w+ <"
)


def test_no_test_holds_a_stopwatch() -> None:
    """Work is counted (tests/work.py); time is measured by the benchmarks."""
    folder = Path(tests.__file__).parent
    found = [
        f"{path.relative_to(folder)}: {match[0]}"
        for path in sorted(folder.rglob("*.py"))
        if path != Path(__file__) and (match := STOPWATCHES.search(path.read_text()))
    ]
    assert not found
