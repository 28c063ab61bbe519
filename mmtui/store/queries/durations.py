"""How long stages and runs have taken, and what is still to be done: what forecasts are made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.events.records import Probe
from engine.json_types import JsonObject
from mmtui.store import cells
from mmtui.store.sql import ACTIVE

if TYPE_CHECKING:
    from mmtui.store.reader import Reader


class StagePace(NamedTuple):
    """Seconds per step of a stage of a past run, and the recipe of that run."""

    stage: str
    seconds_per_step: float
    config: JsonObject


class StageLeft(NamedTuple):
    """A stage of an active or queued run.

    Attributes:
        begun: when the run was first started, Unix time; None before.
        config: the run's recipe, a JSON object as it is stored: many runs have the same.
        work: name of what the run computes.
        shared: a JSON object as it is stored, {stage: name of its output}, of stages whose output others may use.
        seconds_per_step: as the stage has measured it, None before.
    """

    run_id: int
    begun: float | None
    config: str
    work: str
    shared: str
    stage: str
    status: str
    step: int
    total_steps: int
    seconds_per_step: float | None


def stage_paces(reader: Reader, most: int) -> list[StagePace]:
    """Stages whose pace is known, of the newest runs first. Evaluations have one step: start to end is its pace."""
    sql = (
        "SELECT s.name, coalesce(nullif(s.seconds_per_step, 0), (s.ended_at - s.started_at) / s.total_steps),"
        " r.config FROM stages s JOIN runs r ON r.id = s.run_id"
        " WHERE s.seconds_per_step > 0 OR (s.name = 'evaluate' AND s.status = 'finished')"
        " ORDER BY r.id DESC LIMIT ?"
    )
    rows = ((name, cells.number(pace), config) for name, pace, config in reader.query(sql, [most]))
    return [StagePace(name, pace, cells.mapped(config)) for name, pace, config in rows if pace is not None]


def seconds_besides_stages(reader: Reader, most: int) -> list[float]:
    """What each of the newest runs that succeeded at once has taken besides its stages; 0 where that is not known."""
    sql = (
        "SELECT r.ended_at - r.started_at - sum(s.ended_at - s.started_at) FROM runs r JOIN stages s ON s.run_id = r.id"
        " WHERE r.state = 'succeeded' AND r.attempt = 1 GROUP BY r.id ORDER BY r.id DESC LIMIT ?"
    )
    return [cells.number(row[0]) or 0.0 for row in reader.query(sql, [most])]


def measured_stages(reader: Reader) -> dict[str, dict[str, dict[str, float]]]:
    """{work: {stage: what the measurement before its first start says}}."""
    rows = reader.query("SELECT work, body FROM needs")
    return {row[0]: Probe({"stages": cells.mapped(row[1])}).stages or {} for row in rows}


def stages_left(reader: Reader) -> list[StageLeft]:
    """All stages of active and queued runs, finished ones too, by run and in order."""
    sql = (
        "SELECT r.id, r.started_at, r.config, r.work, r.shared_stages,"
        " s.name, s.status, s.step, s.total_steps, s.seconds_per_step"
        f" FROM runs r JOIN stages s ON s.run_id = r.id WHERE r.state IN ('queued', {ACTIVE})"
        " AND r.deleted_at IS NULL ORDER BY r.id, s.position"
    )
    return [_left(row) for row in reader.query(sql)]


def _left(row: Iterable[Any]) -> StageLeft:
    run_id, begun, config, *names, step, total, pace = row
    work, shared, stage, status = map(cells.text, names)
    steps = cells.count(step), cells.count(total)
    return StageLeft(run_id, begun, config, work, shared, stage, status, *steps, cells.number(pace))
