"""Evaluation on the validation split: one int64 confusion matrix over the whole set (PAPER 2.5)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from engine import dist
from engine.config.best import BEST
from engine.config.checkpoint_meta import Remembered
from engine.config.evaluation import EvaluateConfig
from engine.events import finite_values
from engine.json_types import Json, JsonObject
from engine.metrics import ConfusionMatrix
from engine.stages.base import Context
from engine.stages.ema import TRAINED
from engine.stages.ensemble import load_members
from engine.stages.handed_on import load_network
from engine.stages.predictions import PredictionFiles
from engine.stages.protocols import Member, Predictor, Segmenter, Watch
from engine.stages.segmenter import build_segmenter
from engine.stages.validation_loss import ValidationLoss

PROGRESS_SECONDS = 0.5
"""Time between progress events."""


class TrainedSegmenter(Segmenter, Protocol):
    """A segmentation network that is also trained."""

    training: bool

    def train(self, mode: bool = True) -> object:
        """Switch between training and evaluation mode."""


Tell = Callable[[str, JsonObject], None]
"""Takes the kind and the values of an event."""


def percentages(matrix: ConfusionMatrix) -> dict[str, float]:
    """The paper's mean IoU and overall and mean accuracy, and the frequency-weighted IoU (PAPER 2.5)."""
    return {
        "miou": 100 * matrix.mean_iou(),
        "pixel_accuracy": 100 * matrix.pixel_accuracy(),
        "mean_accuracy": 100 * matrix.mean_accuracy(),
        "frequency_weighted_iou": 100 * matrix.frequency_weighted_iou(),
    }


def evaluate(
    context: Context,
    model: TrainedSegmenter,
    config: EvaluateConfig,
    *,
    final: bool,
    weights: str = TRAINED,
    loss: ValidationLoss | None = None,
) -> ConfusionMatrix:
    """Predict the validation split and report its confusion matrix. Of an ensemble this is the run's own network alone.

    The model's mode is restored and no random number is drawn, so training goes on as if nothing had happened.

    Args:
        final: whether this is the run's last evaluation, whose predictions are saved.
        weights: which ones the model has, ``trained`` or ``ema``.
        loss: takes in the loss of the split, too.

    Raises:
        StopRequestedError: the run was asked to leave; no matrix was reported.
    """
    tell = partial(_tell_of, context.writer.emit, {"weights": weights})
    return measure(context, model, config, tell, final=final, loss=loss)


def _tell_of(tell: Tell, network: Mapping[str, Json], kind: str, values: JsonObject) -> None:
    """Tell of an event; of a ``confusion`` also which network it is of."""
    tell(kind, {**values, **network} if kind == "confusion" else values)


def measure(
    context: Context,
    model: TrainedSegmenter,
    config: EvaluateConfig,
    tell: Tell,
    others: Sequence[Member] = (),
    *,
    final: bool,
    loss: ValidationLoss | None = None,
) -> ConfusionMatrix:
    """Predict the validation split, write its files, and tell of them.

    Args:
        tell: takes ``image`` events on the way and a ``confusion`` event at the end.
        others: networks in evaluation mode whose probabilities are added.
        final, loss: as for ``evaluate``.

    Raises:
        StopRequestedError: the run was asked to leave.
        RecipeError: the settings of the protocol contradict each other.
    """
    own = Member.of(model, context.recipe.model)
    predictor = Predictor([own, *others], config, context.autocast)
    was_training = model.training
    model.train(False)
    try:
        with context.memory_for("evaluate"):
            return _over_all_images(context, predictor, config, tell, final, loss)
    finally:
        model.train(was_training)


def _over_all_images(
    context: Context, predictor: Predictor, config: EvaluateConfig, tell: Tell, final: bool, loss: ValidationLoss | None
) -> ConfusionMatrix:
    data = context.data("val")
    files = PredictionFiles(context.run_dir, data, config, final, context.writer.moment)
    matrix = ConfusionMatrix(data.num_classes)
    told = time.monotonic()
    # Each process has a stretch of its own; rank 0 the first one, whose images are shown.
    first, last = (len(data) * part // dist.world_size() for part in (context.rank, context.rank + 1))
    for start in range(first, last, config.batch_size):
        stop = min(start + config.batch_size, last)
        images, labels = data.batch(start, stop)
        watch = None if loss is None else adding_to(loss, start, labels)
        prediction = predictor.classes(images, files.sizes[start:stop], watch)
        matrix.update(prediction, labels)
        for values in files.save(start, images, labels, prediction):
            tell("image", values)
        context.leave_if_asked()
        if time.monotonic() - told >= PROGRESS_SECONDS:
            context.progress("evaluating", stop - first, last - first)
            told = time.monotonic()
    matrix.reduce()
    values = {
        "matrix": matrix.matrix.tolist(),
        "classes": list(data.classes),
        "split": "val",
        "images": len(data),
        "predictions": files.folder,
        "protocol": config.protocol,
        "networks": len(predictor.members),
    }
    tell("confusion", values)
    return matrix


def adding_to(loss: ValidationLoss, start: int, labels: Tensor) -> Watch:
    """Adds the scores of a batch to a loss.

    Args:
        start: number of its first image in the split.
        labels: of the batch, uint8 (B, H, W).
    """

    def watch(numbers: Sequence[int], scores: Tensor) -> None:
        height, width = scores.shape[2:]
        own = torch.stack([labels[i, :height, :width] for i in numbers])
        loss.add([start + i for i in numbers], scores, own)

    return watch


class EvaluateStage:
    """Evaluates the segmentation network, or an ensemble with those of other runs, once; one step."""

    name = "evaluate"
    total_steps = 1
    optimiser = None
    best = None
    splits = 1
    images_per_epoch = 0

    def __init__(self, context: Context, config: EvaluateConfig) -> None:
        self.context, self.config = context, config
        self.images_per_step = len(context.data("val"))
        self.model = build_segmenter(context, context.data("val").num_classes)
        self.network = load_network(context.run_dir, self.model, best=config.checkpoint == BEST)
        self.module: nn.Module = context.place(self.model)
        self.others = list(load_members(context, config.ensemble))
        self.events: list[tuple[str, JsonObject]] = []
        self.result: dict[str, float] = {}

    def step(self, step: int) -> dict[str, Tensor | float]:
        self.events = []
        tell = partial(_tell_of, self._keep, self.network)
        matrix = measure(self.context, self.model, self.config, tell, self.others, final=True)
        self.result = percentages(matrix)
        return dict(self.result)

    def _keep(self, kind: str, values: JsonObject) -> None:
        self.events.append((kind, values))

    def observe(self, done: int) -> dict[str, float]:
        """Tells here of what ``step`` found: the events then carry the step that is done."""
        for kind, values in self.events:
            self.context.writer.emit(kind, values)
        return {}

    def remembered(self) -> Remembered:
        return {}

    def recall(self, remembered: Remembered) -> None:
        return None

    def output(self) -> None:
        return None

    def summary(self) -> JsonObject:
        return finite_values(self.result)
