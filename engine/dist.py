"""Collectives that do nothing in a single process, so that callers never branch on the world size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as torch_dist


def active() -> bool:
    """Whether a process group exists."""
    return torch_dist.is_available() and torch_dist.is_initialized()


def rank() -> int:
    """Number of this process, 0 when alone."""
    return torch_dist.get_rank() if active() else 0


def world_size() -> int:
    """Number of processes, 1 when alone."""
    return torch_dist.get_world_size() if active() else 1


def barrier() -> None:
    """Wait until every process is here."""
    if active():
        torch_dist.barrier()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over all processes, in place; returns the tensor."""
    if active():
        torch_dist.all_reduce(tensor, op=torch_dist.ReduceOp.SUM)
    return tensor


def all_gather(tensor: Tensor) -> Tensor:
    """Tensors (n, ...) of equal shape from all processes, joined along the first dimension in rank order."""
    if not active():
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    torch_dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
