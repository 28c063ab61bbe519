"""Offline runs of Weights & Biases, written through its own client; nothing is sent anywhere.

Look at them with ``wandb leet FOLDER/wandb``; send them with ``wandb sync``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmtui.domain.states import RunState
from mmtui.errors import UsageError
from mmtui.paths import Home
from mmtui.services import runs

PROJECT = "mmtui"


def _library() -> Any:
    try:
        import wandb
    except ImportError:
        raise UsageError("this needs wandb", "install it: pip install 'mmtui[wandb]'") from None
    return wandb


def write(home: Home, ids: Sequence[str], target: Path) -> int:
    """Write one offline run each below ``target/wandb``; returns the number of points.

    The run's name in W&B comes from the id and the moment of queueing, so two exports of a run are one run there.

    Raises:
        UsageError: W&B is not installed.
    """
    wandb = _library()
    target.mkdir(parents=True, exist_ok=True)
    settings = {"silent": True, "console": "off", "disable_git": True, "disable_code": True, "save_code": False}
    settings |= {"x_disable_stats": True, "x_disable_meta": True, "x_save_requirements": False}
    return sum(_write_run(home, wandb, wandb.Settings(**settings), run_id, target) for run_id in ids)


def _write_run(home: Home, wandb: Any, settings: Any, run_id: str, target: Path) -> int:
    detail = runs.get_run(home, run_id)
    row = detail.row
    theirs = wandb.init(
        project=PROJECT,
        name=row.name,
        id=f"mmtui-{run_id}-{round(row.created_at or 0)}",
        tags=list(row.tags),
        config={"recipe": row.recipe, **detail.config},
        mode="offline",
        dir=str(target),
        settings=settings,
    )
    count = 0
    try:
        for step, time, values in _rows(home, run_id):
            theirs.log({**values, "_timestamp": time}, step=step)
            count += len(values)
        theirs.summary["state"] = row.state
    finally:
        theirs.finish(exit_code=int(row.state == RunState.FAILED))
    return count


def _rows(home: Home, run_id: str) -> Iterator[tuple[int, float, dict[str, float]]]:
    """(step of the whole run, Unix time, values): what W&B keeps together is what was logged at one step."""
    values: dict[int, dict[str, float]] = defaultdict(dict)
    times: dict[int, float] = {}
    for metric in runs.metric_names(home, run_id):
        for point in runs.points(home, run_id, metric):
            values[point.global_step][metric] = point.value
            times[point.global_step] = max(point.time, times.get(point.global_step, 0.0))
    for step in sorted(values):
        yield step, times[step], values[step]
