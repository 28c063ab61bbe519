"""What fine-tuning minimises: losses over the pixels that have a class, chosen by ``segment.loss``.

Each is computed in float32 whatever the network's precision, waits for no GPU (shapes do not depend on values), and
gives 0 with gradients of 0 where all pixels are void. A new one is a class here, a line in LOSSES and a name in the
schema.

Shapes: B images, P pixels of each, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as torch_dist
from torch.nn import functional as F

from engine import dist
from engine.config.schema import SegmentConfig
from engine.data.values import VOID

SMALLEST = 1e-12
"""Of 1 - p, whose power has no gradient at 0."""
SMALLEST_SUM = 1e-7
"""Of what Dice divides by."""


def pixel_loss(
    logits: Tensor,
    target: Tensor,
    valid: Tensor | None = None,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Mean cross-entropy over pixels that are not void; 0 (with a gradient of 0) if all are.

    Args:
        logits: (B, P, K), float32.
        target: int64 (B, P), 255 = void.
        valid: what to divide by, scalar, above 0; None = number of pixels that are not void, at least 1.
        weights: of the classes, float32 (K,).
        smoothing: share of the target that is spread evenly over all classes, 0-1.
    """
    given = {"ignore_index": VOID, "weight": weights, "label_smoothing": smoothing}
    losses = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum", **given)  # type: ignore[arg-type]
    return losses / (labelled(target) if valid is None else valid)


def labelled(target: Tensor) -> Tensor:
    """Number of pixels that are not void, at least 1, scalar."""
    return (target != VOID).sum().clamp(min=1)


@dataclass(frozen=True)
class Joint:
    """The batch of which this process computes some rows, and other processes the others.

    Attributes:
        world: number of processes that share the batch; 1 = this one has all of it.
        meet: to be called when no more memory is needed for what is exchanged next (see ``engine.stages.memory``).
    """

    world: int = 1
    meet: Callable[[], object] = lambda: None

    def sums(self, own: Tensor) -> Tensor:
        """Sums over all processes; gradients flow into the own part alone."""
        if self.world == 1:
            return own
        total = own.detach().clone()
        self.meet()
        return dist.all_reduce_sum(total) + (own - own.detach())

    def rows(self, own: Tensor) -> Tensor:
        """The numbers (n,) of all processes, without gradient; each has the same number of them."""
        if self.world == 1:
            return own
        own = own.contiguous()
        everything = own.new_empty(self.world * len(own))
        self.meet()
        torch_dist.all_gather_into_tensor(everything, own)
        return everything

    def of_all(self, loss: Tensor) -> Tensor:
        """A loss of the whole batch, which every process has computed: the mean of the gradients over the processes,
        each of its own rows alone, is then the gradient of that loss."""
        return loss if self.world == 1 else loss * self.world - loss.detach() * (self.world - 1)


