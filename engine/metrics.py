"""IoU from one int64 confusion matrix, summed over the whole data set and divided once.

Pixels on a GPU are counted there, and the counts are asked for when the matrix is read.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engine import dist, host


class ConfusionMatrix:
    """Counts of (truth, prediction) pairs; rows are the truth.

    Args:
        num_classes: K; predictions must be 0 .. K-1.
        ignore_index: truth label that is left out (a prediction is never left out).
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self._matrix = torch.zeros((num_classes, num_classes), dtype=torch.int64)
        self._counted: list[Tensor] = []
        """What is on a GPU still: counts (K K + 1,), the last of them of what does not count, then the least and the
        largest target label and predicted label, (2,) each."""

    @property
    def matrix(self) -> Tensor:
        """The counts, int64 (K, K), on the CPU.

        Raises:
            ValueError: a label was out of range among pixels on a GPU; all that were not asked for are left out then.
        """
        if self._counted:
            self._take_in()
        return self._matrix

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add pixels. What is predicted where the target is ``ignore_index`` does not matter.

        Args:
            prediction: integers of any shape, on any device.
            target: the same shape.

        Raises:
            ValueError: shapes differ, a label is out of range (of pixels on a GPU ``matrix`` says it, which waits for
                them anyway), or the predictions are not integers.
        """
        if prediction.shape != target.shape:
            raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
        if prediction.is_floating_point() or target.is_floating_point():
            raise ValueError("prediction and target must be class indices, not scores: take the argmax first")
        if not target.numel():
            return
        truth = target.long()
        keep = truth != self.ignore_index
        if not host.on_host(target):
            self._note(truth.flatten(), prediction.long().flatten(), keep.flatten())
            return
        truth, guess = truth[keep], prediction[keep].long()
        if truth.numel():
            self._check(*(int(value) for labels in (truth, guess) for value in labels.aminmax()))
        k = self.num_classes
        self._matrix += torch.bincount(truth * k + guess, minlength=k * k).reshape(k, k)

    def _note(self, truth: Tensor, guess: Tensor, keep: Tensor) -> None:
        """Count pixels (N,) where they are, those of ``keep``. Only ``bincount`` waits, for its largest value."""
        k = self.num_classes
        labels = torch.where(keep, torch.stack([truth, guess]), 0)
        fine = keep & ((labels >= 0) & (labels < k)).all(dim=0)
        counts = torch.bincount(torch.where(fine, labels[0] * k + labels[1], k * k), minlength=k * k + 1)
        low, high = torch.aminmax(labels, dim=1)
        if self._counted:
            before, lowest, highest = self._counted
            counts, low, high = counts + before, torch.minimum(low, lowest), torch.maximum(high, highest)
        self._counted = [counts, low, high]

    def _take_in(self) -> None:
        k, joined = self.num_classes, torch.cat(self._counted).cpu()
        self._counted = []
        low, high = joined[-4:-2].tolist(), joined[-2:].tolist()
        self._check(low[0], high[0], low[1], high[1])
        self._matrix += joined[: k * k].view(k, k)

    def _check(self, truth_low: int, truth_high: int, guess_low: int, guess_high: int) -> None:
        """Raises ValueError if the least or the largest label is no class."""
        unless = f" and not {self.ignore_index}"
        for what, low, high in (
            (f"a target label is outside 0..{self.num_classes - 1}{unless}", truth_low, truth_high),
            (f"a predicted label is outside 0..{self.num_classes - 1}", guess_low, guess_high),
        ):
            if low < 0 or high >= self.num_classes:
                raise ValueError(f"{what}: {low}..{high}")

    def merge(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Add what another one counted, in place.

        Raises:
            ValueError: it has another number of classes.
        """
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge {other.num_classes} classes into {self.num_classes}")
        self.matrix.add_(other.matrix)
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
