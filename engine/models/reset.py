"""Upper layers back to what they were: what tuning has done to them is given up, what it has done below is kept."""

from __future__ import annotations

import torch

from engine.models.vgg import Backbone


@torch.no_grad()
def reset_layers(backbone: Backbone, initial: Backbone, count: int) -> None:
    """Give the last ``count`` layers of a backbone, statistics included, the values of another one, in place.

    Args:
        initial: a backbone of the same kind and width.
        count: 0 up to ``len(backbone.layer_keys())``.
    """
    values, others = backbone.state_dict(), initial.state_dict()
    layers = backbone.layer_keys()
    for key in (key for layer in layers[len(layers) - count :] for key in layer):
        values[key].copy_(others[key])
