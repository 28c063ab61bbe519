"""Which evaluation on the way was the best so far, and when the stage has trained long enough without a better one.

``segment.keep_best`` names what is compared, ``segment.patience`` ends the stage early. Patience counts evaluations
without improvement, as that of PyTorch Lightning's and Keras' ``EarlyStopping`` does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.config.best import LOSS, MIOU, class_of
from engine.config.checkpoint_meta import BestEvaluation
from engine.metrics import ConfusionMatrix


def value_of(metric: str, matrix: ConfusionMatrix, classes: Sequence[str], loss: float) -> float:
    """What is compared, of one evaluation: percent of IoU, or the loss; NaN where there is none.

    Args:
        metric: ``miou``, ``class:NAME`` or ``loss``.
        classes: names of the data set's classes, in index order.
        loss: of the evaluated split (see ``engine.stages.validation_loss``).
    """
    if metric == LOSS:
        return loss
    if metric == MIOU:
        return 100 * matrix.mean_iou()
    return 100 * float(matrix.iou()[list(classes).index(class_of(metric))])


class BestSoFar:
    """The best evaluation of a stage, by one metric.

    Of equal values the earlier one stays. What is no finite number is never the best, and counts as an evaluation
    without improvement.

    Attributes:
        metric: ``miou`` or ``class:NAME``, where larger is better, or ``loss``, where smaller is.
        patience: evaluations without improvement after which the stage has trained enough; 0 = never.
        step: finished steps of the stage at the best evaluation, None = there was none.
        value: what the metric was there; percent of IoU.
        since: evaluations after it.
    """

    def __init__(self, metric: str, patience: int) -> None:
        self.metric, self.patience = metric, patience
        self.step: int | None = None
        self.value = math.nan
        self.since = 0

    def note(self, step: int, value: float) -> bool:
        """Take in the evaluation after ``step`` steps; whether it is the best so far."""
        if not self._is_better(value):
            self.since += 1
            return False
        self.step, self.value, self.since = step, value, 0
        return True

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.step is None:
            return True
        return value < self.value if self.metric == LOSS else value > self.value

    @property
    def enough(self) -> bool:
        """Whether patience is at its end."""
        return bool(self.patience) and self.since >= self.patience

    def told(self) -> dict[str, str | int | float]:
        """The best, ready for JSON; {} without one."""
        return {} if self.step is None else {"metric": self.metric, "step": self.step, "value": self.value}

    def state(self) -> BestEvaluation:
        """What a checkpoint keeps, ready for JSON: numbers come back to the bit."""
        found: BestEvaluation = {"since": self.since}
        if self.step is not None:
            found |= {"metric": self.metric, "step": self.step, "value": self.value}
        return found

    def recall(self, state: BestEvaluation) -> None:
        """Take back what ``state`` gave."""
        self.since = int(state.get("since", 0))
        if "step" in state:
            self.step, self.value = int(state["step"]), float(state["value"])

    def forget(self) -> None:
        """Begin anew: the checkpoint of the best is gone."""
        self.step, self.value, self.since = None, math.nan, 0
