"""Proxy tasks. A new one is a class in a file beside this and one line in BUILDERS.

A task is a module with an attribute ``backbone`` whose forward pass takes uint8 images (B, 3, h, w), a generator for
all its random choices, and int64 targets (B,) or None, and gives the scalar loss and metrics without gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from engine.config.schema import ProxyConfig
from engine.models import Backbone
from engine.proxies.classification import Classification
from engine.proxies.colorization import Colorization
from engine.proxies.jigsaw import Jigsaw
from engine.proxies.rotation import Rotation

BUILDERS: dict[str, Callable[[ProxyConfig, Backbone, torch.Generator | None, int], nn.Module]] = {
    "colorization": Colorization,
    "jigsaw": Jigsaw,
    "rotation": Rotation,
    "classification": Classification,
}


def build_proxy(
    config: ProxyConfig, backbone: Backbone, generator: torch.Generator | None = None, classes: int = 0
) -> nn.Module:
    """The proxy task of a recipe on a backbone.

    Args:
        generator: source of the random weights; None = torch's global one.
        classes: how many classes the images have; only the supervised task needs to know.
    """
    return BUILDERS[config.kind](config, backbone, generator, classes)


__all__ = ["BUILDERS", "Classification", "Colorization", "Jigsaw", "Rotation", "build_proxy"]
