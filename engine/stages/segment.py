"""Stage c: fine-tuning for segmentation with a hypercolumn head on sparsely sampled pixels (PAPER 2.1, 2.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine import determinism
from engine.config.schema import SegmentConfig
from engine.data.dataset import VOID
from engine.data.pipeline import epoch_indices, normalise, sample_crops
from engine.models.heads import HypercolumnSegmenter
from engine.stages.base import Context
from engine.stages.evaluate import evaluate
from engine.stages.training import Updater, backward


def build_segmenter(context: Context, num_classes: int) -> HypercolumnSegmenter:
    """Backbone of the stage before and a fresh head, which depends on the seed alone."""
    init = determinism.generator(context.recipe.seed, "init/head")
    return HypercolumnSegmenter(context.backbone(), num_classes, context.recipe.model, init)


class SegmentStage:
    """Fine-tunes backbone and head for ``segment.steps`` steps."""

    name = "segment"

    def __init__(self, context: Context, config: SegmentConfig) -> None:
        self.context, self.config = context, config
        self.total_steps, self.images_per_step = config.steps, config.batch_size * config.accumulate
        self.data = context.data("train")
        self.model = build_segmenter(context, self.data.num_classes)
        self.module: nn.Module = context.place(self.model).train()
        self.updater = Updater(self.module, config.optim, config.steps)
        self.optimiser = self.updater.optimiser
        self.order_seed = determinism.derive_seed(context.recipe.seed, "order/segment", context.rank)

    def step(self, step: int) -> dict[str, Tensor | float]:
        lr = self.updater.begin(step)
        total: Tensor | None = None
        for part in range(self.config.accumulate):
            loss = self._loss(step * self.config.accumulate + part)
            backward(loss, 1 / self.config.accumulate)
            detached = loss.detach() / self.config.accumulate
            total = detached if total is None else total + detached
        self.updater.apply()
        assert total is not None
        return {"loss": total, "lr": lr}

    def _loss(self, draw: int) -> Tensor:
        config, generator = self.config, self.context.generator("segment", draw)
        indices = epoch_indices(self.order_seed, draw, config.batch_size, len(self.data))
        images, labels = sample_crops(self.data, indices, config.crop, generator)
        ys, xs = (sample_pixels(labels, config.pixels, config.pixel_margin, generator) for _ in range(2))
        target = labels[torch.arange(len(labels), device=labels.device)[:, None], ys, xs]
        with self.context.autocast():
            logits = self.model.sample_logits(normalise(images, self.context.recipe.model.input), ys, xs)
        return pixel_loss(logits.float(), target)

    def observe(self, done: int) -> dict[str, float]:
        every = self.config.eval_every
        if not every or done % every or self.context.recipe.evaluate is None:
            return {}
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


def pixel_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over pixels that are not void; 0 (with a gradient of 0) if all are.

    Args:
        logits: (B, P, K), float32.
        target: int64 (B, P), 255 = void.
    """
    losses = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=VOID, reduction="sum")
    return losses / (target != VOID).sum().clamp(min=1)
