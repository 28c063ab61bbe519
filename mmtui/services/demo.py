"""The demo: the built-in shapes data without tuning, with it as published, and with what docs/results.md found best."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from mmtui.domain.states import FINAL_STATES, RunState
from mmtui.domain.text import duration, fixed
from mmtui.domain.views import RunDetail, doubted
from mmtui.paths import Home
from mmtui.services import queue, runs, supervisors

RECIPES = ("shapes_baseline", "shapes_mixmatch", "shapes_contrast")


def start(home: Home) -> list[str]:
    """Queue all runs and make sure a supervisor serves them; returns their ids."""
    ids = [queue.enqueue(home, recipe, tags=("demo",)) for recipe in RECIPES]
    supervisors.ensure(home)
    return ids


def follow(
    home: Home, ids: list[str], interval: float = 3.0, sleep: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """One plain line every ``interval`` seconds until all runs are final."""
    while True:
        supervisors.ensure(home)
        found = [runs.get_run(home, run_id) for run_id in ids]
        if all(RunState(detail.row.state) in FINAL_STATES for detail in found):
            return
        current = next((d for d in found if RunState(d.row.state) not in FINAL_STATES), found[-1])
        done = sum(RunState(d.row.state) in FINAL_STATES for d in found)
        yield f"[{done}/{len(ids)} done] {progress_line(current)}"
        sleep(interval)


def stop_supervisor_if_idle(home: Home) -> None:
    """Stop the supervisor unless it has something else to do."""
    found = supervisors.status(home)
    if found.running and not found.active_runs and not found.queued_runs:
        supervisors.stop(home)


def progress_line(detail: RunDetail) -> str:
    """Where a run stands, in one line."""
    row = detail.row
    words = [f"run {row.id}", row.name, row.state]
    loss, miou = row.metrics.get("loss"), row.metrics.get("miou")
    stage = next((s for s in detail.stages if s.name == row.stage and s.status == "running"), None)
    over = RunState(row.state) in FINAL_STATES
    if stage is not None:
        words.append(f"{stage.name} {stage.step}/{stage.total_steps}")
    if loss is not None:
        words.append(f"loss {fixed(loss, 3)}")
    if miou is not None:
        words.append(f"mIoU {doubted(fixed(miou, 1), row.doubts)}")
    if stage is not None and stage.eta_seconds is not None and not over:
        words.append(f"stage ends in {duration(stage.eta_seconds)}")
    if (stage is None or over) and row.remark:
        words.append(row.remark)
    return "  ".join(words)
