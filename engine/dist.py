"""Collectives that do nothing in a single process, so that callers never branch on the world size.

Started by torchrun: ``torchrun --nproc_per_node 4 -m engine train --recipe R --run-dir D``.
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as torch_dist

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others; decoding a data set may take one of them long."""


def start(device: torch.device) -> None:
    """Join the processes that torchrun has started; alone, nothing happens.

    Tensors on the CPU travel over gloo even where those on GPUs use NCCL: flags that steer the loop then wait for no
    GPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or active():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    torch_dist.init_process_group(backend, timeout=PATIENCE)


def finish() -> None:
    """Leave the group."""
    if active():
        torch_dist.destroy_process_group()


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


def agree(flags: list[bool]) -> list[bool]:
    """Each flag, true if it is true in any process; the same in all of them. Waits for no GPU."""
    if not active():
        return flags
    values = torch.tensor(flags, dtype=torch.uint8)
    torch_dist.all_reduce(values, op=torch_dist.ReduceOp.MAX)
    return [bool(value) for value in values.tolist()]


def mean(tensor: Tensor) -> Tensor:
    """Mean over all processes; the tensor itself when alone."""
    return all_reduce_sum(tensor.clone()).div_(world_size()) if active() else tensor


def gather_rows(tensor: Tensor, capacity: int) -> Tensor:
    """Rows (n_r, ...) of all processes, n_r up to ``capacity``, joined in rank order.

    Gradients flow back into the own rows alone. Every process therefore has to compute the whole loss of the joined
    rows; the sum of what all of them get is then the gradient of that loss.
    """
    if not active():
        return tensor
    count = torch.zeros(world_size(), dtype=torch.int64)
    count[rank()] = len(tensor)
    rows: Tensor = _GatherRows.apply(tensor, all_reduce_sum(count).tolist(), capacity)  # type: ignore[no-untyped-call]
    return rows


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: Tensor, counts: list[int], capacity: int) -> Tensor:  # type: ignore[no-untyped-def]
        padded = tensor.new_zeros((capacity, *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        parts = all_gather(padded).unflatten(0, (world_size(), capacity))
        ctx.first, ctx.count = sum(counts[: rank()]), len(tensor)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        return grad[ctx.first : ctx.first + ctx.count], None, None
