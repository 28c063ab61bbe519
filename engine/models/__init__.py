"""Networks. A new backbone is a function in a file beside this and one line in BUILDERS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from engine.config.schema import ModelConfig
from engine.models.vgg import Backbone, tiny_vgg, vgg16
from engine.models.weights import load_backbone

BUILDERS: dict[str, Callable[[int, float, torch.Generator | None], Backbone]] = {
    "tiny_vgg": tiny_vgg,
    "vgg16": vgg16,
}


def build_backbone(config: ModelConfig, generator: torch.Generator | None = None) -> Backbone:
    """The backbone of a recipe, with random weights or those of ``config.weights``.

    Args:
        config: the recipe's model section.
        generator: source of the random weights; None = torch's global generator.

    Raises:
        CheckpointError: the weight file is missing or does not fit.
    """
    backbone = BUILDERS[config.backbone](1 if config.input == "gray" else 3, config.width, generator)
    if config.weights:
        load_backbone(backbone, Path(config.weights).expanduser())
    return backbone


__all__ = ["BUILDERS", "Backbone", "build_backbone"]
