"""How much the pixels of each class count in the loss of fine-tuning."""

from __future__ import annotations

import torch
from torch import Tensor

from engine import dist
from engine.config.schema import SegmentConfig
from engine.data.dataset import SegmentationData
from engine.data.label_counts import count_labels
from engine.stages.base import Context


def class_weights(context: Context, config: SegmentConfig, data: SegmentationData) -> Tensor | None:
    """Weights float32 (K,) on the device, which are told by an event; None = all 1. All processes call it together.

    Args:
        data: the training split.
    """
    if config.class_weighting == "balanced":
        return _balanced(context, data)
    if not config.class_weights:
        return None
    given = [float(config.class_weights.get(name, 1.0)) for name in data.classes]
    _tell(context, data, given)
    return torch.tensor(given, device=context.device)


def balanced(pixels: tuple[int, ...]) -> list[float]:
    """Weights by which all classes that have pixels count alike: all pixels / (classes with pixels * pixels of one).

    So does scikit-learn's ``class_weight="balanced"``; the mean weight of a pixel is 1. A class without pixels gets 0.
    """
    present = sum(count > 0 for count in pixels)
    return [sum(pixels) / (present * count) if count else 0.0 for count in pixels]


def _balanced(context: Context, data: SegmentationData) -> Tensor:
    weights = torch.zeros(data.num_classes, device=context.device)
    if context.rank == 0:
        if "train" not in context.label_counts:
            context.label_counts["train"] = count_labels(data, "train")
        pixels = context.label_counts["train"].pixels
        weights.copy_(torch.tensor(balanced(pixels)))
        _tell(context, data, balanced(pixels), pixels)
    dist.take_from_first([weights])
    return weights


def _tell(context: Context, data: SegmentationData, weights: list[float], pixels: tuple[int, ...] = ()) -> None:
    counted = {"pixels": list(pixels)} if pixels else {}
    context.writer.emit("class_weights", {"classes": list(data.classes), "weights": weights, **counted})
