"""Collectives that do nothing in a single process, so that callers never branch on the world size.

Started by torchrun: ``torchrun --nproc_per_node 4 -m engine train --recipe R --run-dir D``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
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


def lacks_memory(error: RuntimeError) -> bool:
    """Whether NCCL found no memory for its own connections: the step cannot be done again, nor its collectives."""
    backend = getattr(torch_dist, "DistBackendError", None)
    return backend is not None and isinstance(error, backend) and "out of memory" in str(error)


def rank() -> int:
    """Number of this process, 0 when alone."""
    return torch_dist.get_rank() if active() else 0


def world_size() -> int:
    """Number of processes, 1 when alone."""
    return torch_dist.get_world_size() if active() else 1


def local_size() -> int:
    """Number of processes on this machine, 1 when alone."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if active() else 1


def barrier() -> None:
    """Wait until every process is here."""
    if active():
        torch_dist.barrier()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over all processes, in place; returns the tensor."""
    if active():
        torch_dist.all_reduce(tensor, op=torch_dist.ReduceOp.SUM)
    return tensor


def all_reduce_max(tensor: Tensor) -> Tensor:
    """Largest over all processes, in place; returns the tensor."""
    if active():
        torch_dist.all_reduce(tensor, op=torch_dist.ReduceOp.MAX)
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


def exchange(number: int) -> list[int]:
    """The number that each process gives, in rank order. Waits for no GPU."""
    if not active():
        return [number]
    values = torch.zeros(world_size(), dtype=torch.int64)
    values[rank()] = number
    return [int(value) for value in all_reduce_sum(values).tolist()]


def mean(tensor: Tensor) -> Tensor:
    """Mean over all processes; the tensor itself when alone."""
    return all_reduce_sum(tensor.clone()).div_(world_size()) if active() else tensor


@torch.no_grad()
def take_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors of any shapes with those of rank 0; one message for each type of number."""
    if not active():
        return
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault(tensor.dtype, []).append(tensor)
    for alike in kinds.values():
        flat = torch.cat([tensor.flatten() for tensor in alike])
        torch_dist.broadcast(flat, src=0)
        for tensor, part in zip(alike, flat.split([tensor.numel() for tensor in alike]), strict=True):
            tensor.copy_(part.view(tensor.shape))


def gather_rows(tensors: Sequence[Tensor], capacity: int, meet: Callable[[int], list[int]] = exchange) -> list[Tensor]:
    """Of each tensor (n_r, ...), n_r up to ``capacity``, the rows of all processes, joined in rank order.

    Gradients flow back into the own rows alone. Every process therefore has to compute the whole loss of the joined
    rows; the sum of what all of them get is then the gradient of that loss.

    Args:
        tensors: all of n_r rows.
        meet: gives the numbers of all processes for one's own. It is called once, when all the memory is there that
            is needed until the rows are gathered; if it raises, it does so in every process and none waits in vain.
    """
    if not active():
        return list(tensors)
    rooms = [_Room(tensor, capacity) for tensor in tensors]
    counts = meet(len(tensors[0]))
    for room in rooms:
        room.gather()
    pairs = zip(tensors, rooms, strict=True)
    return [_GatherRows.apply(tensor, room, counts) for tensor, room in pairs]  # type: ignore[no-untyped-call]


class _Room:
    """Memory for the rows of all processes."""

    def __init__(self, tensor: Tensor, capacity: int) -> None:
        self._own = tensor.new_zeros((capacity, *tensor.shape[1:]))
        self._own[: len(tensor)] = tensor.detach()
        self._all = tensor.new_empty((world_size() * capacity, *tensor.shape[1:]))

    def gather(self) -> None:
        """Fill it. Into one tensor, as NCCL takes memory of its own to gather into several."""
        torch_dist.all_gather_into_tensor(self._all, self._own)

    def joined(self, counts: list[int]) -> Tensor:
        parts = self._all.unflatten(0, (world_size(), len(self._own)))
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: Tensor, room: _Room, counts: list[int]) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.first, ctx.count = sum(counts[: rank()]), len(tensor)
        return room.joined(counts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        return grad[ctx.first : ctx.first + ctx.count], None, None
