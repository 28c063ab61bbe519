"""An exponential moving average of a network's weights, which is evaluated and handed on in its place.

Source: Polyak and Juditsky 1992 for averaging; the decay's warm-up is that of TensorFlow's ExponentialMovingAverage.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

TRAINED, EMA = "trained", "ema"
"""Which weights were evaluated or handed on: those that the optimiser moves, or their average."""


def decay_after(updates: int, decay: float) -> float:
    """Share of itself that the average keeps at update number n, counted from 1: min(decay, (1 + n) / (10 + n)).

    So that a young average does not hang on to weights that have learnt nothing.
    """
    return min(decay, (1 + updates) / (10 + updates))


class Averaged(nn.Module):
    """A network and the average of its weights: what a checkpoint of a stage that averages holds.

    Buffers, such as the running statistics of batch normalisation, are not averaged but those of the trained network:
    they are averages over steps already. The average is always in evaluation mode and has no gradients.

    Attributes:
        trained: what the optimiser moves.
        average: a network of the same kind.
    """

    def __init__(self, trained: nn.Module, decay: float) -> None:
        super().__init__()
        self.trained, self.decay = trained, decay
        self.average = copy.deepcopy(trained).requires_grad_(False).eval()

    @torch.no_grad()
    def begin(self) -> None:
        """Start at the weights as they are."""
        for own, other in zip(_state(self.average), _state(self.trained), strict=True):
            own.copy_(other)

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take in the weights after update number ``updates`` of the stage, counted from 1."""
        share = 1 - decay_after(updates, self.decay)
        torch._foreach_lerp_(list(self.average.parameters()), list(self.trained.parameters()), share)
        self.take_buffers()

    @torch.no_grad()
    def take_buffers(self) -> None:
        """Those of the trained network; of each type of number at once, as every copy is a launch on a GPU."""
        kinds: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for own, other in zip(self.average.buffers(), self.trained.buffers(), strict=True):
            pair = kinds.setdefault(own.dtype, ([], []))
            pair[0].append(own)
            pair[1].append(other)
        for targets, sources in kinds.values():
            torch._foreach_copy_(targets, sources)

    def train(self, mode: bool = True) -> Averaged:
        """The average stays in evaluation mode."""
        super().train(mode)
        self.average.eval()
        return self


def _state(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
