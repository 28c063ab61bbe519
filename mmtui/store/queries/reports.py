"""What the trainers of a run have reported of the code that they loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmtui.store.proof import Reports, by_attempt

if TYPE_CHECKING:
    from mmtui.store.reader import Reader


def reports(reader: Reader, run_id: int) -> Reports:
    """``code`` of every ``run_started``, by attempt; None where one tells nothing of it.

    SLURM may start an attempt twice, which then has two.
    """
    sql = "SELECT attempt, \"values\" FROM events WHERE run_id = ? AND kind = 'run_started' ORDER BY id"
    return by_attempt(reader.query(sql, [run_id]))