class PixelLoss:
    """A loss of fine-tuning.

    Args:
        config: the recipe's segment section.
        weights: of the classes, float32 (K,) on the device; None = all 1.
        joint: how batches are shared with other processes.
    """

    of_batches = False
    """Whether it is of a batch as a whole, which its portions do not add up to where memory does not suffice."""

    def __init__(self, config: SegmentConfig, weights: Tensor | None = None, joint: Joint | None = None) -> None:
        self.config, self.weights, self.joint = config, weights, joint or Joint()
        self.table = None if weights is None else F.pad(weights, (0, VOID + 1 - len(weights)))
        """Weight of each value of a mask; what is void weighs nothing."""

    def total(self, target: Tensor) -> Tensor:
        """What the losses of all parts of a batch are divided by, scalar: the labelled pixels, weighed by their class.

        Args:
            target: of the whole batch, int64 (B, P).
        """
        if self.table is None:
            return labelled(target)
        total = self.table[target].sum()
        return torch.where(total > 0, total, 1.0)

    def __call__(self, logits: Tensor, target: Tensor, total: Tensor) -> Tensor:
        """Scalar loss of a part of a batch; those of all parts add up.

        Args:
            logits: (B, P, K), float32.
            target: int64 (B, P), 255 = void.
            total: what ``total`` gives of the batch; of one in several processes divided by their number.
        """
        raise NotImplementedError

    def _each(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """-log p of each pixel's class, and the same weighed and smoothed, (B * P,) each; 0 where it is void."""
        scores, classes = logits.flatten(0, 1), target.flatten()
        plain = F.cross_entropy(scores, classes, ignore_index=VOID, reduction="none")
        if self.weights is None and not self.config.label_smoothing:
            return plain, plain
        smoothed = F.cross_entropy(
            scores,
            classes,
            weight=self.weights,
            ignore_index=VOID,
            reduction="none",
            label_smoothing=self.config.label_smoothing,
        )
        return plain, smoothed


class CrossEntropy(PixelLoss):
    """``ce``: mean of -w_y log p_y, as ``torch.nn.CrossEntropyLoss`` with weights and label smoothing."""

    def __call__(self, logits: Tensor, target: Tensor, total: Tensor) -> Tensor:
        return pixel_loss(logits, target, total, self.weights, self.config.label_smoothing)


class Focal(PixelLoss):
    """``focal``: mean of -w_y (1 - p_y)^gamma log p_y, with p of the softmax (Lin et al. 2017, equation 5)."""

    def __call__(self, logits: Tensor, target: Tensor, total: Tensor) -> Tensor:
        plain, smoothed = self._each(logits, target)
        others = torch.expm1(-plain).neg().clamp(min=SMALLEST)
        return (others**self.config.focal_gamma * smoothed).sum() / total


class Dice(PixelLoss):
    """``dice``: 1 - 2 sum p t / (sum p + sum t) of each class over all labelled pixels of the batch, mean over classes.

    A class without a pixel in the batch counts 0 in the mean (segmentation_models.pytorch, ``DiceLoss`` multiclass).
    """

    of_batches = True

    def total(self, target: Tensor) -> Tensor:
        """Number of images."""
        return target.new_full((), len(target), dtype=torch.float32)

    def __call__(self, logits: Tensor, target: Tensor, total: Tensor) -> Tensor:
        classes = torch.arange(logits.shape[2], device=logits.device)
        truth = (target[:, :, None] == classes).float()
        shares = logits.softmax(dim=2) * (target != VOID)[:, :, None]
        parts = torch.stack([(shares * truth).sum(dim=(0, 1)), shares.sum(dim=(0, 1)), truth.sum(dim=(0, 1))])
        both, predicted, true = self.joint.sums(parts)
        missed = (1 - 2 * both / (predicted + true).clamp(min=SMALLEST_SUM)) * (true > 0)
        loss = missed.mean() if self.weights is None else (self.weights * missed).sum() / self.weights.sum()
        return self.joint.of_all(loss) * (len(target) / total)


class Ohem(PixelLoss):
    """``ohem``: cross-entropy over the hard pixels of a batch alone (Shrivastava et al. 2016), chosen about as by
    mmsegmentation's ``OHEMPixelSampler``.

    Hard are those whose class has a probability of at most ``ohem_threshold``, and in any case the share ``ohem_keep``
    of the labelled pixels that has the least.
    """

    of_batches = True

    def total(self, target: Tensor) -> Tensor:
        """Number of images."""
        return target.new_full((), len(target), dtype=torch.float32)

    def __call__(self, logits: Tensor, target: Tensor, total: Tensor) -> Tensor:
        plain, smoothed = self._each(logits, target)
        classes = target.flatten()
        hardness = torch.where(classes == VOID, -1.0, plain.detach())
        limit, share = self._limit(self.joint.rows(hardness))
        hard = torch.where(hardness == limit, share, (hardness > limit).float()) * (classes != VOID)
        weighed = hard if self.table is None else hard * self.table[classes]
        count = self.joint.sums(weighed.sum()) / self.joint.world
        mean = (smoothed * hard).sum() / torch.where(count > 0, count, 1.0)
        return mean * (len(target) / total)

    def _limit(self, hardness: Tensor) -> tuple[Tensor, Tensor]:
        """-log p from which on a pixel is hard, and how much of a pixel counts that has just this, (1,) each.

        Where the share decides, it is pixels alike that fill it up, all of them in part: many are certain, with a
        -log p of 0, and with all of them the mean would be that of all pixels.

        Args:
            hardness: -log p of the whole batch, -1 where it is void.
        """
        ranked = hardness.sort(descending=True).values
        # In float64, which counts every pixel.
        kept = ((hardness >= 0).sum().double() * self.config.ohem_keep).ceil().long().clamp(min=1)
        last = ranked.gather(0, (kept - 1).view(1))
        limit = last.clamp(max=-math.log(self.config.ohem_threshold))
        left = kept - (hardness > limit).sum()
        filled = (left.double() / (hardness == limit).sum().clamp(min=1)).float()
        return limit, torch.where(last > limit, 1.0, filled)


LOSSES: Mapping[str, type[PixelLoss]] = {"ce": CrossEntropy, "focal": Focal, "dice": Dice, "ohem": Ohem}
