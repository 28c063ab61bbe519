"""The update that all training stages share."""

from __future__ import annotations

from torch import Tensor, nn

from engine.config.optim import OptimConfig
from engine.optim import build_optimiser, clip, learning_rate, set_learning_rate
from engine.stages.base import Context


class Updater:
    """Optimiser and schedule of a stage."""

    def __init__(self, module: nn.Module, config: OptimConfig, total_steps: int) -> None:
        self.module, self.config, self.total_steps = module, config, total_steps
        self.optimiser = build_optimiser(module, config)

    def begin(self, step: int) -> float:
        """Clear gradients and set the rate of this step, which is returned."""
        lr = learning_rate(self.config, step, self.total_steps)
        set_learning_rate(self.optimiser, lr)
        self.module.zero_grad(set_to_none=True)
        return lr

    def apply(self) -> None:
        """Update the parameters from the gradients gathered since ``begin``."""
        clip(self.module, self.config)
        self.optimiser.update()


def backward(loss: Tensor, share: float = 1.0) -> None:
    """Gradients of ``share * loss``; float32 whatever the forward pass used."""
    (loss.float() * share).backward()


__all__ = ["Context", "Updater", "backward"]
