"""A quiet step waits for no GPU, launches no more operators than are written down, and leaves no tensor behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.discipline import CASES, REASONS, Case, quiet_step


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_quiet_step_waits_for_nothing_but_what_is_known(case: Case, tmp_path: Path) -> None:
    count = quiet_step(case, tmp_path)
    assert count.kinds() == {}, count.stalls
    assert count.kinds(beside=True) == case.beside, count.stalls
    assert {stall.place for stall in count.stalls} <= REASONS.keys()
    assert count.operators > 100
