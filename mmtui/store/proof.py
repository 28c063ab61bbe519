"""What the trainers of a run have reported of the code that they loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmtui.domain import proof
from mmtui.domain.views import AttemptView
from mmtui.store import cells

if TYPE_CHECKING:
    from mmtui.store.reader import Reader

Reports = dict[int, list[Mapping[str, Any] | None]]


def reports(reader: Reader, run_id: int) -> Reports:
    """``code`` of every ``run_started``, by attempt; None where one tells nothing of it.

    SLURM may start an attempt twice, which then has two.
    """
    sql = "SELECT attempt, \"values\" FROM events WHERE run_id = ? AND kind = 'run_started' ORDER BY id"
    found: Reports = {}
    for number, body in reader.query(sql, [run_id]):
        found.setdefault(number, []).append(cells.values("run_started", body).get("code"))
    return found


def with_verdicts(
    reader: Reader, run_id: int, code: Mapping[str, Any], attempts: tuple[AttemptView, ...]
) -> tuple[AttemptView, ...]:
    """The attempts of a run, each with what is known of its code."""
    told = reports(reader, run_id)
    return tuple(replace(one, code=proof.verdict(code, told.get(one.number, ()))) for one in attempts)
