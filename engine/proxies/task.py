"""What a proxy task is to the stage that trains it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Task(nn.Module):
    """A module with a ``backbone``. Its forward pass gives the scalar loss and metrics without gradient.

    In every step the stage calls ``prepare`` once, the forward pass for each portion of what that returned, and
    ``after_step`` once the weights are updated. A step may be computed again from ``prepare`` on: until ``after_step``
    nothing may change that the result depends on, but for running statistics.
    """

    def begin(self, images: Callable[[], Tensor]) -> None:
        """Called before the first step of every attempt; ``images`` makes a batch to look at, uint8 (B, 3, s, s)."""

    def prepare(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """What the forward pass is given in portions (B, ...), from the whole batch uint8 (B, 3, s, s)."""
        return images

    def forward(
        self, images: Tensor, generator: torch.Generator, targets: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of a portion. ``targets``: int64 (B,), None unless the task is supervised."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after each update of the weights."""

    def handed_on(self) -> nn.Module:
        """The module whose weights are the stage's output: the backbone's, under ``backbone.``, and what else may."""
        return self
