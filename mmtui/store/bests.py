"""The best checkpoint of a run and stages that ended early, from the trainer's words of them."""

from __future__ import annotations

from dataclasses import replace

from mmtui.domain.views import BestView, StageView, metric_words
from mmtui.store import cells
from mmtui.store.events import Reported


def best(told: Reported) -> BestView | None:
    """The best evaluation so far, whose checkpoint is kept; None if there is none."""
    rows = told.of("best")
    if not rows:
        return None
    values = cells.values("best", rows[0]["values"])
    return BestView(
        metric=str(values.get("metric") or ""),
        value=cells.number(values.get("value")),
        stage=cells.text(rows[0]["stage"]),
        step=cells.count(values.get("step", rows[0]["step"])),
        weights=str(values.get("weights") or ""),
    )


def with_early_stops(told: Reported, stages: tuple[StageView, ...]) -> tuple[StageView, ...]:
    """The same stages; those that ended before their last step say at which, and why."""
    found = {}
    for row in told.of("early_stop"):
        values, step = cells.values("early_stop", row["values"]), cells.count(row["step"])
        since = f"since step {values['step']}" if values.get("step") else "at all"
        metric, count = metric_words(str(values.get("metric") or "?")), values.get("patience") or 0
        several = f"{count} evaluation{'' if count == 1 else 's'} in a row"
        found[cells.text(row["stage"])] = step, f"no better {metric} {since} ({several}, segment.patience)"
    return tuple(
        replace(one, step=found[one.name][0], stopped_early=found[one.name][1])
        if one.name in found and one.status == "finished"
        else one
        for one in stages
    )
