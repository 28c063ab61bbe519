"""Self-supervised proxy tasks. A new one is a class in a file beside this and one line in BUILDERS."""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine.config.schema import ProxyConfig
from engine.models.vgg import Backbone
from engine.proxies.colorization import Colorization

BUILDERS: dict[str, Callable[[ProxyConfig, Backbone, torch.Generator | None], Colorization]] = {
    "colorization": Colorization,
}


def build_proxy(config: ProxyConfig, backbone: Backbone, generator: torch.Generator | None = None) -> Colorization:
    """The proxy task of a recipe on a backbone; None as generator = torch's global one."""
    return BUILDERS[config.kind](config, backbone, generator)


__all__ = ["BUILDERS", "Colorization", "build_proxy"]
