"""Records as JSON: the fixed keys of the command line's contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mmtui.domain import dates
from mmtui.domain.device_use import summary
from mmtui.domain.forecasting import Forecast
from mmtui.domain.views import (
    AttemptView,
    ClassTable,
    DeviceSnapshot,
    ForkView,
    Point,
    RecipeView,
    RunDetail,
    RunDevices,
    RunRow,
    StageView,
    SupervisorStatus,
    TrainerView,
)


def when(seconds: float | None) -> str | None:
    """Unix seconds as UTC ISO-8601; None where there is no time, or none that has a date."""
    return dates.iso(seconds)


def run(row: RunRow) -> dict[str, object]:
    """One run of ``mmtui ls --json``."""
    return {
        "id": row.id,
        "name": row.name,
        "recipe": row.recipe,
        "state": row.state,
        "reason": row.reason,
        "stage": row.stage,
        "progress": round(row.progress, 4),
        "created_at": when(row.created_at),
        "started_at": when(row.started_at),
        "ended_at": when(row.ended_at),
        "seed": row.seed,
        "gpus": list(row.gpus),
        "tags": list(row.tags),
        "metrics": dict(row.metrics),
        "attempt": row.attempt,
        "group": row.group,
        "doubts": list(row.doubts),
    }


def detail(found: RunDetail) -> dict[str, object]:
    """``mmtui show --json``."""
    return {
        **run(found.row),
        "config": found.config,
        "overrides": list(found.overrides),
        "stages": [stage(item) for item in found.stages],
        "attempts": [attempt(item) for item in found.attempts],
        "error": found.error,
        "code": {**found.code, "proof": next((one.code for one in reversed(found.attempts) if one.code), None)},
        "host": found.host,
        "paths": found.paths,
        "eta_seconds": found.eta_seconds,
        "last_event_at": when(found.last_event_at),
        "warnings": list(found.warnings),
        "versions": found.versions,
        "data_fingerprint": found.data_fingerprint or None,
        "replay": found.replay,
        "terms": {**dataclasses.asdict(found.terms), "not_before": when(found.terms.not_before)},
        "note": found.note,
        "parent": None if found.parent is None else dataclasses.asdict(found.parent),
        "children": [fork(child) for child in found.children],
        "best": None if found.best is None else dataclasses.asdict(found.best),
    }


def fork(item: ForkView) -> dict[str, object]:
    """A child of ``mmtui show --json``: its id, and the checkpoint of the run that it began with."""
    return {"run": item.run, "stage": item.stage, "step": item.step, "global_step": item.global_step}


def stage(item: StageView) -> dict[str, object]:
    """One stage of a run."""
    body = dataclasses.asdict(item)
    return {**body, "started_at": when(item.started_at), "ended_at": when(item.ended_at)}


def attempt(item: AttemptView) -> dict[str, object]:
    """One attempt of a run."""
    body = dataclasses.asdict(item)
    return {**body, "started_at": when(item.started_at), "ended_at": when(item.ended_at)}


def classes(found: ClassTable) -> dict[str, object]:
    """``mmtui classes --json``; an absent class has ``"iou": null``."""
    return {
        "run": found.run,
        "step": found.step,
        "stage": found.stage,
        "num_present": found.num_present,
        "miou": found.miou,
        "doubts": list(found.doubts),
        "classes": [
            {"index": c.index, "name": c.name, "iou": c.iou, "accuracy": c.accuracy, "pixels": c.pixels}
            for c in found.classes
        ],
    }


def point(item: Point) -> dict[str, object]:
    """One point of ``mmtui metrics --json``."""
    return {
        "step": item.step,
        "value": item.value,
        "time": when(item.time),
        "attempt": item.attempt,
        "stage": item.stage,
        "global_step": item.global_step,
    }


def devices(found: DeviceSnapshot, trainers: Sequence[TrainerView]) -> dict[str, object]:
    """``mmtui gpu --json``."""
    return {**dataclasses.asdict(found), "time": when(found.time), "trainers": list(map(dataclasses.asdict, trainers))}


def run_devices(found: RunDevices) -> dict[str, object]:
    """``mmtui gpu --run --json``: every sample, and what they amount to."""
    names = dict.fromkeys(record.device for record in found.records)
    return {
        "run": found.run,
        "note": found.note,
        "simulated": found.simulated,
        "devices": [
            {
                "device": name,
                "summary": dataclasses.asdict(summary(r.samples for r in found.records if r.device == name)),
                "samples": [
                    {**dataclasses.asdict(use), "time": when(use.time), "attempt": record.attempt}
                    for record in found.records
                    if record.device == name
                    for use in record.samples
                ],
            }
            for name in names
        ],
    }


def recipe(view: RecipeView) -> dict[str, object]:
    """One recipe of ``mmtui recipes --json``."""
    return {
        "name": view.name,
        "description": view.description,
        "data": view.data,
        "stages": [{"name": name, "steps": steps} for name, steps in view.stages],
        "reference_miou": view.reference_miou,
        "path": view.path,
        "error": view.error,
    }


def supervisor(found: SupervisorStatus) -> dict[str, object]:
    """The supervisor of ``mmtui daemon status --json`` and ``mmtui queue --json``."""
    return {
        "running": found.running,
        "pid": found.pid,
        "started_at": when(found.started_at),
        "active_runs": found.active_runs,
        "queued_runs": found.queued_runs,
        "home": found.home,
        "note": found.note or found.trouble or None,
    }


def forecast(found: Forecast) -> dict[str, object]:
    """When a run is expected to start and end; ``start`` is null for one that has started, all are where unknown."""
    names = ("start", "end", "earliest", "latest")
    return {f"{name}{'s_at' if name in ('start', 'end') else '_end'}": when(getattr(found, name)) for name in names}
