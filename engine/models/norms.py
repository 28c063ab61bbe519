"""What batch normalisation has to go by."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn

from engine.models import Segmenter
from engine.models.alexnet import CaffeBatchNorm
from engine.models.heads import HypercolumnSegmenter


@torch.no_grad()
def fewest_values(model: Segmenter, side: int) -> int | None:
    """The least number of values a channel that a normalisation sees of one image of ``side`` x ``side`` pixels.

    None if the network normalises nothing. The network is not changed: it computes an empty image in evaluation mode.
    """
    found: list[int] = []

    def note(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0][0, 0].numel())

    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d | CaffeBatchNorm)]
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    training = model.training
    x = torch.zeros(1, model.backbone.in_channels, side, side, device=next(model.parameters()).device)
    try:
        model.eval()
        # Where a map becomes too small to be pooled, what was normalised until then counts.
        with contextlib.suppress(RuntimeError):
            model.layers(x) if isinstance(model, HypercolumnSegmenter) else model(x)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return min(found, default=None)
