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
        embeddings: float (N, D), not normalised; half precision is read as float32. Rows of zeros stay zero and
            get no gradient.
        graph: triplets over the N nodes. Where a node has no negative, the negative's feature is the zero vector.
        margin: alpha.
        normalizer: ``paper`` divides by the number of triplets, ``reference`` by twice that, as the release's layer.

    Returns:
        Scalar, float32 or float64. No triplets: 0 that still depends on the embeddings.

    Raises:
        ValueError: unknown normalizer.
    """
    if normalizer not in ("paper", "reference"):
        raise ValueError(f"normalizer must be 'paper' or 'reference', got {normalizer!r}")
    embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    if len(graph) == 0:
        return embeddings.sum() * 0
    positive, negative = triplet_distances(normalise(embeddings), graph)
    hinge = torch.relu(positive - negative + margin)
    count = len(graph) * (2 if normalizer == "reference" else 1)
    return hinge.sum() / count


def contrast_loss(
    embeddings: Tensor,
    labels: Tensor,
    graph: MatchGraph,
    temperature: float = 0.1,
    memory: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """Contrast of each node's attractive edge with all nodes of other classes; an alternative to the paper's loss.

    L = (1/N) sum_i -log( e^{s(a_i, p_i)} / (e^{s(a_i, p_i)} + sum_{c_j != c_i} e^{s(a_i, x_j)}) ), s the cosine
    divided by the temperature: InfoNCE, or NT-Xent, whose positives are the edges that tie each class into one
    component, so that classes cannot fall apart into several centres, and whose negatives are nodes of other classes.
    It is not the SupCon loss of Khosla et al. (2020), which takes the mean over all positives of an anchor and counts
    those among what it is compared with, too.

    Args:
        embeddings: float (N, D), not normalised; half precision is read as float32.
        labels: int64 (N,), class of each node.
        graph: its attractive edges are used; the rejective ones are not.
        temperature: above 0.
        memory: remembered unit embeddings (M, D), their labels (M,), below 0 where there is nothing, and for each
            node the place of a remembered positive (N,), -1 = none. Those of other classes are further negatives of
            every edge, and each remembered positive is one more edge of its node; L is the mean over all edges.

    Returns:
        Scalar. 0 for a batch of one class: there is nothing to contrast with.
    """
    embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    if len(graph) == 0:
        return embeddings.sum() * 0
    unit = normalise(embeddings)
    attraction = (unit * unit.index_select(0, graph.positive)).sum(dim=1) / temperature
    scores = (unit @ unit.T) / temperature
    other = labels[:, None] != labels[None, :]
    rejection = scores.masked_fill(~other, -torch.inf)
    if memory is None:
        return _info_nce(attraction, rejection).mean()
    past, past_labels, near = memory
    foreign = (labels[:, None] != past_labels[None, :]) & (past_labels >= 0)
    rejection = torch.cat([rejection, ((unit @ past.T) / temperature).masked_fill(~foreign, -torch.inf)], dim=1)
    remembered = (unit * past[near.clamp(min=0)]).sum(dim=1) / temperature
    there = near >= 0
    more = torch.where(there, _info_nce(remembered, rejection), 0)
    return (_info_nce(attraction, rejection).sum() + more.sum()) / (len(graph) + there.sum())


def _info_nce(attraction: Tensor, rejection: Tensor) -> Tensor:
    """-log( e^a / (e^a + sum_j e^{r_j}) ) of attractions (N,) and rejections (N, M)."""
    return torch.logsumexp(torch.cat([attraction[:, None], rejection], dim=1), dim=1) - attraction


def normalise(embeddings: Tensor) -> Tensor:
    """Rows of unit length, (N, D); rows of zeros pass through with a gradient of 0.

    Rows are first divided by their largest entry, so that squares of very small and very large features neither
    vanish nor overflow; the direction, and so the gradient, does not depend on that factor.
    """
    largest = embeddings.detach().abs().amax(dim=1, keepdim=True)
    is_zero = largest == 0
    scaled = embeddings / torch.where(is_zero, 1, largest)
    inverse = torch.where(is_zero, 1, scaled.square().sum(dim=1, keepdim=True)).rsqrt()
    return scaled * torch.where(is_zero, 0, inverse)


def triplet_distances(unit: Tensor, graph: MatchGraph) -> tuple[Tensor, Tensor]:
    """Squared distances anchor-positive and anchor-negative, one each per triplet, of normalised features (N, D).

    A negative that is missing is the zero vector; the anchor's own length does not change with its features then,
    so that distance carries no gradient.
    """
    anchor = unit.index_select(0, graph.anchor)
    positive = (anchor - unit.index_select(0, graph.positive)).square().sum(dim=1)
    present = torch.where(graph.has_negative, graph.negative, graph.anchor)
    negative = (anchor - unit.index_select(0, present)).square().sum(dim=1)
    to_zero = torch.linalg.vector_norm(anchor.detach(), dim=1).square()
    return positive, torch.where(graph.has_negative, negative, to_zero)
