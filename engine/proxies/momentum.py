"""The key network: a copy of the query network that follows it slowly (He et al. 2020)."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def twin(network: Network) -> Network:
    """A copy that is not trained."""
    made = copy.deepcopy(network)
    return made.requires_grad_(False).eval()


@torch.no_grad()
def follow(key: nn.Module, query: nn.Module, momentum: float) -> None:
    """key = momentum * key + (1 - momentum) * query, of the weights alone."""
    torch._foreach_lerp_(list(key.parameters()), list(query.parameters()), 1 - momentum)
