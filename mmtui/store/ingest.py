"""Events into rows. The byte offset up to which a file was read is stored in the same transaction as its rows."""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from sqlmodel import Session

from engine.events import SUPERVISION
from mmtui.domain.eventvalues import MOST_METRICS, MOST_STAGES, finite, whole
from mmtui.domain.states import RunEvent, RunState
from mmtui.store import cells, pyramid
from mmtui.store.confusion import class_shares
from mmtui.store.runs import read_attempt, read_run, transition
from mmtui.store.tables import Attempt, Need, Run, Stage

if TYPE_CHECKING:
    from sqlalchemy import Connection

EventLine = Mapping[str, Any]
_Row = tuple[Any, ...]

MOST_TOLD = 20
MOST_DOUBTS = 20
"""So many faults of one attempt's file are warnings of their own; the rest is counted."""
_NOT_STORED = frozenset({"heartbeat"})
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

    events: Sequence[EventLine]
    offset: int
    corrupt: Sequence[tuple[int, str]] = ()
    """(byte where it begins, why in words) of each line that is no event."""
    file: str = ""
    left_out: Sequence[tuple[int, str]] = ()
    """(byte, what in words) of each event of which something is no value of its kind."""


def ingest(session: Session, run_id: int, number: int, batch: Batch) -> None:
    """Store a batch and everything that is derived from it, in the caller's transaction."""
    run, attempt = read_run(session, run_id), read_attempt(session, run_id, number)
    stages = {stage.name: stage for stage in _stages(session, run_id)}
    for event, after in zip_longest(batch.events, batch.events[1:]):
        _HANDLERS.get(str(event["kind"]), _ignore)(session, run, attempt, stages, event)
        # Where the next one says the same of the same, only the last matters: attributes of rows are slow to set.
        if after is None or not event["kind"] == after["kind"] == "metrics" or event.get("stage") != after.get("stage"):
            _follow(run, attempt, stages, event)
    _insert_rows(session, run_id, number, batch)
    attempt.ingested = batch.offset
    attempt.corrupt_lines += len(batch.corrupt)
    session.add_all([run, attempt, *stages.values()])
    session.flush()
    if run.state == RunState.STARTING and any(event["kind"] != "heartbeat" for event in batch.events):
        # A heartbeat alone says that it lives: torch may take long to import.
        transition(session, run_id, RunEvent.STARTED)


def _stages(session: Session, run_id: int) -> Sequence[Stage]:
    from sqlmodel import col, select

    return session.exec(select(Stage).where(Stage.run_id == run_id).order_by(col(Stage.position))).all()


def _values(event: EventLine) -> Mapping[str, Any]:
    values = event.get("values")
    return values if isinstance(values, dict) else {}


def _number(value: Any) -> float | None:
    return finite(value)


def _integer(value: Any) -> int:
    return whole(value) or 0


def _follow(run: Run, attempt: Attempt, stages: dict[str, Stage], event: EventLine) -> None:
    """The run's own position: where the newest event stands."""
    run.last_event_at = float(event["t"])
    name = str(event.get("stage") or "")
    if not (name or attempt.device or event["kind"] == "run_started"):
        return  # before run_started it does not know yet where it goes on: what it tells stands at 0
    run.global_step = _integer(event.get("global_step"))
    if name:
        run.stage, run.step = name, _integer(event.get("step"))
        if name in stages:
            stages[name].step = run.step


def _ignore(session: Session, run: Run, attempt: Attempt, stages: dict[str, Stage], event: EventLine) -> None:
    """Kinds that change nothing but the position; unknown ones are kept as they are."""


def _run_started(session: Session, run: Run, attempt: Attempt, stages: dict[str, Stage], event: EventLine) -> None:
    values = _values(event)
    attempt.host, attempt.device = str(values.get("host", "")), str(values.get("device", ""))
    attempt.resumed_stage = str(values.get("resumed_stage") or "")
    attempt.resumed_step = _integer(values.get("resumed_step"))
    attempt.resumed_global_step = _integer(values.get("resumed_global_step"))
    if not attempt.resumed_global_step:
        run.doubts = "[]"  # it begins anew, and says anew what it doubts
    total, offset = 0, 0
    for position, (name, steps) in enumerate(_plan(values.get("stages"))):
        if name not in stages and len(stages) >= MOST_STAGES:
            break
        stage = stages.setdefault(name, Stage(run_id=run.id or 0, name=name))
        stage.position, stage.total_steps, stage.step_offset = position, steps, offset
        if offset + steps <= attempt.resumed_global_step and stage.status != "finished":
            # The one before was killed between the stage's last checkpoint and its word of it.
            stage.status, stage.step, stage.ended_at = "finished", steps, float(event["t"])
        offset += steps
        total += steps
    run.total_steps = total or run.total_steps


def _plan(stages: Any) -> list[tuple[str, int]]:
    """Stages and their steps as ``run_started`` tells them; what is no [name, steps] is left out."""
    items = stages if isinstance(stages, list) else []
    return [(str(item[0]), _integer(item[1])) for item in items if isinstance(item, list) and len(item) == 2]


