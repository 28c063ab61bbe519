"""Records that are shown, made of rows of the database; a damaged cell harms itself alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from engine.events.records import Progress
from mmtui.domain.states import ACTIVE_STATES, RunState
from mmtui.domain.text import duration
from mmtui.domain.views import ClassRow, ClassTable, RunRow, StageView
from mmtui.store import cells
from mmtui.store.confusion import matrix_of

STALLED_SECONDS = 120.0
STATES = frozenset(state.value for state in RunState)


def run_row(row: sqlite3.Row, now: float) -> RunRow:
    """A line of the list of runs."""
    total, state = cells.count(row["total_steps"]), cells.text(row["state"])
    progress = 1.0 if state == RunState.SUCCEEDED else min(cells.count(row["global_step"]) / total, 1.0) if total else 0
    return RunRow(
        id=str(row["id"]),
        name=cells.text(row["name"]),
        recipe=cells.text(row["recipe"]),
        state=state if state in STATES else RunState.FAILED.value,
        reason=_reason(row, now) if state in STATES else f"damaged row (state {state}): see mmtui doctor",
        stage=cells.text(row["stage"]),
        progress=progress,
        created_at=cells.moment(row["created_at"]),
        started_at=cells.moment(row["started_at"]),
        ended_at=cells.moment(row["ended_at"]),
        seed=cells.count(row["seed"]),
        gpus=cells.texts(row["gpus"]),
        tags=cells.texts(row["tags"]),
        metrics={"miou": cells.number(row["miou"]), "loss": cells.number(row["loss"])},
        attempt=cells.count(row["attempt"]),
        group=cells.text(row["run_group"]),
        doubts=cells.texts(row["doubts"]),
    )


def _reason(row: sqlite3.Row, now: float) -> str:
    """Why the run is where it is: stored where an event made it so, derived where time does."""
    if row["state"] == RunState.FAILED and row["error"]:
        return cells.text(row["error"])
    if row["state"] == RunState.QUEUED and (starts := cells.moment(row["not_before"]) or 0.0) > now:
        return f"{cells.text(row['reason'])}; starts in {duration(starts - now)}".removeprefix("; ")
    silent = now - (cells.moment(row["last_event_at"]) or now)
    if row["state"] in ACTIVE_STATES and silent > STALLED_SECONDS:
        return f"stalled: no event for {silent / 60:.0f} min"
    return cells.text(row["reason"])


def note(told: Progress, state: str) -> str:
    """What a trainer does besides steps, unless that is over."""
    done, total = told.done or 0, told.total or 0
    if state not in (RunState.STARTING, RunState.RUNNING) or done == total:
        return ""
    return f"{told.text or 'working'} {done}/{total}"


def stage_view(row: sqlite3.Row, reused_from: str) -> StageView:
    """A stage of a run, with the seconds that it still takes."""
    eta, step, total = None, cells.count(row["step"]), cells.count(row["total_steps"])
    pace = cells.number(row["seconds_per_step"])
    if row["status"] == "running" and pace is not None:
        eta = max(total - step, 0) * pace
    return StageView(
        name=cells.text(row["name"]),
        position=cells.count(row["position"]),
        status=cells.text(row["status"]),
        step=step,
        total_steps=total,
        offset=cells.count(row["step_offset"]),
        started_at=cells.moment(row["started_at"]),
        ended_at=cells.moment(row["ended_at"]),
        seconds_per_step=pace,
        eta_seconds=eta,
        reused_from=reused_from,
    )


def run_eta(stages: Sequence[StageView]) -> float | None:
    """Seconds to the end of the stages that have begun; None before the first report."""
    known = [stage.eta_seconds for stage in stages if stage.eta_seconds is not None]
    return sum(known) if known else None


def class_table(run: str, row: sqlite3.Row, history: list[list[float | None]], doubts: tuple[str, ...]) -> ClassTable:
    """Per-class IoU of an evaluation.

    Args:
        history: IoU of each class in all evaluations up to this one, oldest first.
    """
    matrix, shares = matrix_of(row["matrix"]), history[-1]
    names = cells.listed(row["classes"])[: len(matrix)]
    names += [str(index) for index in range(len(names), len(matrix))]
    classes = []
    for index, counts in enumerate(matrix):
        pixels = sum(counts)
        classes.append(
            ClassRow(
                index=index,
                name=str(names[index]),
                iou=shares[index],
                accuracy=counts[index] / pixels if pixels else None,
                pixels=pixels,
                history=tuple(past[index] for past in history if index < len(past)),
            )
        )
    present = [share for share in shares if share is not None]
    return ClassTable(
        run=run,
        step=cells.count(row["step"]),
        stage=cells.text(row["stage"]),
        num_present=len(present),
        miou=sum(present) / len(present) if present else None,
        classes=tuple(classes),
        confusion=tuple(tuple(counts) for counts in matrix),
        doubts=doubts,
    )
