"""Match: the class-wise connected graph and its triplets (PAPER 1.3).

N nodes. Nodes are placed in a random order; each takes one attractive edge to a placed node of its class and one
rejective edge to a placed node of another class. All of it at once: positions are sorted by class, and the k-th
earlier node of another class is found by one search over "others before me" counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


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


def build_match_graph(labels: Tensor, strategy: str = "graph", generator: torch.Generator | None = None) -> MatchGraph:
    """Draw the triplets of one batch of patches.

    Args:
        labels: int64 (N,), class of each node, any values.
        strategy: ``graph`` (the paper's class-wise connected graph) or ``random`` (independent random triplets,
            the paper's ablation).
        generator: source of randomness, on the device of ``labels``.

    Raises:
        ValueError: unknown strategy, or labels that are not one-dimensional.
    """
    if labels.ndim != 1:
        raise ValueError(f"labels must be (N,), got {tuple(labels.shape)}")
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; there are {', '.join(STRATEGIES)}")
    return STRATEGIES[strategy](labels, generator)


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


def _graph_triplets(labels: Tensor, generator: torch.Generator | None) -> MatchGraph:
    """Edges to nodes placed before, and where there is none of the kind to any node of it."""
    placed = _place(labels, generator)
    # The first of a class chooses among all that follow it.
    positive = torch.where(placed.rank > 0, _below(placed.rank, generator), 1 + _below(placed.size - 1, generator))
    choices = torch.where(placed.others_before > 0, placed.others_before, placed.others)
    return _triplets(placed, positive, choices, generator)


def _random_triplets(labels: Tensor, generator: torch.Generator | None) -> MatchGraph:
    """Any other node of the class, any node of another class."""
    placed = _place(labels, generator)
    positive = _below(placed.size - 1, generator)
    positive = positive + (positive >= placed.rank).long()
    return _triplets(placed, positive, placed.others, generator)


def _triplets(placed: _Placed, positive: Tensor, choices: Tensor, generator: torch.Generator | None) -> MatchGraph:
    """Triplets in node order.

    Args:
        positive: rank of each line's positive in its class; of no account where it is alone.
        choices: each line's negative is uniform among this many first placed nodes of other classes; 0 = none.
    """
    n, device = len(placed.order), placed.order.device
    positive = torch.where(placed.size > 1, positive, 0)
    # The k-th node of other classes stands at place k + those of the own class before it, which are the ones
    # with at most k others before them: one search in a list that is sorted as a whole.
    k = _below(choices, generator)
    key = placed.start * (n + 1) + placed.others_before
    own_before = torch.searchsorted(key, placed.start * (n + 1) + k, right=True) - placed.start
    has_negative = choices > 0
    negative_place = torch.where(has_negative, k + own_before, placed.place)

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


STRATEGIES: dict[str, Callable[[Tensor, torch.Generator | None], MatchGraph]] = {
    "graph": _graph_triplets,
    "random": _random_triplets,
}