def _stage_started(session: Session, run: Run, attempt: Attempt, stages: dict[str, Stage], event: EventLine) -> None:
    name, values = str(event.get("stage") or ""), _values(event)
    if not name or (name not in stages and len(stages) >= MOST_STAGES):
        return
    stage = stages.setdefault(name, Stage(run_id=run.id or 0, name=name, position=len(stages)))
    stage.status, stage.ended_at = "running", None
    stage.started_at = stage.started_at or float(event["t"])
    stage.total_steps = _integer(values.get("total_steps")) or stage.total_steps
    stage.step_offset = _integer(values.get("offset"))


def _stage_finished(session: Session, run: Run, attempt: Attempt, stages: dict[str, Stage], event: EventLine) -> None:
    stage = stages.get(str(event.get("stage") or ""))
    if stage is not None:
        stage.status, stage.ended_at, stage.step = "finished", float(event["t"]), stage.total_steps


def _metrics(session: Session, run: Run, attempt: Attempt, stages: dict[str, Stage], event: EventLine) -> None:
    values = _values(event)
    if "loss" in values:
        run.loss = _number(values["loss"])
    stage = stages.get(str(event.get("stage") or ""))
    seconds = _number(values.get("seconds_per_step"))
    if stage is not None and seconds is not None:
        # Recent steps count most, one slow one little: the estimate follows a change within some ten reports.
        old = stage.seconds_per_step
        stage.seconds_per_step = seconds if old is None else 0.8 * old + 0.2 * seconds


def _confusion(session: Session, run: Run, attempt: Attempt, stages: dict[str, Stage], event: EventLine) -> None:
    matrix: Any = _values(event).get("matrix")
    if _square(matrix):
        run.miou = mean_iou_percent(matrix)


def _supervision(session: Session, run: Run, attempt: Attempt, stages: dict[str, Stage], event: EventLine) -> None:
    """A run that goes on looks at its labels again, and says anew what it doubts."""
    run.doubts = "[]"


def _warning(session: Session, run: Run, attempt: Attempt, stages: dict[str, Stage], event: EventLine) -> None:
    """A warning about supervision stands beside the score; each attempt says it again."""
    values, known = _values(event), cells.texts(run.doubts)
    text = str(values.get("text") or "")
    if values.get("about") == SUPERVISION and text and text not in known and len(known) < MOST_DOUBTS:
        run.doubts = json.dumps([*known, text])


def _error(session: Session, run: Run, attempt: Attempt, stages: dict[str, Stage], event: EventLine) -> None:
    run.error = str(_values(event).get("text", ""))


def _run_finished(session: Session, run: Run, attempt: Attempt, stages: dict[str, Stage], event: EventLine) -> None:
    attempt.outcome = str(_values(event).get("status", ""))


def _probe(session: Session, run: Run, attempt: Attempt, stages: dict[str, Stage], event: EventLine) -> None:
    """What the run's work needs on its device: later runs of the same work are placed and forecast by it."""
    values = _values(event)
    peak, device = whole(values.get("peak_bytes")), values.get("device")
    if not run.work or not peak or not isinstance(device, str):
        return
    body = json.dumps(values.get("stages") if isinstance(values.get("stages"), dict) else {})
    measured: dict[str, Any] = {"bytes": peak, "body": body, "measured_at": float(event["t"]), "run_id": run.id or 0}
    session.merge(Need(work=run.work, device=device, **measured))


_HANDLERS = {
    "probe": _probe,
    "run_started": _run_started,
    "stage_started": _stage_started,
    "stage_finished": _stage_finished,
    "metrics": _metrics,
    "confusion": _confusion,
    "error": _error,
    "warning": _warning,
    "supervision": _supervision,
    "run_finished": _run_finished,
}


def _square(matrix: Any) -> bool:
    """Whether there is a matrix; what it holds has been checked where the line was read."""
    return isinstance(matrix, list) and bool(matrix) and all(len(row) == len(matrix) for row in matrix)


def mean_iou_percent(matrix: Sequence[Sequence[int]]) -> float | None:
    """Mean IoU of the classes that occur in truth or prediction, percent."""
    found = [share for share in class_shares(matrix) if share is not None]
    return 100 * sum(found) / len(found) if found else None


def _insert_rows(session: Session, run_id: int, number: int, batch: Batch) -> None:
    metrics: list[_Row] = []
    events: list[_Row] = []
    evaluations: list[_Row] = []
    progress: _Row | None = None
    for event in batch.events:
        kind, values = str(event["kind"]), _values(event)
        step, global_step = _integer(event.get("step")), _integer(event.get("global_step"))
        stage, t = str(event.get("stage") or ""), float(event["t"])
        if kind == "metrics":
            metrics += [
                (run_id, name, global_step, number, stage, step, t, kept)
                for name, value in values.items()
                if (kept := value if type(value) is float else _number(value)) is not None or value is None
            ]
        elif kind == "confusion" and _square(values.get("matrix")):
            blob = b"".join(array("q", row).tobytes() for row in values["matrix"])
            names = values.get("classes")
            classes = json.dumps([str(name) for name in names] if isinstance(names, list) else [])
            tail = (str(values.get("split", "val")), _integer(values.get("images")), str(values.get("predictions", "")))
            evaluations.append((run_id, global_step, number, stage, step, t, classes, blob, *tail))
        elif kind not in _NOT_STORED:
            row = (run_id, number, int(event["seq"]), kind, stage, step, global_step, t, json.dumps(values))
            if kind == "progress":
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


def _with_room(connection: Connection, run_id: int, metrics: list[_Row]) -> tuple[list[_Row], str]:
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
