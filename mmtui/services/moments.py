"""When a run was where: from steps to times and back, over all attempts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from mmtui.domain.views import Bucket, StageView
from mmtui.paths import Home
from mmtui.store.queries import metrics
from mmtui.store.session import reading

_BUCKETS = 800


def time_at(home: Home, run_id: str, step: int) -> float | None:
    """When the run had done a global step (the last time, if it did it twice); None before anything was logged."""
    with reading(home) as reader:
        return metrics.time_at(reader, int(run_id), reader.metric_names(int(run_id)), step)


@dataclass(frozen=True)
class Steps:
    """The global step at any time of an attempt, between logged ones by straight lines."""

    points: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    """(time, step) by attempt, by time."""
    resumed: dict[int, int] = field(default_factory=dict)

    def at(self, attempt: int, time: float) -> float:
        """The step; before the first logged one where the attempt went on from."""
        points = self.points.get(attempt, [])
        start = float(self.resumed.get(attempt, 0))
        index = bisect_right(points, (time, float("inf")))
        if index == 0:
            return start
        if index == len(points):
            return points[-1][1]
        (t0, s0), (t1, s1) = points[index - 1], points[index]
        return s0 + (s1 - s0) * (time - t0) / (t1 - t0) if t1 > t0 else s1

    def superseded(self, attempt: int, step: float) -> bool:
        """Whether a later attempt did this step again."""
        return any(number > attempt and step > again for number, again in self.resumed.items())


def steps(home: Home, run_id: str) -> Steps:
    """Where each attempt was at which time, from the metric with the most points."""
    with reading(home) as reader:
        resumed = reader.resumed_at(int(run_id))
        best: tuple[Bucket, ...] = ()
        most = 0
        names = [(int(run_id), name) for name in reader.metric_names(int(run_id))]
        for found, count in reader.several_series(names, _BUCKETS).values():
            if count > most:
                best, most = found, count
    points: dict[int, list[tuple[float, float]]] = {}
    for bucket in best:
        points.setdefault(bucket.attempt, []).append((bucket.time, bucket.x))
    return Steps({attempt: sorted(several) for attempt, several in points.items()}, resumed)


def stages_at(stages: Sequence[StageView], step: int, moment: float | None) -> list[tuple[StageView, str, int]]:
    """Each stage with its status and finished steps as they were at a global step."""
    found = []
    for stage in stages:
        last = stage.step if stage.stopped_early else stage.total_steps
        done = min(max(step - stage.offset, 0), last)
        begun = stage.started_at is not None and (moment is None or stage.started_at <= moment)
        over = stage.ended_at is not None and moment is not None and stage.ended_at <= moment
        if done >= last > 0 and (over or step > stage.offset + stage.total_steps):
            found.append((stage, "finished", done))
        elif done or (begun and step >= stage.offset):
            found.append((stage, "running", done))
        else:
            found.append((stage, "pending", 0))
    return found
