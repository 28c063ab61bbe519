"""The segmentation network of a run, as it is before anything is trained or loaded into it."""

from __future__ import annotations

from engine import determinism
from engine.models import Segmenter, build_head
from engine.stages.base import Context


def build_segmenter(context: Context, num_classes: int) -> Segmenter:
    """Backbone of the stage before and a fresh head, which depends on the seed alone."""
    init = determinism.generator(context.recipe.seed, "init/head")
    backbone = context.backbone()
    if context.recipe.model.freeze == "backbone":
        backbone.freeze(None)
    return build_head(backbone, num_classes, context.recipe.model, init)
