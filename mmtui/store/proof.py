"""What the trainers of a run have reported of the code that they loaded."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import replace

from engine.events.checks import LoadedCode
from engine.events.records import RunStarted
from mmtui.domain import proof
from mmtui.domain.views import AttemptView
from mmtui.store import cells
from mmtui.store.events import Reported

Reports = dict[int, list[LoadedCode | None]]


def by_attempt(rows: Iterable[sqlite3.Row]) -> Reports:
    """``code`` of each of these ``run_started``, by attempt; None where one tells nothing of it."""
    found: Reports = {}
    for row in rows:
        found.setdefault(row["attempt"], []).append(cells.record(RunStarted, row["values"]).code)
    return found


def with_verdicts(
    told: Reported, code: Mapping[str, object], attempts: tuple[AttemptView, ...]
) -> tuple[AttemptView, ...]:
    """The attempts of a run, each with what is known of its code."""
    found = by_attempt(told.of("run_started"))
    return tuple(replace(one, code=proof.verdict(code, found.get(one.number, ()))) for one in attempts)
