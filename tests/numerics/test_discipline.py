"""A quiet step waits for no GPU, launches no more operators than are written down, and leaves no tensor behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.discipline import CASES, EVALUATIONS, REASONS, Case, Evaluation, further_batch, quiet_step
from tests.pretended_gpu import TO_HOST


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_quiet_step_waits_for_nothing_but_what_is_known(case: Case, tmp_path: Path) -> None:
    count = quiet_step(case, tmp_path)
    assert count.kinds() == {}, count.stalls
    assert count.kinds(beside=True) == case.beside, count.stalls
    assert {stall.place for stall in count.stalls} <= REASONS.keys()
    assert count.operators > 100


@pytest.mark.parametrize("case", EVALUATIONS, ids=lambda case: case.name)
def test_evaluation_waits_at_its_end_and_for_files_alone(case: Evaluation, tmp_path: Path) -> None:
    more, end = further_batch(case, tmp_path)
    assert more.kinds() == case.stalls, more.stalls
    assert {stall.place for stall in more.stalls} <= REASONS.keys()
    assert end.kinds() == {TO_HOST: 1}, "the counts of all batches"
    assert more.operators > 20
