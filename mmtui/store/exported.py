"""Every point of a run, in one query and so as of one moment, with what was not a point of its final course."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmtui.store import cells
from mmtui.store.filters import KEPT
from mmtui.store.reader import Reader

_SQL = (
    f"SELECT name, stage, step, global_step, attempt, t, value,{KEPT.format(t='m')} FROM metrics m WHERE run_id = ?"
    " ORDER BY name, global_step, attempt"
)


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One value of one metric; ``time`` is Unix seconds, ``value`` NaN where the trainer told no finite number."""

    metric: str
    stage: str
    step: int
    global_step: int
    attempt: int
    time: float
    value: float


@dataclass(slots=True)
class LeftOut:
    """Points of a run that ``course`` passes over."""

    done_again: int = 0
    """Steps behind the checkpoint from which a later attempt went on: that attempt did them, or will do them, again."""
    repeated: int = 0
    """The checkpoint's own step, told by both attempts: the later one's word stands."""


def course(reader: Reader, run_id: int, left_out: LeftOut) -> Iterator[MetricPoint]:
    """The points of a run by metric and step, each step once; what is passed over is added to ``left_out``."""
    last: MetricPoint | None = None
    for row in reader.stream(_SQL, [run_id]):
        *cells_of_point, kept = row
        if not kept:
            left_out.done_again += 1
            continue
        point = _point(*cells_of_point)
        if last is not None and _place(last) == _place(point):
            left_out.repeated += 1
        elif last is not None:
            yield last
        last = point
    if last is not None:
        yield last


def _place(point: MetricPoint) -> tuple[str, int, str]:
    return point.metric, point.global_step, point.stage


def _point(name: Any, stage: Any, step: Any, global_step: Any, attempt: Any, moment: Any, value: Any) -> MetricPoint:
    number = cells.number(value)
    return MetricPoint(
        cells.text(name),
        cells.text(stage),
        cells.count(step),
        cells.count(global_step),
        cells.count(attempt),
        cells.moment(moment) or 0.0,
        math.nan if number is None else number,
    )
