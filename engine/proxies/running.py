"""The key network normalises with running statistics, in training too, and keeps them up to date itself.

A key then depends on its own image alone: nothing about a batch leaks from keys to queries, for which MoCo shuffles its
batches over GPUs, and neither portions of a batch nor the number of processes change a key. Cai et al. 2021
("Exponential moving average normalization") do the same with statistics that follow the query's; those fit weights that
move slowly, and in short trainings they do not, so here they are measured on what the key network itself computes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine import dist
from engine.models.alexnet import CaffeBatchNorm

RATE = 0.1
"""Share of a step's statistics in the running ones, as in batch normalisation."""
Norm = nn.modules.batchnorm._BatchNorm | CaffeBatchNorm


def norms_of(network: nn.Module) -> list[nn.Module]:
    """Its normalisations, in order."""
    return [part for part in network.modules() if isinstance(part, Norm)]


class Running:
    """Mean and variance of what enters each normalisation of a network, gathered over the portions of a step."""

    def __init__(self, network: nn.Module) -> None:
        self.norms = norms_of(network)
        self.seen: list[list[tuple[int, Tensor, Tensor]]] = [[] for _ in self.norms]
        for number, norm in enumerate(self.norms):
            norm.register_forward_pre_hook(lambda _, inputs, number=number: self._note(number, inputs[0]))

    def forget(self) -> None:
        """What was gathered does not count."""
        self.seen = [[] for _ in self.norms]

    @torch.no_grad()
    def _note(self, number: int, x: Tensor) -> None:
        variance, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
        self.seen[number].append((len(x), mean.double(), variance.double()))

    @torch.no_grad()
    def update(self) -> None:
        """Let the running statistics take in those of the step, over all portions and processes."""
        if self.norms:
            first, second = dist.mean(_moments(self.seen))
            self._follow("running_mean", first)
            self._follow("running_var", second - first.square())
        self.forget()

    def _follow(self, name: str, values: Tensor) -> None:
        """Move one buffer of all normalisations, whose values (C,) stand one after the other; in one operation."""
        buffers: list[Tensor] = [getattr(norm, name) for norm in self.norms]
        parts = values.to(buffers[0].dtype).split([len(buffer) for buffer in buffers])
        torch._foreach_lerp_(buffers, list(parts), RATE)


def _moments(seen: list[list[tuple[int, Tensor, Tensor]]]) -> Tensor:
    """First and second moments of all portions together, float64 (2, C), C the channels of all normalisations."""
    total = sum(count for count, _, _ in seen[0])
    each = []
    for portion in zip(*seen, strict=True):
        mean, variance = (torch.cat([part[number] for part in portion]) for number in (1, 2))
        each.append(portion[0][0] / total * torch.stack([mean, mean.square() + variance]))
    return torch.stack(each).sum(dim=0)


@torch.no_grad()
def settle(network: nn.Module, images: Tensor) -> None:
    """Let the running statistics of a new network be those of a batch: with a mean of 0 and a deviation of 1, with
    which they begin, a deep network takes many steps to come to its own."""
    norms = [norm for norm in norms_of(network) if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean of all batches so far: of this one alone, if there were none before
    network.train()
    network(images)
    network.eval()
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
