"""From a run's steps and times to places on the x axis of its charts.

Epochs: passes over the training images of a stage; those of all stages are added up, so that the axis goes on where
one stage ends and the next begins. A stage that was taken over from another run, or does not train, has none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmtui.domain.views import Bucket, RunDetail

AXES = ("step", "epoch", "clock", "relative")
WORDS = {
    "step": "steps",
    "epoch": "epochs, all stages added up",
    "clock": "time of day",
    "relative": "time since start",
}


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
        return time_0 + (time_1 - time_0) * (step - step_0) / ((step_1 - step_0) or 1.0)


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
