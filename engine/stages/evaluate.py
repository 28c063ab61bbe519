"""Evaluation on the validation split: one int64 confusion matrix over the whole set (PAPER 2.5)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from engine.config.schema import EvaluateConfig
from engine.events import finite
from engine.metrics import ConfusionMatrix
from engine.stages.base import Context
from engine.stages.ensemble import load_members
from engine.stages.predictions import PredictionFiles
from engine.stages.protocols import Member, Predictor, Segmenter

PROGRESS_SECONDS = 0.5
"""Time between progress events."""


class TrainedSegmenter(Segmenter, Protocol):
    """A segmentation network that is also trained."""

    training: bool

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation mode."""


@dataclass
class Outcome:
    """What an evaluation found and what its events will say."""

    matrix: ConfusionMatrix
    confusion: dict[str, Any] = field(default_factory=dict)
    images: list[dict[str, Any]] = field(default_factory=list)

    def report(self, context: Context) -> None:
        """Write the ``image`` events and the ``confusion`` event, with the step the run is at."""
        for values in self.images:
            context.writer.emit("image", values)
        context.writer.emit("confusion", self.confusion)

    def metrics(self) -> dict[str, float]:
        """Percent; the paper's mean IoU and overall and mean accuracy, and the frequency-weighted IoU."""
        return {
            "miou": 100 * self.matrix.mean_iou(),
            "pixel_accuracy": 100 * self.matrix.pixel_accuracy(),
            "mean_accuracy": 100 * self.matrix.mean_accuracy(),
            "frequency_weighted_iou": 100 * self.matrix.frequency_weighted_iou(),
        }


def evaluate(context: Context, model: TrainedSegmenter, config: EvaluateConfig, *, final: bool) -> ConfusionMatrix:
    """Predict the validation split and report its confusion matrix. Of an ensemble this is the run's own network alone.

    The model's mode is restored and no random number is drawn, so training goes on as if nothing had happened.

    Args:
        final: whether this is the run's last evaluation, whose predictions are saved.

    Raises:
        StopRequestedError: the run was asked to leave; nothing was reported.
    """
    outcome = measure(context, model, config, final=final)
    outcome.report(context)
    return outcome.matrix


def measure(
    context: Context, model: TrainedSegmenter, config: EvaluateConfig, others: Sequence[Member] = (), *, final: bool
) -> Outcome:
    """Predict the validation split and write its files, but no event except progress.

    Args:
        others: networks in evaluation mode whose probabilities are added.
        final: as for ``evaluate``.

    Raises:
        StopRequestedError: the run was asked to leave.
        RecipeError: the settings of the protocol contradict each other.
    """
    own = Member(model, context.recipe.model.input)
    predictor = Predictor([own, *others], config, context.autocast)
    was_training = model.training
    model.train(False)
    try:
        return _over_all_images(context, predictor, config, final)
    finally:
        model.train(was_training)


def _over_all_images(context: Context, predictor: Predictor, config: EvaluateConfig, final: bool) -> Outcome:
    data = context.data("val")
    files = PredictionFiles(context.run_dir, data, config, final)
    outcome = Outcome(ConfusionMatrix(data.num_classes))
    told = time.monotonic()
    for start in range(0, len(data), config.batch_size):
        stop = min(start + config.batch_size, len(data))
        images, labels = data.batch(start, stop)
        sizes = [(height, width) for height, width in data.sizes[start:stop].tolist()]
        prediction = predictor.classes(images, sizes)
        outcome.matrix.update(prediction, labels.long())
        if context.rank == 0:  # every process evaluates all images; one writes
            outcome.images += files.save(start, images, labels, prediction)
        context.leave_if_asked()
        if time.monotonic() - told >= PROGRESS_SECONDS:
            context.progress("evaluating", stop, len(data))
            told = time.monotonic()
    outcome.confusion = {
        "matrix": outcome.matrix.matrix.tolist(),
        "classes": list(data.classes),
        "split": "val",
        "images": len(data),
        "predictions": files.folder,
        "protocol": config.protocol,
        "networks": len(predictor.members),
    }
    return outcome


class EvaluateStage:
    """Evaluates the segmentation network, or an ensemble with those of other runs, once; one step."""

    name = "evaluate"
    total_steps = 1
    optimiser = None
    splits = 1

    def __init__(self, context: Context, config: EvaluateConfig) -> None:
        from engine.checkpoint import final_checkpoint, load_module
        from engine.stages.segment import build_segmenter

        self.context, self.config = context, config
        self.images_per_step = len(context.data("val"))
        self.model = build_segmenter(context, context.data("val").num_classes)
        weights = final_checkpoint(context.run_dir, "segment")
        assert weights is not None, "evaluate comes after segment"
        load_module(weights, self.model)
        self.module: nn.Module = context.place(self.model)
        self.others = list(load_members(context, config.ensemble))
        self.outcome: Outcome | None = None

    def step(self, step: int) -> dict[str, Tensor | float]:
        self.outcome = measure(self.context, self.model, self.config, self.others, final=True)
        return dict(self.outcome.metrics())

    def observe(self, done: int) -> dict[str, float]:
        """Reports here, not in ``step``: the events then carry the step that is done."""
        if self.outcome is not None:
            self.outcome.report(self.context)
        return {}

    def output(self) -> None:
        return None

    def summary(self) -> dict[str, Any]:
        return {} if self.outcome is None else dict(finite(self.outcome.metrics()))
