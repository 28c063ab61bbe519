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
        """Add pixels. What is predicted where the target is ``ignore_index`` does not matter.

        Args:
            prediction: integers of any shape, on any device.
            target: the same shape.

        Raises:
            ValueError: shapes differ, a label is out of range, or the predictions are not integers.
        """
        if prediction.shape != target.shape:
            raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
        if prediction.is_floating_point() or target.is_floating_point():
            raise ValueError("prediction and target must be class indices, not scores: take the argmax first")
        truth = target.long()
        keep = truth != self.ignore_index
        truth, guess = truth[keep], prediction[keep].long()
        self._check(truth, "a target label", f" and not {self.ignore_index}")
        self._check(guess, "a predicted label")
        k = self.num_classes
        counts = torch.bincount(truth * k + guess, minlength=k * k).reshape(k, k)
        self.matrix += counts.to(self.matrix.device)

    def _check(self, labels: Tensor, what: str, unless: str = "") -> None:
        if labels.numel() == 0:
            return
        low, high = labels.aminmax()
        if int(low) < 0 or int(high) >= self.num_classes:
            raise ValueError(f"{what} is outside 0..{self.num_classes - 1}{unless}: {int(low)}..{int(high)}")

    def merge(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Add what another one counted, in place.

        Raises:
            ValueError: it has another number of classes.
        """
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge {other.num_classes} classes into {self.num_classes}")
        self.matrix += other.matrix.to(self.matrix.device)
        return self

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

    def mean_accuracy(self) -> float:
        """Mean accuracy over the classes in the truth, 0-1 (PAPER 2.5: mean acc, nanmean); NaN if there are none."""
        return float(self.accuracy().nanmean())

    def frequency_weighted_iou(self) -> float:
        """IoU of each class weighted with its share of the truth's pixels, 0-1 (Long et al. 2015); NaN without pixels.

        A class that is only predicted has no share.
        """
        truth = self.matrix.sum(1).double()
        present = truth > 0
        return float((truth[present] * self.iou()[present]).sum() / truth.sum())

    def pixel_accuracy(self) -> float:
        """Share of all counted pixels that are right, 0-1; NaN if there are none."""
        total = int(self.matrix.sum())
        return int(self.matrix.diagonal().sum()) / total if total else math.nan
