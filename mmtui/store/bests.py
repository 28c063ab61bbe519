"""The best checkpoint of a run and stages that ended early, from the trainer's words of them."""

from __future__ import annotations

from dataclasses import replace

from engine.events.records import Best, EarlyStop
from mmtui.domain.views import BestView, StageView, metric_words
from mmtui.store import cells
from mmtui.store.events import Reported


def best(told: Reported) -> BestView | None:
    """The best evaluation so far, whose checkpoint is kept; None if there is none."""
    rows = told.of("best")
    if not rows:
        return None
    found = cells.record(Best, rows[0]["values"])
    return BestView(
        metric=found.metric or "",
        value=None if found.value is None else float(found.value),
        stage=cells.text(rows[0]["stage"]),
        step=cells.count(rows[0]["step"]) if found.step is None else found.step,
        weights=found.weights or "",
    )


def with_early_stops(told: Reported, stages: tuple[StageView, ...]) -> tuple[StageView, ...]:
    """The same stages; those that ended before their last step say at which, and why."""
    found = {}
    for row in told.of("early_stop"):
        stop, step = cells.record(EarlyStop, row["values"]), cells.count(row["step"])
        since = f"since step {stop.step}" if stop.step else "at all"
        metric, count = metric_words(stop.metric or "?"), stop.patience or 0
        several = f"{count} evaluation{'' if count == 1 else 's'} in a row"
        found[cells.text(row["stage"])] = step, f"no better {metric} {since} ({several}, segment.patience)"
    return tuple(
        replace(one, step=found[one.name][0], stopped_early=found[one.name][1])
        if one.name in found and one.status == "finished"
        else one
        for one in stages
    )
