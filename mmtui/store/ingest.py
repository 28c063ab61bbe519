"""Events into rows. The byte offset up to which a file was read is stored in the same transaction as its rows."""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from sqlmodel import Session

from engine.events import records
from engine.events.checks import MOST_STAGES
from engine.events.reader import Event
from engine.events.records import (
    MOST_METRICS,
    SUPERVISION,
    Alive,
    Confusion,
    Error,
    Metrics,
    Probe,
    Progress,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    Supervision,
)
from mmtui.domain.states import RunEvent, RunState
from mmtui.store import cells, pyramid
from mmtui.store.confusion import class_shares
from mmtui.store.pyramid import MetricRow
from mmtui.store.runs import read_attempt, read_run, transition
from mmtui.store.tables import Attempt, Need, Run, Stage

if TYPE_CHECKING:
    from sqlalchemy import Connection

_Row = tuple[object, ...]

MOST_TOLD = 20
MOST_DOUBTS = 20
"""So many faults of one attempt's file are warnings of their own; the rest is counted."""
_NAMES_SQL = (
    "WITH RECURSIVE n(name) AS (SELECT min(name) FROM metrics WHERE run_id = ? UNION ALL"
    " SELECT (SELECT min(m.name) FROM metrics m WHERE m.run_id = ? AND m.name > n.name) FROM n"
    " WHERE n.name IS NOT NULL) SELECT name FROM n WHERE name IS NOT NULL"
)
"""Names of a run's metrics: one probe of the primary key for each, instead of one for each point."""
_METRIC_SQL = (
    "INSERT OR REPLACE INTO metrics (run_id, name, global_step, attempt, stage, step, t, value)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_EVENT_SQL = (
    'INSERT INTO events (run_id, attempt, seq, kind, stage, step, global_step, t, "values")'
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_EVALUATION_SQL = (
    "INSERT OR REPLACE INTO evaluations"
    " (run_id, global_step, attempt, stage, step, t, classes, matrix, split, images, predictions)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True)
class Batch:
    """Complete lines read from one attempt's file, and where reading ended."""

    events: Sequence[Event]
    offset: int
    corrupt: Sequence[tuple[int, str]] = ()
    """(byte where it begins, why in words) of each line that is no event."""
    file: str = ""
    left_out: Sequence[tuple[int, str]] = ()
    """(byte, what in words) of each event of which something is no value of its kind."""


@dataclass
class _Target:
    """What the events of one attempt change."""

    session: Session
    run: Run
    attempt: Attempt
    stages: dict[str, Stage]

    @property
    def run_id(self) -> int:
        return self.run.id or 0


def ingest(session: Session, run_id: int, number: int, batch: Batch) -> None:
    """Store a batch and everything that is derived from it, in the caller's transaction."""
    run, attempt = read_run(session, run_id), read_attempt(session, run_id, number)
    target = _Target(session, run, attempt, {stage.name: stage for stage in _stages(session, run_id)})
    for event, after in zip_longest(batch.events, batch.events[1:]):
        _apply(target, event)
        # Where the next one says the same of the same, only the last matters: attributes of rows are slow to set.
        if after is None or not event.kind == after.kind == Metrics.KIND or event.stage != after.stage:
            _follow(target, event)
    _insert_rows(session, run_id, number, batch)
    attempt.ingested = batch.offset
    attempt.corrupt_lines += len(batch.corrupt)
    session.add_all([run, attempt, *target.stages.values()])
    session.flush()
    if run.state == RunState.STARTING and any(not isinstance(event.record, Alive) for event in batch.events):
        # A heartbeat alone says that it lives: torch may take long to import.
        transition(session, run_id, RunEvent.STARTED)


def _stages(session: Session, run_id: int) -> Sequence[Stage]:
    from sqlmodel import col, select

    return session.exec(select(Stage).where(Stage.run_id == run_id).order_by(col(Stage.position))).all()


def _follow(target: _Target, event: Event) -> None:
    """The run's own position: where the newest event stands."""
    run = target.run
    run.last_event_at = event.t
    if not (event.stage or target.attempt.device or isinstance(event.record, RunStarted)):
        return  # before run_started it does not know yet where it goes on: what it tells stands at 0
    run.global_step = event.global_step
    if event.stage:
        run.stage, run.step = event.stage, event.step
        if event.stage in target.stages:
            target.stages[event.stage].step = event.step


def _apply(target: _Target, event: Event) -> None:
    """What an event changes besides the position; kinds that change nothing, and unknown ones, are kept as they are."""
    match event.record:
        case Metrics() as told:
            _metrics(target, event, told)
        case RunStarted() as told:
            _run_started(target, event, told)
        case StageStarted() as told:
            _stage_started(target, event, told)
        case StageFinished():
            _stage_finished(target, event)
        case Confusion() as told if told.matrix:
            target.run.miou = mean_iou_percent(told.matrix)
        case Error() as told:
            target.run.error = told.text or ""
        case records.Warning() as told:
            _warning(target.run, told)
        case Supervision():
            target.run.doubts = "[]"  # it looks at its labels again, and says anew what it doubts
        case RunFinished() as told:
            target.attempt.outcome = told.status or ""
        case Probe() as told:
            _probe(target, event, told)


def _run_started(target: _Target, event: Event, told: RunStarted) -> None:
    run, attempt, stages = target.run, target.attempt, target.stages
    attempt.host, attempt.device = told.host or "", told.device or ""
    attempt.resumed_stage = told.resumed_stage or ""
    attempt.resumed_step = told.resumed_step or 0
    attempt.resumed_global_step = told.resumed_global_step or 0
    if not attempt.resumed_global_step:
        run.doubts = "[]"  # it begins anew, and says anew what it doubts
    total, offset = 0, 0
    for position, (name, steps) in enumerate(told.stages or ()):
        if name not in stages and len(stages) >= MOST_STAGES:
            break
        stage = stages.setdefault(name, Stage(run_id=target.run_id, name=name))
        stage.position, stage.total_steps, stage.step_offset = position, steps, offset
        if offset + steps <= attempt.resumed_global_step and stage.status != "finished":
            # The one before was killed between the stage's last checkpoint and its word of it.
            stage.status, stage.step, stage.ended_at = "finished", steps, event.t
        offset += steps
        total += steps
    run.total_steps = total or run.total_steps


def _stage_started(target: _Target, event: Event, told: StageStarted) -> None:
    name, stages = event.stage, target.stages
    if not name or (name not in stages and len(stages) >= MOST_STAGES):
        return
    stage = stages.setdefault(name, Stage(run_id=target.run_id, name=name, position=len(stages)))
    stage.status, stage.ended_at = "running", None
    stage.started_at = stage.started_at or event.t
    stage.total_steps = told.total_steps or stage.total_steps
    stage.step_offset = told.offset or 0


def _stage_finished(target: _Target, event: Event) -> None:
    stage = target.stages.get(event.stage)
    if stage is not None:
        stage.status, stage.ended_at, stage.step = "finished", event.t, stage.total_steps


def _metrics(target: _Target, event: Event, told: Metrics) -> None:
    numbers, stage = told.numbers, target.stages.get(event.stage)
    if "loss" in numbers:
        target.run.loss = numbers["loss"]
    seconds = numbers.get("seconds_per_step")
    if stage is not None and seconds is not None:
        # Recent steps count most, one slow one little: the estimate follows a change within some ten reports.
        old = stage.seconds_per_step
        stage.seconds_per_step = seconds if old is None else 0.8 * old + 0.2 * seconds


def _warning(run: Run, told: records.Warning) -> None:
    """A warning about supervision stands beside the score; each attempt says it again."""
    text, known = told.text or "", cells.texts(run.doubts)
    if told.about == SUPERVISION and text and text not in known and len(known) < MOST_DOUBTS:
        run.doubts = json.dumps([*known, text])


def _probe(target: _Target, event: Event, told: Probe) -> None:
    """What the run's work needs on its device: later runs of the same work are placed and forecast by it."""
    run, peak, device = target.run, told.peak_bytes, told.device
    if not run.work or not peak or device is None:
        return
    body = json.dumps(told.stages or {})
    need = Need(work=run.work, device=device, bytes=peak, body=body, measured_at=event.t, run_id=target.run_id)
    target.session.merge(need)


def mean_iou_percent(matrix: Sequence[Sequence[int]]) -> float | None:
    """Mean IoU of the classes that occur in truth or prediction, percent."""
    found = [share for share in class_shares(matrix) if share is not None]
    return 100 * sum(found) / len(found) if found else None


def _insert_rows(session: Session, run_id: int, number: int, batch: Batch) -> None:
    metrics: list[MetricRow] = []
    events: list[_Row] = []
    evaluations: list[_Row] = []
    progress: _Row | None = None
    for event in batch.events:
        kind, seq, t, stage, step, global_step, told, _ = event
        if isinstance(told, Metrics):
            metrics += [
                (run_id, name, global_step, number, stage, step, t, value) for name, value in told.numbers.items()
            ]
        elif isinstance(told, Confusion) and told.matrix:
            blob = b"".join(array("q", row).tobytes() for row in told.matrix)
            tail = ("val" if told.split is None else told.split, told.images or 0, told.predictions or "")
            classes = json.dumps(told.classes or [])
            evaluations.append((run_id, global_step, number, stage, step, t, classes, blob, *tail))
        elif not isinstance(told, Alive):
            row = (run_id, number, seq, kind, stage, step, global_step, t, json.dumps(told.values))
            if isinstance(told, Progress):
                progress = row
            else:
                events.append(row)
    connection = session.connection()
    metrics, crowded = _with_room(connection, run_id, metrics)
    events += _told(connection, run_id, number, batch, crowded)
    if progress is not None:
        # Only the newest word on what is being done is of use.
        connection.exec_driver_sql("DELETE FROM events WHERE run_id = ? AND kind = 'progress'", (run_id,))
        events.append(progress)
    for sql, rows in ((_METRIC_SQL, metrics), (_EVENT_SQL, events), (_EVALUATION_SQL, evaluations)):
        if rows:
            connection.exec_driver_sql(sql, rows)
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    pyramid.update(driver, run_id, number, metrics)


def _with_room(connection: Connection, run_id: int, metrics: list[MetricRow]) -> tuple[list[MetricRow], str]:
    """The points of metrics that a run has room for, and what is said of the others."""
    known = {row[0] for row in connection.exec_driver_sql(_NAMES_SQL, (run_id, run_id))}
    fresh = list(dict.fromkeys(row[1] for row in metrics if row[1] not in known))
    beyond = set(fresh[max(MOST_METRICS - len(known), 0) :])
    if not beyond:
        return metrics, ""
    return [row for row in metrics if row[1] not in beyond], f"of its metrics only the first {MOST_METRICS:,} are kept"


def _told(connection: Connection, run_id: int, number: int, batch: Batch, crowded: str) -> list[_Row]:
    """Warnings of what was wrong in a batch, at most ``MOST_TOLD`` for an attempt.

    What was left out is told where it comes first: a trainer tells most of its kinds of events again and again.
    """
    skipped = [(byte, f"the line at byte {byte} was skipped: {why}") for byte, why in batch.corrupt]
    first = {words: byte for byte, words in reversed(batch.left_out)}
    faults = sorted([*skipped, *((byte, f"{words} (first at byte {byte})") for words, byte in first.items())])
    texts = [f"{batch.file}: {text}" for text in ([crowded] if crowded else []) + [text for _, text in faults]]
    if not texts:
        return []
    sql = "SELECT \"values\" FROM events WHERE run_id = ? AND attempt = ? AND kind = 'warning' AND seq = 0"
    told = [row[0] for row in connection.exec_driver_sql(sql, (run_id, number))]
    known = {_cause(body) for body in told}
    bodies = [body for body in (json.dumps({"text": text}) for text in texts) if _cause(body) not in known]
    if len(told) < MOST_TOLD < len(told) + len(bodies):
        last = MOST_TOLD - len(told) - 1
        bodies[last] = json.dumps({"text": f"{batch.file}: more faults of this file are counted and not told"})
    return [(run_id, number, 0, "warning", "", 0, 0, 0.0, body) for body in bodies[: max(MOST_TOLD - len(told), 0)]]


def _cause(body: str) -> str:
    """A warning without the place where it came first."""
    return body.partition(" (first at byte ")[0]
