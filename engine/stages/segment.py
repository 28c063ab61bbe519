"""Stage c: fine-tuning for segmentation, on sampled pixels (hypercolumns) or on all of them (PAPER 2.1-2.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine import determinism, dist
from engine.config.schema import SegmentConfig
from engine.data.dataset import VOID
from engine.data.pipeline import epoch_indices, next_draw, normalise, sample_crops
from engine.models import Segmenter, build_head
from engine.stages.base import Context
from engine.stages.evaluate import evaluate
from engine.stages.memory import InPortions, MemoryGuard
from engine.stages.training import Updater, backward


def build_segmenter(context: Context, num_classes: int) -> Segmenter:
    """Backbone of the stage before and a fresh head, which depends on the seed alone."""
    init = determinism.generator(context.recipe.seed, "init/head")
    return build_head(context.backbone(), num_classes, context.recipe.model, init)


@dataclass(frozen=True)
class Batch:
    """What one pass learns from.

    Attributes:
        images: uint8 (B, 3, crop, crop).
        where: pixels (ys, xs) to score, int64 (B, P) each; () for all.
        target: their classes, int64 (B, P), 255 = void.
        valid: number of pixels to divide the loss by, scalar.
    """

    images: Tensor
    where: tuple[Tensor, ...]
    target: Tensor
    valid: Tensor


class SegmentStage(InPortions):
    """Fine-tunes backbone and head for ``segment.steps`` steps."""

    name = "segment"

    def __init__(self, context: Context, config: SegmentConfig) -> None:
        self.context, self.config = context, config
        self.total_steps, self.images_per_step = config.steps, config.batch_size * config.accumulate
        self.data = context.data("train")
        self.images_per_epoch = len(self.data)
        self.model = build_segmenter(context, self.data.num_classes)
        self.module: nn.Module = context.place(self.model).train()
        self.updater = Updater(self.module, config.optim, config.steps)
        self.optimiser = self.updater.optimiser
        self.order_seed = determinism.derive_seed(context.recipe.seed, "order/segment", 0)
        # Whole batches for each process where that goes, so that they are the batches that one process would see.
        self.whole = config.accumulate % dist.world_size() == 0
        self.passes = config.accumulate // dist.world_size() if self.whole else config.accumulate
        size = config.batch_size
        if not self.whole:
            size = context.share_of(size, "segment.batch_size or segment.accumulate")
        self.guard = MemoryGuard(context, self.module, self.name, size)
        self.network = self.guard.network

    def step(self, step: int) -> dict[str, Tensor | float]:
        lr = self.updater.begin(step)
        loss = self.guard.run(step, lambda: self._loss_and_gradients(step))
        self.updater.apply()
        return {"loss": loss, "lr": lr}

    def _loss_and_gradients(self, step: int) -> Tensor:
        """The step's loss without gradient; gradients are left in the parameters."""
        first = step * self.config.accumulate + (self.context.rank * self.passes if self.whole else 0)
        draws = range(first, first + self.passes)
        batches = (self._prepared(draw) for draw in draws) if self.whole else self._shared(draws)
        total: Tensor | None = None
        for number, batch in enumerate(batches, 1):
            loss = self._pass(batch, last=number == self.passes) / self.passes
            total = loss if total is None else total + loss
        assert total is not None
        return total

    def _prepared(self, draw: int) -> Batch:
        images, labels, generator = self._batch(draw)
        where, target = self._supervision(labels, generator)
        return Batch(images, where, target, (target != VOID).sum())

    def _shared(self, draws: Iterable[int]) -> list[Batch]:
        """This process's shares of batches. Their losses count as if one process had the whole ones.

        All at once, so that nothing is exchanged once a pass has begun.
        """
        batches = [self._prepared(draw) for draw in draws]
        valid = torch.stack([batch.valid for batch in batches]).double()
        self.guard.meet()
        dist.all_reduce_sum(valid).div_(dist.world_size())
        return [replace(batch, valid=count) for batch, count in zip(batches, valid, strict=True)]

    def _pass(self, batch: Batch, *, last: bool) -> Tensor:
        """Forward and backward of one batch; its loss without gradient.

        Args:
            last: whether it is the last of the step.
        """
        images, where, target = batch.images, batch.where, batch.target
        portions = torch.arange(len(images), device=images.device).chunk(self.splits)
        total: Tensor | None = None
        for number, rows in enumerate(portions, 1):
            final = last and number == len(portions)
            with self.guard.quiet(not final):
                if len(rows) == len(images):
                    loss = self._portion(images, where, target, batch.valid)
                else:
                    loss = self._portion(images[rows], tuple(part[rows] for part in where), target[rows], batch.valid)
                with self.guard.last(final):
                    backward(loss, 1 / self.passes)
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total

    def _supervision(self, labels: Tensor, generator: torch.Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        """Pixels (ys, xs) to score, or () for all, and their classes int64 (B, P)."""
        if not self.model.sparse:
            return (), labels.flatten(1)
        ys, xs = (sample_pixels(labels, self.config.pixels, self.config.pixel_margin, generator) for _ in range(2))
        return (ys, xs), labels[torch.arange(len(labels), device=labels.device)[:, None], ys, xs]

    def _batch(self, draw: int) -> tuple[Tensor, Tensor, torch.Generator]:
        """Crops of one draw, or this process's share of them, and the generator for what is drawn next."""
        config = self.config
        generator = self.context.generator("segment", draw, rank=0 if self.whole else None)
        indices, jitter = self._indices(draw), (config.scale_jitter, config.colour_jitter)
        images, labels = sample_crops(self.data, indices, config.crop, generator, True, *jitter)
        following = next_draw(draw, config.accumulate, self.passes, self.context.rank)
        self.data.expect(lambda: self._indices(following))
        return images, labels, generator

    def _indices(self, draw: int) -> Tensor:
        """Which images this process sees in one draw."""
        if self.whole:
            return epoch_indices(self.order_seed, draw, self.config.batch_size, len(self.data))
        return self.context.indices(self.order_seed, draw, self.config.batch_size, len(self.data))

    def _portion(self, images: Tensor, where: tuple[Tensor, ...], target: Tensor, valid: Tensor) -> Tensor:
        with self.context.autocast():
            logits = self.network(normalise(images, self.context.recipe.model.input), *where)
        if not where:
            logits = logits.flatten(2).transpose(1, 2)
        return pixel_loss(logits.float(), target, valid)

    def observe(self, done: int) -> dict[str, float]:
        every = self.config.eval_every
        if not every or done % every or self.context.recipe.evaluate is None:
            return {}
        dist.take_from_first(self.module.buffers())  # running statistics are those of rank 0 (PAPER 1.5)
        matrix = evaluate(self.context, self.model, self.context.recipe.evaluate, final=False)
        return {"miou": 100 * matrix.mean_iou()}

    def output(self) -> nn.Module:
        return self.module

    def summary(self) -> dict[str, Any]:
        return {"classes": list(self.data.classes)}


def sample_pixels(labels: Tensor, count: int, margin: int, generator: torch.Generator) -> Tensor:
    """One coordinate of uniform pixels, int64 (B, count), that keep ``margin`` pixels off the border."""
    side = labels.shape[1]
    low = min(margin, (side - 1) // 2)
    return torch.randint(low, side - low, (len(labels), count), generator=generator, device=labels.device)


def pixel_loss(logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over pixels that are not void; 0 (with a gradient of 0) if all are.

    Args:
        logits: (B, P, K), float32.
        target: int64 (B, P), 255 = void.
        valid: number of pixels to divide by, scalar; None = those of ``target`` that are not void.
    """
    losses = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=VOID, reduction="sum")
    count = (target != VOID).sum() if valid is None else valid
    return losses / count.clamp(min=1)
