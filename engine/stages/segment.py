"""Stage c: fine-tuning for segmentation, on sampled pixels (hypercolumns) or on all of them (PAPER 2.1-2.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine import determinism, dist
from engine.checkpoint import damage, step_folder
from engine.config.best import BEST, LOSS
from engine.config.checkpoint_meta import Remembered
from engine.config.schema import SegmentConfig
from engine.data.pipeline import OUTSIDE_PIXEL, epoch_indices, normalise, sample_crops
from engine.json_types import JsonObject
from engine.models import Segmenter
from engine.models.dense_heads import DenseSegmenter, WithAuxiliary
from engine.models.reset import reset_layers
from engine.stages.base import Context
from engine.stages.best import BestSoFar, value_of
from engine.stages.class_weights import class_weights
from engine.stages.ema import EMA, TRAINED, Averaged
from engine.stages.evaluate import evaluate
from engine.stages.memory import InPortions, MemoryGuard, in_portions
from engine.stages.pixel_losses import LOSSES, Joint
from engine.stages.segmenter import build_segmenter
from engine.stages.sharing import Share
from engine.stages.training import Updater, backward
from engine.stages.validation_loss import ValidationLoss

VAL_LOSS = "val_loss"
"""Name of the metric by which ``segment.keep_best: loss`` compares."""


@dataclass(frozen=True)
class Batch:
    """What one pass learns from.

    Attributes:
        images: uint8 (B, 3, crop, crop).
        where: pixels (ys, xs) to score, int64 (B, P) each; () for all.
        target: their classes, int64 (B, P), 255 = void.
        valid: what the loss is divided by (see ``PixelLoss.total``), scalar.
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
        self.trained: nn.Module = context.place(self._with_auxiliary()).train()
        self.averaged = Averaged(self.trained, config.ema) if config.ema else None
        self.module: nn.Module = self.trained if self.averaged is None else self.averaged
        self.updater = Updater(self.trained, config.optim, config.steps)
        self.optimiser = self.updater.optimiser
        self.order_seed = determinism.derive_seed(context.recipe.seed, "order/segment", 0)
        self.share = Share.of(config.accumulate)
        self.passes = self.share.count
        own = self.share.rows(config.batch_size)
        kind = LOSSES[config.loss]
        size = own.stop - own.start
        self.guard = MemoryGuard(context, self.trained, self.name, size, of_batches=kind.of_batches)
        self.network = self.guard.network
        joint = Joint() if self.share.whole else Joint(self.share.world, self.guard.meet)
        self.loss = kind(config, class_weights(context, config, self.data), joint)
        self.best = BestSoFar(config.keep_best, config.patience) if config.keep_best else None

    def _with_auxiliary(self) -> nn.Module:
        """The network with what is there for training alone, if the recipe wants that."""
        if not self.config.auxiliary_head:
            return self.model
        assert isinstance(self.model, DenseSegmenter), "the recipe was checked"
        init = determinism.generator(self.context.recipe.seed, "init/auxiliary")
        return WithAuxiliary(self.model, self.context.recipe.model, init)

    def step(self, step: int) -> dict[str, Tensor | float]:
        if step == 0 and self.config.reset_layers:
            reset_layers(self.model.backbone, self.context.backbone_before_match(), self.config.reset_layers)
            if self.averaged is not None:
                self.averaged.begin()
        lr = self.updater.begin(step)
        loss = self.guard.run(step, lambda: self._loss_and_gradients(step))
        self.updater.apply()
        if self.averaged is not None:
            self.averaged.update(step + 1)
        return {"loss": loss, "lr": lr}

    def _loss_and_gradients(self, step: int) -> Tensor:
        """The step's loss without gradient; gradients are left in the parameters."""
        batches = map(self._prepared, self.share.draws(step))
        total: Tensor | None = None
        for number, batch in enumerate(batches, 1):
            loss = self._pass(batch, last=number == self.passes) / self.passes
            total = loss if total is None else total + loss
        assert total is not None
        return total

    def _prepared(self, draw: int) -> Batch:
        """The part of a batch that this process computes; its losses count as in the whole one."""
        images, labels, generator = self._batch(draw)
        where, target = self._supervision(labels, generator)
        valid = self.loss.total(target)
        if self.share.whole:
            return Batch(images, where, target, valid)
        own = self.share.rows(len(images))
        # The mean over processes that follows is of gradients that add up.
        return Batch(images[own], tuple(part[own] for part in where), target[own], valid / self.share.world)

    def _pass(self, batch: Batch, *, last: bool) -> Tensor:
        """Forward and backward of one batch; its loss without gradient.

        Args:
            last: whether it is the last of the step.
        """
        images, where, target = batch.images, batch.where, batch.target
        portions = in_portions(torch.arange(len(images), device=images.device), self.splits)
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
        """Crops of one draw, the same in every process that draws it, and the generator for what is drawn next."""
        config = self.config
        generator = self.context.generator("segment", draw, rank=0)
        indices, jitter = self._indices(draw), (config.scale_jitter, config.colour_jitter)
        outside = OUTSIDE_PIXEL[self.context.recipe.model.input]
        images, labels = sample_crops(self.data, indices, config.crop, generator, True, *jitter, fill=outside)
        following = self.share.following(draw)
        self.data.expect(lambda: self._indices(following))
        return images, labels, generator

    def _indices(self, draw: int) -> Tensor:
        """Which images one draw holds."""
        return epoch_indices(self.order_seed, draw, self.config.batch_size, len(self.data))

    def _portion(self, images: Tensor, where: tuple[Tensor, ...], target: Tensor, valid: Tensor) -> Tensor:
        with self.context.autocast():
            logits = self.network(normalise(images, self.context.recipe.model.input), *where)
        if where:
            return self.loss(logits.float(), target, valid)
        several = logits if isinstance(logits, tuple) else (logits,)
        losses = [self.loss(scores.flatten(2).transpose(1, 2).float(), target, valid) for scores in several]
        return losses[0] if len(losses) == 1 else losses[0] + self.config.auxiliary_head * losses[1]

    def observe(self, done: int) -> dict[str, float]:
        config, measured = self.config, self.context.recipe.evaluate
        # Of the last step, too, so that it is among those that the best is one of.
        last = self.best is not None and done == self.total_steps
        if measured is None or not (last or (config.eval_every and done % config.eval_every == 0)):
            return {}
        dist.take_from_first(self.module.buffers())  # running statistics are those of rank 0 (PAPER 1.5)
        loss = ValidationLoss(len(self.context.data("val"))) if config.keep_best == LOSS else None
        matrix = evaluate(self.context, self.output(), measured, final=False, weights=self._weights, loss=loss)
        found = {"miou": 100 * matrix.mean_iou()} | ({} if loss is None else {VAL_LOSS: loss.mean()})
        if self.best is not None:
            self.best.note(done, value_of(self.best.metric, matrix, self.data.classes, found.get(VAL_LOSS, math.nan)))
        return found

    def remembered(self) -> Remembered:
        return {} if self.best is None else {BEST: self.best.state()}

    def recall(self, remembered: Remembered) -> None:
        if self.best is None or BEST not in remembered:
            return
        self.best.recall(remembered[BEST])
        step = self.best.step
        if step is None:
            return
        folder = step_folder(self.context.run_dir, self.name, step)
        problem = damage(folder)
        if problem:
            self.context.warn(f"the best checkpoint {folder} is damaged or gone ({problem}): the best is sought anew")
            self.best.forget()

    def output(self) -> Segmenter:
        if self.averaged is None:
            return self.model
        average = self.averaged.average
        average = average.segmenter if isinstance(average, WithAuxiliary) else average
        assert isinstance(average, Segmenter)
        return average

    @property
    def _weights(self) -> str:
        return TRAINED if self.averaged is None else EMA

    def summary(self) -> JsonObject:
        kept = {} if self.best is None else {BEST: self.best.told()}
        return {"classes": list(self.data.classes), "weights": self._weights, **kept}


def sample_pixels(labels: Tensor, count: int, margin: int, generator: torch.Generator) -> Tensor:
    """One coordinate of uniform pixels, int64 (B, count), that keep ``margin`` pixels off the border."""
    side = labels.shape[1]
    low = min(margin, (side - 1) // 2)
    return torch.randint(low, side - low, (len(labels), count), generator=generator, device=labels.device)
