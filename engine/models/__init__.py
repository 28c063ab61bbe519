"""Networks. A new backbone is a function in a file beside this and one line in BUILDERS, a new head one in HEADS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from engine.config.backbones import is_timm
from engine.config.schema import ModelConfig
from engine.errors import RecipeError
from engine.models.alexnet import alexnet, alexnet_jigsaw, alexnet_torchvision
from engine.models.dense_heads import DenseSegmenter, aspp, fcn, fcn32
from engine.models.heads import HypercolumnSegmenter
from engine.models.pyramid_heads import deeplabv3plus, linear, pyramid, upernet
from engine.models.resnet import resnet18, resnet50
from engine.models.timm_backbone import timm_encoder
from engine.models.vgg import Backbone, tiny_vgg, vgg16
from engine.models.weights import LoadReport, load_weights, weights_file

BUILDERS: dict[str, Callable[[int, float, torch.Generator | None], Backbone]] = {
    "tiny_vgg": tiny_vgg,
    "vgg16": vgg16,
    "alexnet": alexnet,
    "alexnet_jigsaw": alexnet_jigsaw,
    "alexnet_torchvision": alexnet_torchvision,
    "resnet18": resnet18,
    "resnet50": resnet50,
}
DILATED: dict[str, Callable[[int, float, torch.Generator | None], Backbone]] = {
    "resnet18": partial(resnet18, dilated=True),
    "resnet50": partial(resnet50, dilated=True),
}
Segmenter = HypercolumnSegmenter | DenseSegmenter
HEADS: dict[str, Callable[[Backbone, int, ModelConfig, torch.Generator | None], Segmenter]] = {
    "hypercolumn": HypercolumnSegmenter,
    "fcn32": fcn32,
    "fcn": fcn,
    "aspp": aspp,
    "deeplabv3plus": deeplabv3plus,
    "upernet": upernet,
    "pyramid": pyramid,
    "linear": linear,
}


def build_backbone(
    config: ModelConfig,
    generator: torch.Generator | None = None,
    tell: Callable[[LoadReport], None] | None = None,
) -> Backbone:
    """The backbone of a recipe, with random weights or those of ``config.weights``.

    Args:
        config: the recipe's model section.
        generator: source of the random weights; None = torch's global generator.
        tell: takes what became of the keys of ``config.weights``, if there are such.

    Raises:
        RecipeError: a backbone that cannot be dilated is to be.
        CheckpointError: the weight file is missing or does not fit.
    """
    backbone = _random_backbone(config, generator)
    if config.weights:
        path = weights_file(config)
        report = load_weights(backbone, config.backbone, path, partial=config.weights_partial, input=config.input)
        if tell is not None:
            tell(report)
    return backbone


def _random_backbone(config: ModelConfig, generator: torch.Generator | None) -> Backbone:
    channels = 1 if config.input == "gray" else 3
    if is_timm(config.backbone):
        return timm_encoder(config.backbone, channels, generator, dilated=config.dilated)
    builders = DILATED if config.dilated else BUILDERS
    if config.backbone not in builders:
        raise RecipeError(f"model.dilated: {config.backbone} has no dilated form; write false, or use a ResNet")
    return builders[config.backbone](channels, config.width, generator)


def build_head(
    backbone: Backbone, num_classes: int, config: ModelConfig, generator: torch.Generator | None = None
) -> Segmenter:
    """The segmentation network of a recipe on a backbone.

    Raises:
        RecipeError: head and backbone, or head and channels, do not go together.
    """
    if config.head == "fcn32" and not config.fc_channels:
        raise RecipeError("model.head fcn32 needs fc6 and fc7: set model.fc_channels, for example to 4096")
    if config.head == "hypercolumn" and config.dilated:
        raise RecipeError("model.head hypercolumn needs maps of doubling scale: set model.dilated=false")
    check_scales(config, backbone.hyper_scales)
    return HEADS[config.head](backbone, num_classes, config, generator)


def check_scales(config: ModelConfig, scales: Sequence[int]) -> None:
    """Raises RecipeError if the head cannot read maps of these scales."""
    odd = [scale for scale in scales if scale & (scale - 1)]
    if config.head == "hypercolumn" and odd:
        raise RecipeError(
            f"model.head hypercolumn needs scales that are powers of two, and {config.backbone} has {odd[-1]}: write"
            " model.head=linear, fcn, upernet or another"
        )


__all__ = ["BUILDERS", "HEADS", "Backbone", "Segmenter", "build_backbone", "build_head", "check_scales"]
