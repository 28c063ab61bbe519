"""An SQLite store of MLflow, written through its own client."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmtui.domain.states import RunState
from mmtui.domain.views import RunDetail
from mmtui.errors import UsageError
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.services.comparing import flat

EXPERIMENT = "mmtui"
BATCH = 1000
"""Most metrics that MLflow takes in one call."""
LONGEST_PARAMETER = 6000
_STATUS = {
    RunState.SUCCEEDED: "FINISHED",
    RunState.CANCELLED: "KILLED",
    RunState.FAILED: "FAILED",
    RunState.RUNNING: "RUNNING",
}


def _library() -> Any:
    try:
        from mlflow import entities
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise UsageError("this needs MLflow", "install it: pip install 'mmtui[mlflow]'") from None
    return MlflowClient, entities


def write(home: Home, ids: Sequence[str], target: Path) -> int:
    """Add runs to the SQLite file ``target``, experiment ``mmtui``; returns the number of points.

    A run that is in the file already (tag ``mmtui.run`` and time of queueing) is written anew and the old one deleted
    as MLflow deletes, so exporting twice shows every run once.

    Raises:
        UsageError: MLflow is not installed.
    """
    client_class, entities = _library()
    for name in ("alembic", "mlflow"):  # they tell of each of their own migrations
        logging.getLogger(name).setLevel(logging.WARNING)
    client = client_class(tracking_uri=f"sqlite:///{target}")
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT, f"file://{target}.artifacts")
    return sum(_write_run(home, client, entities, experiment, run_id) for run_id in ids)


def _write_run(home: Home, client: Any, entities: Any, experiment: str, run_id: str) -> int:
    detail = runs.get_run(home, run_id)
    row = detail.row
    mark = f"{run_id}@{row.created_at or 0:.6f}"
    for old in client.search_runs([experiment], f"tags.`mmtui.run` = '{mark}'"):
        client.delete_run(old.info.run_id)
    begun = client.create_run(experiment, _milliseconds(row.started_at or row.created_at or 0.0), run_name=row.name)
    theirs = begun.info.run_id
    tags = {"mmtui.run": mark, "mmtui.id": run_id, "mmtui.recipe": row.recipe, "mmtui.state": row.state}
    tags |= {f"mmtui.tag.{_name(tag)}": tag for tag in row.tags}
    client.log_batch(theirs, tags=[entities.RunTag(*item) for item in tags.items()])
    parameters = [entities.Param(*item) for item in _parameters(detail)]
    for first in range(0, len(parameters), 100):
        client.log_batch(theirs, params=parameters[first : first + 100])
    points = [entities.Metric(*item) for item in _metrics(home, run_id)]
    for first in range(0, len(points), BATCH):
        client.log_batch(theirs, metrics=points[first : first + BATCH])
    ended = None if row.ended_at is None else _milliseconds(row.ended_at)
    client.set_terminated(theirs, _STATUS.get(RunState(row.state), "SCHEDULED"), end_time=ended)
    return len(points)


def _parameters(detail: RunDetail) -> Iterator[tuple[str, str]]:
    for key, value in flat(detail.config):
        yield _name(key), str(value)[:LONGEST_PARAMETER]


def _metrics(home: Home, run_id: str) -> Iterator[tuple[str, float, int, int]]:
    for metric in runs.metric_names(home, run_id):
        for point in runs.points(home, run_id, metric):
            yield _name(metric), point.value, _milliseconds(point.time), point.global_step


def _name(text: str) -> str:
    """A name that MLflow takes: letters, digits and ``_-. :/``."""
    return re.sub(r"[^\w\-. :/]", "_", text, flags=re.ASCII)[:250]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
