"""IoU from one int64 confusion matrix, summed over the whole data set and divided once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engine import dist


class ConfusionMatrix:
    """Counts of (truth, prediction) pairs; rows are the truth.

    Args:
        num_classes: K; predictions must be 0 .. K-1.
        ignore_index: truth label that is left out (a prediction is never left out).
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.matrix = torch.zeros((num_classes, num_classes), dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add pixels.

        Args:
            prediction: integers of any shape, on any device.
            target: the same shape.

        Raises:
            ValueError: shapes differ, or a label is out of range.
        """
        if prediction.shape != target.shape:
            raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
        keep = target != self.ignore_index
        truth, guess = target[keep].long(), prediction[keep].long()
        k = self.num_classes
        if truth.numel() and (int(truth.max()) >= k or int(truth.min()) < 0):
            raise ValueError(f"a target label is outside 0..{k - 1} and not {self.ignore_index}")
        if guess.numel() and (int(guess.max()) >= k or int(guess.min()) < 0):
            raise ValueError(f"a predicted label is outside 0..{k - 1}")
        counts = torch.bincount(truth * k + guess, minlength=k * k).reshape(k, k)
        self.matrix += counts.to(self.matrix.device)

    def reduce(self) -> ConfusionMatrix:
        """Sum over all processes of a distributed run, in place."""
        dist.all_reduce_sum(self.matrix)
        return self

    def iou(self) -> Tensor:
        """TP / (TP + FP + FN) per class, float64 (K,), 0-1.

        NaN for a class in neither truth nor prediction; 0 for one that is only predicted.
        """
        hits = self.matrix.diagonal().double()
        union = (self.matrix.sum(0) + self.matrix.sum(1)).double() - hits
        return torch.where(union > 0, hits / union, torch.nan)

    def mean_iou(self) -> float:
        """Mean over the classes that have an IoU, 0-1; NaN if none has."""
        iou = self.iou()
        present = iou[~iou.isnan()]
        return float(present.mean()) if len(present) else math.nan

    def accuracy(self) -> Tensor:
        """Share of each class's pixels that were found, float64 (K,); NaN for a class absent from the truth."""
        truth = self.matrix.sum(1).double()
        return torch.where(truth > 0, self.matrix.diagonal().double() / truth, torch.nan)

    def pixel_accuracy(self) -> float:
        """Share of all counted pixels that are right, 0-1; NaN if there are none."""
        total = int(self.matrix.sum())
        return int(self.matrix.diagonal().sum()) / total if total else math.nan
