"""The queue of keys: those of past batches, which stand in for a batch many times as large (He et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class KeyQueue(nn.Module):
    """The newest ``length`` keys of ``dimensions`` numbers each, of unit length; random ones at first, as in MoCo.

    All of it are buffers, so that a checkpoint holds them; nothing is waited for on a GPU. Keys may come in any
    number: MoCo's own queue needs whole batches.
    """

    keys: Tensor
    place: Tensor

    def __init__(self, length: int, dimensions: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(length, dimensions, generator=generator), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, keys: Tensor) -> None:
        """Put in keys (N, dimensions) of unit length; the oldest give way. Of more than fit the last stay."""
        length = len(self.keys)
        keys = keys[-length:]
        at = (self.place + torch.arange(len(keys), device=keys.device)) % length
        self.keys.index_copy_(0, at, keys.to(self.keys.dtype))
        self.place.add_(len(keys)).remainder_(length)
