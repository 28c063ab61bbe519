"""Stage b: mix-and-match tuning. Patches of all images are mixed, tied in a class-wise connected graph, and the
backbone is tuned so that patches of one class come together and those of different classes part (PAPER 1.2-1.5)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from engine import determinism
from engine.config.schema import MatchConfig
from engine.data.pipeline import epoch_indices, normalise, sample_crops
from engine.mixmatch.graph import MatchGraph, build_match_graph
from engine.mixmatch.loss import triplet_loss
from engine.mixmatch.patches import Patches, crop_patches, sample_patches
from engine.mixmatch.stats import StarvationCounter, graph_statistics, project_2d
from engine.models import Backbone
from engine.stages.base import Context
from engine.stages.training import Updater, backward

PROJECTIONS = 8
"""How many 2-D projections of the embeddings a stage reports."""


class Embedder(nn.Module):
    """The backbone alone: a node's feature is its flattened last map."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone.embed(x)


class MatchStage:
    """Tunes the backbone for ``match.steps`` steps."""

    name = "match"

    def __init__(self, context: Context, config: MatchConfig) -> None:
        self.context, self.config = context, config
        self.total_steps, self.images_per_step = config.steps, config.images
        self.data = context.data("train")
        self.embedder = Embedder(context.backbone())
        self.module: nn.Module = context.place(self.embedder).train()
        self.updater = Updater(self.module, config.optim, config.steps)
        self.optimiser = self.updater.optimiser
        self.order_seed = determinism.derive_seed(context.recipe.seed, "order/match", context.rank)
        self.starvation = StarvationCounter(self.data.num_classes)
        self.last: tuple[Patches, MatchGraph, Tensor] | None = None

    def step(self, step: int) -> dict[str, Tensor | float]:
        lr = self.updater.begin(step)
        patches, pixels = self._mix(step)
        with self.context.autocast():
            embeddings = self.embedder(pixels)
        graph = build_match_graph(
            patches.label, strategy=self.config.strategy, generator=self.context.generator("match/graph", step)
        )
        loss = triplet_loss(embeddings.float(), graph, margin=self.config.margin, normalizer=self.config.normalizer)
        backward(loss)
        self.updater.apply()
        self.starvation.update(patches.label, step + 1)
        self.last = (patches, graph, embeddings.detach())
        return {"loss": loss.detach(), "lr": lr}

    def _mix(self, step: int) -> tuple[Patches, Tensor]:
        """Patches of this step's images and their pixels (N, C, output_size, output_size)."""
        config = self.config
        indices = epoch_indices(self.order_seed, step, config.images, len(self.data))
        images, labels = sample_crops(self.data, indices, config.crop, self.context.generator("match/crop", step))
        patches = sample_patches(
            labels,
            config.patches_per_image,
            size=config.patch_size,
            background=config.background,
            background_ratio=config.background_ratio,
            overlap=config.overlap,
            generator=self.context.generator("match/patches", step),
        )
        inputs = normalise(images, self.context.recipe.model.input)
        return patches, crop_patches(inputs, patches, output_size=config.output_size)

    def observe(self, done: int) -> dict[str, float]:
        if self.last is None:
            return {}
        patches, graph, embeddings = self.last
        if done % self.context.recipe.runtime.graph_every == 0 or done == self.total_steps:
            statistics = graph_statistics(
                patches.label, graph, embeddings, self.config.margin, patches, self.data.num_classes
            )
            statistics["starved"] = self.starvation.starved(done)
            self.context.writer.emit("graph", statistics)
        if done % max(1, self.total_steps // PROJECTIONS) == 0:
            self._report_projection(patches.label, embeddings)
        return {}

    def _report_projection(self, labels: Tensor, embeddings: Tensor) -> None:
        with torch.no_grad():
            points = project_2d(embeddings.float()).cpu()
        values = {
            "x": [round(v, 4) for v in points[:, 0].tolist()],
            "y": [round(v, 4) for v in points[:, 1].tolist()],
            "label": labels.tolist(),
        }
        self.context.writer.emit("projection", values)

    def output(self) -> nn.Module:
        return self.module

    def summary(self) -> dict[str, Any]:
        return {"strategy": self.config.strategy, "margin": self.config.margin}
