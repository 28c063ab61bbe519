"""Proxy tasks. A new one is a class in a file beside this and one line in BUILDERS.

What a task is, ``engine.proxies.task`` says: a module with a ``backbone`` that takes a generator for all its random
choices and gives the scalar loss and metrics without gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine.config.schema import ProxyConfig
from engine.models import Backbone
from engine.proxies.classification import Classification
from engine.proxies.colorization import Colorization
from engine.proxies.densecl import DenseCL
from engine.proxies.jigsaw import Jigsaw
from engine.proxies.moco import MoCo
from engine.proxies.rotation import Rotation
from engine.proxies.task import Task

BUILDERS: dict[str, Callable[[ProxyConfig, Backbone, torch.Generator | None, int], Task]] = {
    "colorization": Colorization,
    "jigsaw": Jigsaw,
    "rotation": Rotation,
    "moco": MoCo,
    "densecl": DenseCL,
    "classification": Classification,
}


def build_proxy(
    config: ProxyConfig, backbone: Backbone, generator: torch.Generator | None = None, classes: int = 0
) -> Task:
    """The proxy task of a recipe on a backbone.

    Args:
        generator: source of the random weights; None = torch's global one.
        classes: how many classes the images have; only the supervised task needs to know.
    """
    return BUILDERS[config.kind](config, backbone, generator, classes)


__all__ = [
    "BUILDERS",
    "Classification",
    "Colorization",
    "DenseCL",
    "Jigsaw",
    "MoCo",
    "Rotation",
    "Task",
    "build_proxy",
]
