"""The triplet loss of mix-and-match tuning (PAPER 1.4).

L = (1/N) sum_i max(0, D(a_i, p_i) - D(a_i, n_i) + alpha), with D the squared Euclidean distance of L2-normalised
features. Features after a ReLU keep D in [0, 2], so at alpha = 2.1 the hinge never closes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from engine.mixmatch.graph import MatchGraph


def triplet_loss(
    embeddings: Tensor, graph: MatchGraph, margin: float = 2.1, normalizer: Literal["paper", "reference"] = "paper"
) -> Tensor:
    """Loss of one match graph.

    Args:
        embeddings: float (N, D), not normalised; rows of zeros stay zero and get no gradient.
        graph: triplets over the N nodes. Where a node has no negative, the negative's feature is the zero vector.
        margin: alpha.
        normalizer: ``paper`` divides by N, ``reference`` by 2N as the release's layer does.

    Returns:
        Scalar. No nodes: 0 that still depends on the embeddings.
    """
    if normalizer not in ("paper", "reference"):
        raise ValueError(f"normalizer must be 'paper' or 'reference', got {normalizer!r}")
    if len(graph) == 0:
        return embeddings.sum() * 0
    positive, negative = triplet_distances(normalise(embeddings), graph)
    hinge = torch.relu(positive - negative + margin)
    count = len(graph) * (2 if normalizer == "reference" else 1)
    return hinge.sum() / count


def normalise(embeddings: Tensor) -> Tensor:
    """Rows of unit length, (N, D); rows of zeros pass through with a zero gradient, not one of 1/eps."""
    squared = embeddings.square().sum(dim=1, keepdim=True)
    is_zero = squared == 0
    return torch.where(is_zero, torch.zeros_like(embeddings), embeddings * torch.where(is_zero, 1, squared).rsqrt())


def triplet_distances(unit: Tensor, graph: MatchGraph) -> tuple[Tensor, Tensor]:
    """Squared distances anchor-positive and anchor-negative, (N,) each, of normalised features (N, D)."""
    anchor = unit[graph.anchor]
    positive = (anchor - unit[graph.positive]).square().sum(dim=1)
    other = torch.where(graph.has_negative[:, None], unit[graph.negative], 0)
    negative = (anchor - other).square().sum(dim=1)
    return positive, negative
