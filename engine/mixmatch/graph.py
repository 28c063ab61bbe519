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
class _Order:
    """Nodes in a random order, and where their classes stand in it. All (N,), indexed by position.

    ``rank`` counts earlier nodes of the same class, ``size`` all nodes of the class; ``by_class`` lists positions
    sorted by class and then by position, ``start`` is where the class begins in it; ``key`` sorts by (class,
    others before me).
    """

    order: Tensor
    rank: Tensor
    size: Tensor
    start: Tensor
    by_class: Tensor
    class_id: Tensor
    key: Tensor


def _place(labels: Tensor, generator: torch.Generator | None) -> _Order:
    n, device = len(labels), labels.device
    order = torch.randperm(n, generator=generator, device=device)
    _, class_id, sizes = labels[order].unique(return_inverse=True, return_counts=True)
    by_class = torch.argsort(class_id, stable=True)
    starts = sizes.cumsum(0) - sizes
    start = starts[class_id]
    positions = torch.arange(n, device=device)
    rank = torch.empty_like(positions)
    rank[by_class] = positions
    rank = rank - start
    key = (class_id * (n + 1) + (positions - rank))[by_class]
    return _Order(order, rank, sizes[class_id], start, by_class, class_id, key)


def _graph_triplets(labels: Tensor, generator: torch.Generator | None) -> MatchGraph:
    placed = _place(labels, generator)
    position = torch.arange(len(labels), device=labels.device)
    # The first of a class chooses among all others of it, later ones among those before them.
    positive_rank = torch.where(
        placed.rank > 0, _below(placed.rank, generator), 1 + _below(placed.size - 1, generator)
    )
    earlier_others = position - placed.rank
    choices = torch.where(earlier_others > 0, earlier_others, len(labels) - placed.size)
    return _finish(placed, positive_rank, choices, generator)


def _random_triplets(labels: Tensor, generator: torch.Generator | None) -> MatchGraph:
    placed = _place(labels, generator)
    # Uniform among the others of the class: draw below size - 1 and step over oneself.
    positive_rank = _below(placed.size - 1, generator)
    positive_rank = positive_rank + (positive_rank >= placed.rank).long()
    return _finish(placed, positive_rank, len(labels) - placed.size, generator)


def _finish(
    placed: _Order, positive_rank: Tensor, choices: Tensor, generator: torch.Generator | None
) -> MatchGraph:
    """Triplets in node order. ``choices``: among how many first nodes of other classes each one's negative is."""
    n = len(placed.order)
    position = torch.arange(n, device=placed.order.device)
    alone = placed.size == 1
    rank = torch.where(alone, 0, positive_rank).clamp(max=placed.size - 1)
    positive = placed.by_class[placed.start + rank]
    has_negative = choices > 0
    k = _below(choices, generator)
    # k-th other = k + members of my class that come before it, those with at most k others before them.
    before = torch.searchsorted(placed.key, placed.class_id * (n + 1) + k, right=True) - placed.start
    negative = torch.where(has_negative, (k + before).clamp(max=max(n - 1, 0)), position)

    def in_node_order(values: Tensor) -> Tensor:
        return torch.empty_like(values).scatter_(0, placed.order, values)

    return MatchGraph(
        anchor=position,
        positive=in_node_order(placed.order[positive]),
        negative=in_node_order(placed.order[negative]),
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
