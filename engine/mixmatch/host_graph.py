"""The triplets of the class-wise connected graph, drawn on a CPU with NumPy (PAPER 1.3).

The distribution is that of ``engine.mixmatch.graph``, whose tensor operations are for GPUs. Here small graphs cost
few calls, and large ones read small types: labels of one byte, node numbers of four. All randomness comes from the
torch generator, in one order, in one thread.

Words: a *place* is a node's number in the random order of placement; a *line* is a node's number in the list of all
nodes by class and, inside a class, by place.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.integer]
"""Signed or unsigned integers of any width."""

SMALL = 1024
"""Up to so many nodes the negatives are found by one search; above, by drawing again, whose calls do not count then."""


def connected_triplets(labels: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw the graph of nodes with ``labels``, int64 (N,) on the CPU.

    Returns:
        positive, negative, has_negative, order, each (N,), as ``MatchGraph`` holds them.
    """
    n = len(labels)
    if n == 0:
        return labels, labels, labels.bool(), labels
    small = n <= SMALL
    values = labels.numpy() if small else _narrow(labels.numpy())
    order: Ints = torch.randperm(n, generator=generator, dtype=torch.int64 if small else torch.int32).numpy()
    by_place = values[order]
    place = by_place.argsort(kind="stable")
    by_class = by_place[place]
    starts = np.concatenate(([0], np.flatnonzero(by_class[1:] != by_class[:-1]) + 1))
    sizes = np.diff(starts, append=n)
    start = np.repeat(starts.astype(order.dtype), sizes)
    rank = np.arange(n, dtype=order.dtype) - start

    positive, negative = np.empty((2, n), dtype=np.int64)
    node = order[place]
    positive[node] = node[_positive_lines(start, rank, starts, sizes, generator)]
    if len(sizes) == 1:
        negative = np.arange(n)
    elif small:
        negative[node] = order[
            _search(slice(None), place, start, rank, np.repeat(sizes, sizes), _uniform(n, generator))
        ]
    else:
        negative[order] = order[_draw_again(by_place, place, start, rank, sizes, generator)]
    has_negative = torch.full((n,), len(sizes) > 1)
    return torch.from_numpy(positive), torch.from_numpy(negative), has_negative, torch.from_numpy(order).long()


def _narrow(values: Ints) -> Ints:
    """Equal where ``values`` are, in fewer bytes if that is possible."""
    low, high = int(values.min()), int(values.max())
    for dtype in (np.uint8, np.uint16):
        if high - low <= np.iinfo(dtype).max:
            return (values - low).astype(dtype)
    return values


def _uniform(count: int, generator: torch.Generator | None) -> NDArray[np.float64]:
    """float64 in [0, 1): 53 bits, so that a product with a limit below 2**31 never rounds up to the limit."""
    drawn: NDArray[np.float64] = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
    return drawn


def _positive_lines(start: Ints, rank: Ints, starts: Ints, sizes: Ints, generator: torch.Generator | None) -> Ints:
    """Each line's positive: one of its class before it. The first of a class takes any other of it, or itself."""
    uniform = _uniform(len(rank), generator)
    chosen = (uniform * rank).astype(rank.dtype)
    chosen[starts] = np.where(sizes > 1, 1 + (uniform[starts] * (sizes - 1)).astype(rank.dtype), 0)
    chosen += start
    return chosen


def _search(
    lines: slice | Ints, place: Ints, start: Ints, rank: Ints, size: Ints, uniform: NDArray[np.float64]
) -> Ints:
    """Place of the negative of each of some ``lines``, uniform among nodes of other classes placed before, or all.

    ``uniform`` has a number for each of them. The k-th node of other classes stands at place k + those of the own
    class before it, which are the ones with at most k others before them: one search in a list sorted as a whole.
    """
    n = len(place)
    before = place - rank
    base = start.astype(np.int64) * (n + 1)
    here = before[lines]
    k = (uniform * np.where(here > 0, here, n - size[lines])).astype(np.int64)
    found: Ints = k + (base + before).searchsorted(base[lines] + k, side="right") - start[lines]
    return found


def _draw_again(
    by_place: Ints, place: Ints, start: Ints, rank: Ints, sizes: Ints, generator: torch.Generator | None
) -> Ints:
    """Place of the negative of the node at each place: any node before it, drawn again while it is of the same class.

    A node that has only nodes of its class before it draws from all. Where a round settles less than half of what was
    open, the rest is searched for, which is as exact and does not depend on luck.
    """
    n = len(by_place)
    limit = np.arange(n, dtype=np.float64)
    limit[: int((by_place != by_place[0]).argmax())] = n
    chosen = (_uniform(n, generator) * limit).astype(np.int32)
    left = np.flatnonzero(by_place[chosen] == by_place)
    was = n
    while 0 < len(left) <= was / 2:
        was = len(left)
        again = (_uniform(was, generator) * limit[left]).astype(np.int32)
        chosen[left] = again
        left = left[by_place[again] == by_place[left]]
    if len(left):
        line = np.empty(n, dtype=np.int32)
        line[place] = np.arange(n, dtype=np.int32)
        size = np.repeat(sizes, sizes)
        chosen[left] = _search(line[left], place, start, rank, size, _uniform(len(left), generator))
    return chosen
