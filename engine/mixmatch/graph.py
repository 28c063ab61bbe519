"""Match: the class-wise connected graph and its triplets (PAPER 1.3).

N nodes. Nodes are placed in a random order; each takes one attractive edge to a placed node of its class and one
rejective edge to a placed node of another class. All of it at once: positions are sorted by class, and the k-th
earlier node of another class is found by one search over "others before me" counts. On a CPU the paper's graph comes
from ``engine.mixmatch.host_graph``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from engine import host
from engine.mixmatch.host_graph import connected_triplets

CANDIDATES = 8
"""Rejective edges among which ``semi_hard`` chooses."""


@dataclass(frozen=True)
class MatchGraph:
    """N triplets, one per node as anchor.

    ``anchor``, ``positive`` and ``negative`` are int64 (N,) node numbers, row i belongs to node i; a node alone in
    its class is its own positive. ``has_negative`` is bool (N,): False where the batch has one class only (the
    node then stands as its own negative). ``order`` is int64 (N,), the nodes as they were placed.
    """

    anchor: Tensor
    positive: Tensor
    negative: Tensor
    has_negative: Tensor
    order: Tensor

    def __len__(self) -> int:
        return len(self.anchor)

    def components(self, labels: Tensor) -> dict[int, int]:
        """Number of connected components of each class under attractive edges, {class: components}."""
        root = torch.arange(len(self), device=labels.device)
        while True:
            lower = torch.minimum(root[self.anchor], root[self.positive])
            merged = root.scatter_reduce(0, self.anchor, lower, "amin").scatter_reduce(0, self.positive, lower, "amin")
            merged = torch.minimum(merged, merged[merged])
            if torch.equal(merged, root):
                break
            root = merged
        classes, counts = labels[root == torch.arange(len(self), device=labels.device)].unique(return_counts=True)
        return dict(zip(classes.tolist(), counts.tolist(), strict=True))


def build_match_graph(
    labels: Tensor,
    strategy: str = "graph",
    generator: torch.Generator | None = None,
    embeddings: Tensor | None = None,
) -> MatchGraph:
    """Draw the triplets of one batch of patches.

    Args:
        labels: int64 (N,), class of each node, any values.
        strategy: ``graph`` (the paper's class-wise connected graph), ``random`` (independent random triplets, our
            reading of the paper's ablation: there some nodes are never used, here each is an anchor once),
            ``semi_hard`` (of eight rejective edges that ``graph`` might draw, the shortest that is longer than the
            attractive one; if none is, the longest) or ``balanced`` (rejective edges go to every other class equally
            often). All but ``random`` have the attractive edges of ``graph``.
        generator: source of randomness, on the device of ``labels``.
        embeddings: float (N, D), not normalised; ``semi_hard`` alone reads them, and takes no gradient from them.

    Raises:
        ValueError: unknown strategy, labels that are not one-dimensional, or no embeddings where they are needed.
    """
    if labels.ndim != 1:
        raise ValueError(f"labels must be (N,), got {tuple(labels.shape)}")
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; there are {', '.join(STRATEGIES)}")
    return STRATEGIES[strategy](labels, generator, embeddings)


@dataclass(frozen=True)
class _Placed:
    """Nodes in a random order, listed by class and, inside a class, by their place in that order. All int64 (N,).

    ``order`` lists the nodes by place; the others go by line of the list: ``place`` of the line's node, ``start`` and
    ``size`` of its class in the list, ``rank`` = how many of its class were placed before it.
    """

    order: Tensor
    place: Tensor
    start: Tensor
    size: Tensor
    rank: Tensor

    @property
    def others(self) -> Tensor:
        """How many nodes of other classes there are."""
        return len(self.order) - self.size

    @property
    def others_before(self) -> Tensor:
        """How many nodes of other classes were placed before the line's node."""
        return self.place - self.rank


def _place(labels: Tensor, generator: torch.Generator | None) -> _Placed:
    order = torch.randperm(len(labels), generator=generator, device=labels.device)
    by_class, place = labels.index_select(0, order).sort(stable=True)
    start = torch.searchsorted(by_class, by_class)
    stop = torch.searchsorted(by_class, by_class, right=True)
    rank = torch.arange(len(labels), device=labels.device) - start
    return _Placed(order, place, start, stop - start, rank)


def _graph_triplets(labels: Tensor, generator: torch.Generator | None, _: Tensor | None = None) -> MatchGraph:
    """Edges to nodes placed before, and where there is none of the kind to any node of it."""
    if host.on_host(labels):
        positive, negative, has_negative, order = connected_triplets(labels, generator)
        return MatchGraph(torch.arange(len(labels)), positive, negative, has_negative, order)
    return graph_on_device(labels, generator)


def graph_on_device(labels: Tensor, generator: torch.Generator | None) -> MatchGraph:
    """The same without waiting for the device: as many operations for any labels, and none whose size depends on
    them."""
    placed = _place(labels, generator)
    positive = _tied_positives(placed, generator)
    return _triplets(placed, positive, _earlier_others(placed, generator))


def _random_triplets(labels: Tensor, generator: torch.Generator | None, _: Tensor | None = None) -> MatchGraph:
    """Any other node of the class, any node of another class."""
    placed = _place(labels, generator)
    positive = _below(placed.size - 1, generator)
    positive = positive + (positive >= placed.rank).long()
    return _triplets(placed, positive, _others(placed, placed.others, generator))


def _balanced_triplets(labels: Tensor, generator: torch.Generator | None, _: Tensor | None = None) -> MatchGraph:
    """Rejective edges to a node of a class drawn evenly from the other classes of the batch."""
    placed = _place(labels, generator)
    positive = _tied_positives(placed, generator)
    line = torch.arange(len(labels), device=labels.device)
    number = (placed.start == line).long().cumsum(0) - 1
    # Tables by class number, as long as there might be classes: their true count stays on the device.
    start = torch.zeros_like(line).scatter_(0, number, placed.start)
    size = torch.zeros_like(line).scatter_(0, number, placed.size)
    other = _below(number[-1:].expand_as(number), generator)
    other = other + (other >= number).long()
    safe = other.clamp(max=max(len(labels) - 1, 0))
    there = start[safe] + _below(size[safe], generator)
    return _triplets(placed, positive, torch.where(placed.others > 0, placed.place[there], -1))


def _semi_hard_triplets(labels: Tensor, generator: torch.Generator | None, embeddings: Tensor | None) -> MatchGraph:
    """Of several rejective edges that ``graph`` might draw, the shortest that is longer than the attractive one."""
    if embeddings is None:
        raise ValueError("strategy semi_hard needs the embeddings")
    placed = _place(labels, generator)
    positive = _tied_positives(placed, generator)
    drawn = [_triplets(placed, positive, _earlier_others(placed, generator)) for _ in range(CANDIDATES)]
    if len(labels) == 0:
        return drawn[0]
    unit = F.normalize(embeddings.detach().float(), dim=1)
    reach = (unit - unit[drawn[0].positive]).square().sum(dim=1)
    distance = torch.stack([(unit - unit[graph.negative]).square().sum(dim=1) for graph in drawn])
    beyond = distance > reach
    nearest = torch.where(beyond, distance, torch.inf).argmin(dim=0)
    choice = torch.where(beyond.any(dim=0), nearest, distance.argmax(dim=0))
    negative = torch.stack([graph.negative for graph in drawn]).gather(0, choice[None])[0]
    return replace(drawn[0], negative=negative)


def _tied_positives(placed: _Placed, generator: torch.Generator | None) -> Tensor:
    """Rank of each line's positive in its class: one placed before; the first of a class chooses among the others."""
    return torch.where(placed.rank > 0, _below(placed.rank, generator), 1 + _below(placed.size - 1, generator))


def _earlier_others(placed: _Placed, generator: torch.Generator | None) -> Tensor:
    """Place of each line's negative among the nodes of other classes before it, or among all where there are none."""
    return _others(placed, torch.where(placed.others_before > 0, placed.others_before, placed.others), generator)


def _others(placed: _Placed, choices: Tensor, generator: torch.Generator | None) -> Tensor:
    """Place of each line's negative, uniform among the ``choices`` first placed nodes of other classes; -1 = none.

    The k-th node of other classes stands at place k + those of the own class before it, which are the ones with at
    most k others before them: one search in a list that is sorted as a whole.
    """
    n = len(placed.order)
    k = _below(choices, generator)
    key = placed.start * (n + 1) + placed.others_before
    own_before = torch.searchsorted(key, placed.start * (n + 1) + k, right=True) - placed.start
    return torch.where(choices > 0, k + own_before, -1)


def _triplets(placed: _Placed, positive: Tensor, negative_place: Tensor) -> MatchGraph:
    """Triplets in node order.

    Args:
        positive: rank of each line's positive in its class; of no account where it is alone.
        negative_place: place of each line's negative; -1 = none.
    """
    n, device = len(placed.order), placed.order.device
    positive = torch.where(placed.size > 1, positive, 0)
    has_negative = negative_place >= 0
    negative_place = torch.where(has_negative, negative_place, placed.place)
    node = placed.order.index_select(0, placed.place)

    def in_node_order(values: Tensor) -> Tensor:
        return torch.empty_like(values).scatter_(0, node, values)

    return MatchGraph(
        anchor=torch.arange(n, device=device),
        positive=in_node_order(node.index_select(0, placed.start + positive)),
        negative=in_node_order(placed.order.index_select(0, negative_place)),
        has_negative=in_node_order(has_negative),
        order=placed.order,
    )


def _below(limit: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform int64 in [0, limit), 0 where the limit is below 1. float64: float32's 24 bits bias large draws."""
    uniform = torch.rand(len(limit), generator=generator, device=limit.device, dtype=torch.float64)
    return torch.minimum((uniform * limit).long(), limit - 1).clamp(min=0)


STRATEGIES: dict[str, Callable[[Tensor, torch.Generator | None, Tensor | None], MatchGraph]] = {
    "graph": _graph_triplets,
    "random": _random_triplets,
    "semi_hard": _semi_hard_triplets,
    "balanced": _balanced_triplets,
}
