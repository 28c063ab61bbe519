"""Runs of several attempts and stages, written as trainers write them, and what their course was in the end."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.services.ingest import ingest_file
from mmtui.store.db import Database
from mmtui.store.runs import NewRun, begin_attempt, insert_run, set_origin, transition

Told = tuple[str, int, int, dict[str, float | None]]
"""stage, its step, the run's step, {metric: value}; None: no finite number."""
Attempt = tuple[int, Sequence[Told]]
"""The run's step from which an attempt went on, and what it told."""
Course = dict[tuple[str, str, int, int], float]
"""{(metric, stage, step, global_step): value}; NaN: no finite number."""

STAGES = (("proxy", 4), ("match", 6), ("segment", 8), ("evaluate", 1))


def _steps(stage: str, offset: int, first: int, last: int, attempt: int) -> list[Told]:
    return [
        (stage, step, offset + step, {"loss": (offset + step) + attempt / 10, "lr": 0.1 / step})
        for step in range(first, last + 1)
    ]


RESUMED: Sequence[Attempt] = (
    # Killed at 8, went on from 5, where it evaluates, which the first attempt did, too; killed at 7, and again from 2.
    (0, [*_steps("segment", 0, 1, 5, 1), ("segment", 5, 5, {"miou": 30.0}), *_steps("segment", 0, 6, 8, 1)]),
    (5, [("segment", 5, 5, {"miou": 31.0}), *_steps("segment", 0, 6, 7, 2)]),
    (2, [*_steps("segment", 0, 3, 8, 3), ("segment", 8, 8, {"loss": None, "miou": 1 / 3})]),
)
PAUSED: Sequence[Attempt] = (
    # Asked to leave in the evaluation of step 5: the next attempt does the evaluation first.
    (0, _steps("segment", 0, 1, 5, 1)),
    (5, [("segment", 5, 5, {"miou": 31.0}), *_steps("segment", 0, 6, 8, 2)]),
)
FORK: Sequence[Attempt] = ((14, [*_steps("segment", 10, 5, 8, 1), ("evaluate", 1, 19, {"miou": 44.4})]),)
THREE_STAGES: Sequence[Attempt] = (
    (
        0,
        [
            *_steps("proxy", 0, 1, 4, 1),
            ("proxy", 4, 4, {"accuracy": 0.5, "IoU/道路": 1.5}),
            *_steps("match", 4, 1, 6, 1),
            ("match", 6, 10, {"IoU/道路": None, "IoU/建物": 2.5}),
            *_steps("segment", 10, 1, 8, 1),
            ("evaluate", 1, 19, {"miou": 44.4, "_step": 7.0, "100%": 1e-300, "a.b": 3.0}),
        ],
    ),
)


def expected(attempts: Sequence[Attempt]) -> Course:
    """What counts: an attempt takes back what stood behind the step from which it went on, and tells its own."""
    found: Course = {}
    for resumed, told in attempts:
        found = {place: value for place, value in found.items() if place[3] <= resumed}
        for stage, step, global_step, values in told:
            for name, value in values.items():
                found[name, stage, step, global_step] = math.nan if value is None else value
    return found


def told_points(attempts: Sequence[Attempt]) -> int:
    """Points of all attempts; a metric has one a step in each."""
    return sum(
        len({(name, global_step) for _, _, global_step, values in told for name in values}) for _, told in attempts
    )


def add_run(home: Home, name: str, attempts: Sequence[Attempt], origin: Mapping[str, Any] | None = None) -> str:
    """A finished run with these attempts; returns its id."""
    database = Database(home.create())
    try:
        with database.write() as session:
            run_id = insert_run(session, NewRun(name, "r", 0, {"seed": 3}, (), {}, STAGES, ("x",)))
            if origin:
                set_origin(session, run_id, origin)
        for number, (resumed, told) in enumerate(attempts, 1):
            with database.write() as session:
                assert begin_attempt(session, run_id, ["cpu:0"], "here") == number
            file = home.run(str(run_id)).events(number)
            file.parent.mkdir(parents=True)
            file.write_text("".join(_lines(number, resumed, told)))
            ingest_file(database, file, run_id, number, 0)
            with database.write() as session:
                if number < len(attempts):
                    transition(session, run_id, RunEvent.VANISHED)
                    transition(session, run_id, RunEvent.REQUEUE)
                else:
                    transition(session, run_id, RunEvent.EXIT_OK, ended_at=5000.0)
    finally:
        database.close()
    return str(run_id)


def add_points(home: Home, run_id: str, count: int) -> None:
    """So many more points, at once: of a metric "many" and the last attempt."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)"
    attempt = "(SELECT max(number) FROM attempts WHERE run_id = ?1)"
    with closing(sqlite3.connect(home.database)) as connection, connection:
        connection.execute(
            "INSERT INTO metrics (run_id, name, global_step, attempt, stage, step, t, value)"
            f" {numbers} SELECT ?1, 'many', i, {attempt}, 'segment', i, 1000.0 + i, i / 7.0 FROM n",
            [run_id, count],
        )


def _lines(number: int, resumed: int, told: Sequence[Told]) -> list[str]:
    start = {"stages": [list(item) for item in STAGES], "resumed_global_step": resumed, "attempt": number}
    events: list[tuple[str, str, int, int, Mapping[str, Any]]] = [("run_started", "", 0, resumed, start)]
    events += [("metrics", *item) for item in told]
    return [
        json.dumps(
            {
                "v": 1,
                "seq": 1000 * number + seq,
                "t": 1000.0 * number + seq,
                "kind": kind,
                "stage": stage,
                "step": step,
                "global_step": global_step,
                "values": values,
            }
        )
        + "\n"
        for seq, (kind, stage, step, global_step, values) in enumerate(events, 1)
    ]
