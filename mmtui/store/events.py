"""What the trainers of one run have reported of it besides metrics, as far as its details show it: one statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from engine.events import records
from mmtui.domain.text import replay_words
from mmtui.store import cells
from mmtui.store.filters import KEPT

RecordType = TypeVar("RecordType", bound=records.Record)
Query = Callable[[str, Sequence[object]], list[sqlite3.Row]]
"""Gives all rows of a query with these parameters."""
_SELECT = 'SELECT id, kind, attempt, stage, step, "values" FROM events e WHERE run_id = ?1'
_NEWEST = f"SELECT * FROM ({_SELECT} AND kind = '{{}}'{{}} ORDER BY id DESC LIMIT {{}})"
_NOT_DONE_AGAIN = f" AND {KEPT.format(t='e')}"
# Every part goes by the index of run, kind and id: of what may come thousands of times only the newest are read.
_DETAILS = " UNION ALL ".join(
    [
        f"{_SELECT} AND kind IN ('run_started', 'stage_finished', 'stage_reused')",
        f"{_SELECT} AND kind = 'early_stop'{_NOT_DONE_AGAIN}",
        _NEWEST.format("best", _NOT_DONE_AGAIN, 1),
        _NEWEST.format("data", "", 1),
        _NEWEST.format("progress", "", 1),
        _NEWEST.format("warning", "", 20),
    ]
)


@dataclass(frozen=True)
class Reported:
    """Rows of the table of events, oldest first: id, kind, attempt, stage, step, values."""

    rows: Sequence[sqlite3.Row]

    def of(self, kind: str) -> list[sqlite3.Row]:
        """Those of a kind: all of them, of warnings the newest twenty, of best, data and progress the newest."""
        return [row for row in self.rows if row["kind"] == kind]

    def last(self, kind: type[RecordType]) -> RecordType:
        """The newest of a kind; one in which nothing is told if there is none."""
        found = self.of(kind.KIND)
        return cells.record(kind, found[-1]["values"]) if found else kind()

    def warnings(self) -> tuple[str, ...]:
        """The newest first."""
        return tuple(cells.record(records.Warning, row["values"]).text or "" for row in reversed(self.of("warning")))

    def reused(self) -> dict[str, str]:
        """{stage: the run that it was taken over from}."""
        found = self.of("stage_reused")
        return {row["stage"]: _run_of(row["values"]) for row in found}

    def replay(self) -> str:
        """Whether losses that were computed twice, before a resume and after it, are the same."""
        told = [cells.record(records.StageFinished, row["values"]) for row in self.of("stage_finished")]
        return replay_words(
            sum(one.replayed or 0 for one in told),
            sum(one.replayed_equal or 0 for one in told),
            max((float(one.replayed_worst or 0) for one in told), default=0.0),
        )


def _run_of(values: object) -> str:
    run = cells.record(records.StageReused, values).run
    return "" if run is None else str(run)


def reported(query: Query, run_id: int) -> Reported:
    """What has been reported of a run."""
    return Reported(query(f"{_DETAILS} ORDER BY id", [run_id]))
