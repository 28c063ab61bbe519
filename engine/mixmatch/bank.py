"""Cross-batch memory: embeddings of past steps as further ends of edges.

After Wang et al. 2020 (cross-batch memory for embedding learning): embeddings drift slowly, so those of past steps
stand in for a batch many times as large. They carry no gradient. The graph of a step's own nodes stays whole; every
node gets one more triplet, whose ends are remembered.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.mixmatch.graph import MatchGraph
from engine.mixmatch.loss import normalise

EMPTY = -1
"""Label of a place where nothing has been stored yet."""


class Bank(nn.Module):
    """The newest ``capacity`` embeddings of ``dimensions`` numbers each, normalised, with their labels.

    All of it are buffers, so that a checkpoint holds them; nothing is waited for on a GPU.
    """

    embeddings: Tensor
    labels: Tensor
    place: Tensor

    def __init__(self, capacity: int, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("embeddings", torch.zeros(capacity, dimensions))
        self.register_buffer("labels", torch.full((capacity,), EMPTY, dtype=torch.int64))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def store(self, embeddings: Tensor, labels: Tensor) -> None:
        """Put in new nodes, (N, D) not normalised and (N,); the oldest give way. Of more than fit the last stay."""
        capacity = len(self.labels)
        embeddings, labels = normalise(embeddings.detach().float())[-capacity:], labels[-capacity:]
        at = (self.place + torch.arange(len(labels), device=labels.device)) % capacity
        self.embeddings.index_copy_(0, at, embeddings)
        self.labels.index_copy_(0, at, labels)
        self.place.add_(len(labels)).remainder_(capacity)

    def draw(self, labels: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """For each node of ``labels`` (N,) a place of its class and one of another class; -1 = there is none.

        Both uniform among all such places.
        """
        by_class, place = self.labels.sort(stable=True)
        empty = (self.labels == EMPTY).sum()
        start = torch.searchsorted(by_class, labels)
        same = torch.searchsorted(by_class, labels, right=True) - start
        other = len(by_class) - empty - same
        uniform = torch.rand((2, len(labels)), generator=generator, device=labels.device, dtype=torch.float64)
        near = start + torch.minimum((uniform[0] * same).long(), (same - 1).clamp(min=0))
        far = empty + torch.minimum((uniform[1] * other).long(), (other - 1).clamp(min=0))
        far = far + torch.where(far >= start, same, 0)
        last = len(by_class) - 1
        return (
            torch.where(same > 0, place[near.clamp(max=last)], EMPTY),
            torch.where(other > 0, place[far.clamp(max=last)], EMPTY),
        )

    def extend(
        self, embeddings: Tensor, labels: Tensor, graph: MatchGraph, generator: torch.Generator | None
    ) -> tuple[Tensor, MatchGraph]:
        """Embeddings (3N, D) of nodes and drawn memories, and a graph of 2N triplets over them.

        The first N triplets are those of ``graph``. In the second N each node has a remembered positive and a
        remembered negative; where there is none, that of ``graph``.
        """
        near, far = self.draw(labels, generator)
        count = len(labels)
        row = torch.arange(count, device=labels.device)
        joined = torch.cat([embeddings, *(self.embeddings[at.clamp(min=0)] for at in (near, far))])
        positive = torch.where(near >= 0, count + row, graph.positive)
        negative = torch.where(far >= 0, 2 * count + row, graph.negative)
        return joined, MatchGraph(
            anchor=graph.anchor.repeat(2),
            positive=torch.cat([graph.positive, positive]),
            negative=torch.cat([graph.negative, negative]),
            has_negative=torch.cat([graph.has_negative, graph.has_negative | (far >= 0)]),
            order=graph.order,
        )
