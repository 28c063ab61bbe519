"""``mmtui watch`` on a terminal: one screen that is drawn again in place. In a pipe: ``mmtui.cli.follow``."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence

from mmtui.cli import render
from mmtui.cli.diagnostics import UNSERVED
from mmtui.domain.states import FINAL_STATES, RunState
from mmtui.domain.text import duration, shorten
from mmtui.domain.views import RunDetail, StageView
from mmtui.errors import ExitCode
from mmtui.paths import Home
from mmtui.services import runs, supervisors

SECONDS = 1.0
LOG_LINES = 6
_PART = 16
"""Seven times a difference of two floats may be no float any more; of their 16ths, which lose nothing, it is one."""


def watch_screen(home: Home, run_id: str) -> int:
    """Draw where a run stands until it ends; its exit code. What was drawn last stays on the terminal."""
    drawn = 0
    while True:
        width, height = shutil.get_terminal_size()
        found = runs.get_run(home, run_id)
        lines = screen(home, found, width)[: max(height - 1, 1)]
        render.redraw(lines, drawn)
        drawn = len(lines)
        if RunState(found.row.state) in FINAL_STATES:
            return int(ExitCode.OK if found.row.state == RunState.SUCCEEDED else ExitCode.FAILED)
        time.sleep(SECONDS)


def screen(home: Home, found: RunDetail, width: int) -> list[str]:
    """The lines of the screen, none wider than ``width`` cells."""
    row = found.row
    head = [f"run {row.id}", row.name, row.state + (f": {row.reason}" if row.reason else "")]
    head += [f"on {' '.join(row.gpus)}"] if row.gpus else []
    if found.eta_seconds is not None and RunState(row.state) not in FINAL_STATES:
        head.append(f"ends in {duration(found.eta_seconds)}")
    lines = ["  ".join(head), *(_stage(stage, width) for stage in found.stages)]
    lines.append(f"loss {render.number(row.metrics.get('loss'), 4)}  mIoU {render.score(row)}")
    lines += [f"doubtful: {doubt}" for doubt in row.doubts]
    series = runs.series(home, row.id, "loss", max_buckets=max(width // 2, 10), stage=row.stage or None)
    values = [bucket.last for bucket in series.buckets if not bucket.superseded][-(width - 6) :]
    if len(values) > 1:
        lines.append(f"loss  {sparkline(values)}")
    lines += [f"note: {found.progress_note}"] if found.progress_note else []
    lines += [f"| {text}" for text in runs.log_tail(home, row.id, LOG_LINES)]
    if RunState(row.state) not in FINAL_STATES and not supervisors.is_served(home):
        lines.append(f"note: {UNSERVED}")
    return [shorten(line, width) for line in lines]


def _stage(stage: StageView, width: int) -> str:
    share = min(stage.step / stage.total_steps, 1.0) if stage.total_steps else 0.0
    about = f"{stage.step}/{stage.total_steps}"
    if stage.reused_from:
        about = f"taken over from run {stage.reused_from}"
    elif stage.status == "running" and stage.eta_seconds is not None:
        about += f"  {duration(stage.eta_seconds)} left"
    elif stage.status == "finished" and stage.started_at is not None and stage.ended_at is not None:
        about += f"  took {duration(stage.ended_at - stage.started_at)}"
    about += ", stopped early" if stage.stopped_early else ""
    return f"  {stage.name:9}{render.bar(share, max(min(width - 50, 40), 8))}  {about}"


def sparkline(values: Sequence[float]) -> str:
    """Values as bars of eight heights; what is not finite is left blank."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, span = min(finite) / _PART, (max(finite) / _PART - min(finite) / _PART) or 1.0
    marks = "01234567" if render.ascii_only() else "▁▂▃▄▅▆▇█"
    return "".join(marks[int(7 * (v / _PART - low) / span)] if math.isfinite(v) else " " for v in values)
