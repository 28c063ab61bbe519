"""From a run's steps and times to places on the x axis of its charts.

Epochs: passes over the training images of a stage; those of all stages are added up, so that the axis goes on where
one stage ends and the next begins. A stage that was taken over from another run, or does not train, has none.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmtui.domain.numbers import between, floored
from mmtui.domain.views import Bucket, RunDetail

AXES = ("step", "epoch", "clock", "relative")
WORDS = {
    "step": "steps",
    "epoch": "epochs, all stages added up",
    "clock": "time of day",
    "relative": "time since start",
}


_SLACK = 1e-6


@dataclass(frozen=True)
class Axis:
    """The x axis as it is for one run.

    Attributes:
        kind: one of ``AXES``.
        start: when its first stage began, Unix seconds.
        stages: (steps before, epochs before, epochs of one step) of every stage.
        track: (global step, Unix seconds) of some points, ascending.
    """

    kind: str
    start: float
    stages: tuple[tuple[int, float, float], ...] = ()
    track: tuple[tuple[float, float], ...] = ()

    def place(self, step: float, time: float) -> float:
        """Where a point lies."""
        if self.kind == "epoch":
            return self._epochs(step)
        return {"step": step, "clock": time, "relative": time - self.start}[self.kind]

    def at(self, step: float) -> float:
        """Where a global step lies; between points by their times."""
        return self.place(step, self._time(step) if self.kind in ("clock", "relative") else 0.0)

    def step_at(self, place: float) -> int:
        """The last global step that does not lie behind a place."""
        if self.kind == "step":
            return floored(place + _SLACK)
        if self.kind == "epoch":
            return self._step_of_epoch(place)
        time = place + (self.start if self.kind == "relative" else 0.0)
        track = self.track or ((0.0, self.start),)
        number = bisect_right(track, time + _SLACK, key=lambda pair: pair[1])
        if number == 0:
            return -1
        if number == len(track):
            return floored(track[-1][0])
        (step_0, time_0), (step_1, time_1) = track[number - 1], track[number]
        return floored(between(step_0, step_1, time - time_0, time_1 - time_0) + 1e-3)

    def _step_of_epoch(self, place: float) -> int:
        found = 0
        for number, (offset, before, each) in enumerate(self.stages):
            end = self.stages[number + 1][0] if number + 1 < len(self.stages) else math.inf
            if place + _SLACK >= before and each > 0:
                found = floored(min(offset + (place - before) / each + _SLACK, end))
            elif place + _SLACK >= before and each == 0 and end < math.inf:
                found = int(end)
        return found

    def _epochs(self, step: float) -> float:
        """A step that ends a stage belongs to that stage."""
        found = 0.0
        for offset, before, each in self.stages:
            if step > offset:
                found = before + (step - offset) * each
        return found

    def _time(self, step: float) -> float:
        track = self.track or ((0.0, self.start),)
        if len(track) == 1:
            return track[0][1]
        number = min(max(bisect_right(track, step, key=lambda pair: pair[0]), 1), len(track) - 1)
        (step_0, time_0), (step_1, time_1) = track[number - 1], track[number]
        return between(time_0, time_1, step - step_0, step_1 - step_0)


def axis_of(
    detail: RunDetail, kind: str, images: Mapping[str, tuple[int, int]], buckets: Sequence[Bucket] = ()
) -> Axis:
    """The axis of a run.

    Args:
        images: {stage: (training images of a step, of an epoch)}.
        buckets: of a metric that is logged often.
    """
    begun = [stage.started_at for stage in detail.stages if stage.started_at is not None]
    kept = [bucket for bucket in buckets if not bucket.superseded]
    start = min([*begun, *(bucket.time for bucket in kept[:1])], default=detail.row.started_at or 0.0)
    stages, before = [], 0.0
    for stage in detail.stages:
        step, epoch = images.get(stage.name, (0, 1))
        stages.append((stage.offset, before, step / epoch))
        before += stage.total_steps * step / epoch
    return Axis(kind, start, tuple(stages), ((0.0, start), *((bucket.x, bucket.time) for bucket in kept)))
