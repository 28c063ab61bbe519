"""What the graph-sampling panel shows: statistics of one match graph, taken at the logging interval only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.mixmatch.graph import MatchGraph
from engine.mixmatch.loss import normalise, triplet_distances
from engine.mixmatch.patches import Patches

BINS = 16
LARGEST_DISTANCE = 4.0
"""Squared distance of opposite unit vectors."""


@torch.no_grad()
def graph_statistics(
    labels: Tensor, graph: MatchGraph, embeddings: Tensor, margin: float, patches: Patches, num_classes: int
) -> dict[str, Any]:
    """Values of a ``graph`` event (docs/events.md), ready for JSON.

    Args:
        labels: int64 (N,), class of each node, below ``num_classes``.
        graph: its triplets.
        embeddings: float (N, D), not normalised.
        margin: alpha of the loss.
        patches: the nodes' windows.
        num_classes: classes of the data set.
    """
    return {
        **_structure(labels, graph, num_classes),
        **_distances(graph, embeddings, margin),
        **_windows(patches),
    }


def _structure(labels: Tensor, graph: MatchGraph, num_classes: int) -> dict[str, Any]:
    n = len(labels)
    per_class = torch.bincount(labels, minlength=num_classes)
    tied = graph.positive != graph.anchor
    degree = torch.zeros(n, dtype=torch.int64, device=labels.device)
    ends = [graph.anchor[tied], graph.positive[tied]]
    ends += [graph.anchor[graph.has_negative], graph.negative[graph.has_negative]]
    for end in ends:
        degree.scatter_add_(0, end, torch.ones_like(end))
    return {
        "nodes": n,
        "attractive_edges": int(tied.sum()),
        "rejective_edges": int(graph.has_negative.sum()),
        "classes_present": int((per_class > 0).sum()),
        "nodes_per_class": {str(c): k for c, k in enumerate(per_class.tolist()) if k},
        "components_per_class": {str(c): k for c, k in graph.components(labels).items()},
        "singletons": int((per_class == 1).sum()),
        "no_negative": int((~graph.has_negative).sum()),
        "degree_mean": round(float(degree.double().mean()), 3) if n else 0.0,
        "degree_max": int(degree.max()) if n else 0,
        "class_pairs": _class_pairs(labels, graph, num_classes),
    }


def _class_pairs(labels: Tensor, graph: MatchGraph, num_classes: int) -> list[list[int]]:
    """Rejective edges by unordered pair of classes: [[smaller class, larger class, edges], ...]."""
    here = labels[graph.anchor[graph.has_negative]]
    there = labels[graph.negative[graph.has_negative]]
    key = torch.minimum(here, there) * num_classes + torch.maximum(here, there)
    counts = torch.bincount(key, minlength=num_classes * num_classes)
    return [[k // num_classes, k % num_classes, int(counts[k])] for k in torch.nonzero(counts).flatten().tolist()]


def _distances(graph: MatchGraph, embeddings: Tensor, margin: float) -> dict[str, Any]:
    if len(graph) == 0:
        empty = [0] * BINS
        nothing = dict.fromkeys(("active_triplets", "d_pos_mean", "d_neg_mean"))
        return {**nothing, "d_pos_hist": empty, "d_neg_hist": empty}
    positive, negative = triplet_distances(normalise(embeddings.float()), graph)
    return {
        "active_triplets": round(float((positive - negative + margin > 0).double().mean()), 4),
        "d_pos_mean": round(float(positive.mean()), 5),
        "d_neg_mean": round(float(negative.mean()), 5),
        "d_pos_hist": _histogram(positive),
        "d_neg_hist": _histogram(negative),
    }


def _histogram(distances: Tensor) -> list[int]:
    bins = (distances * (BINS / LARGEST_DISTANCE)).long().clamp_(0, BINS - 1)
    counts: list[int] = torch.bincount(bins, minlength=BINS).tolist()
    return counts


def _windows(patches: Patches) -> dict[str, Any]:
    counts = {"overlap_rejections": int(patches.overlap_rejections), "topped_up": int(patches.topped_up)}
    if len(patches) == 0:
        names = ("patch_size_mean", "patch_size_min", "patch_size_max", "padding_share", "purity_mean")
        nothing = dict.fromkeys(names)
        return {**nothing, **counts}
    area = patches.size.double().square()
    return {
        "patch_size_mean": round(float(patches.size.double().mean()), 2),
        "patch_size_min": int(patches.size.min()),
        "patch_size_max": int(patches.size.max()),
        "padding_share": round(float((patches.padding.double() * area).sum() / area.sum()), 4),
        "purity_mean": round(float(patches.purity.double().mean()), 4),
        **counts,
    }


class StarvationCounter:
    """Remembers when each class was last among the nodes. Lives on the device; read only when asked.

    Counting starts with the first update: a run that was resumed does not call classes starved for steps it did
    not see.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._last: Tensor | None = None

    def update(self, labels: Tensor, step: int) -> None:
        """Note the classes of one step's nodes, int64 (N,); steps count from 1."""
        if self._last is None:
            self._last = torch.full((self.num_classes,), step - 1, dtype=torch.int64, device=labels.device)
        self._last.index_fill_(0, labels, step)

    def starved(self, step: int, patience: int = 20) -> dict[str, int]:
        """Classes that were not sampled for at least ``patience`` steps: {class: steps since}."""
        if self._last is None:
            return {}
        since = (step - self._last).tolist()
        return {str(c): gap for c, gap in enumerate(since) if gap >= patience}


@torch.no_grad()
def project_2d(embeddings: Tensor) -> Tensor:
    """The two main axes of the L2-normalised embeddings (N, D): coordinates (N, 2) float32, by PCA.

    The sign of an axis is chosen so that its largest coordinate by size is positive: equal input, equal picture.
    NaN throughout if an embedding is not finite.
    """
    unit = normalise(embeddings.double())
    centred = unit - unit.mean(dim=0, keepdim=True)
    if len(centred) < 2:
        return torch.zeros((len(centred), 2), device=centred.device)
    if not bool(centred.isfinite().all()):
        return torch.full((len(centred), 2), torch.nan, device=centred.device)
    points = _main_axes(centred)
    largest = points.gather(0, points.abs().argmax(dim=0, keepdim=True))
    return (points * torch.where(largest < 0, -1, 1)).float()


def _main_axes(centred: Tensor) -> Tensor:
    """Coordinates (N, 2) along the two main axes; the smaller Gram matrix has the spectrum of the larger one."""
    n, dimensions = centred.shape
    if dimensions < 2:
        return torch.cat([centred, centred.new_zeros((n, 2 - dimensions))], dim=1)
    if dimensions < n:
        axes: Tensor = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -2:].flip(1)
        return centred @ axes
    spectrum = torch.linalg.eigh(centred @ centred.T)
    points: Tensor = spectrum.eigenvectors[:, -2:] * spectrum.eigenvalues[-2:].clamp(min=0).sqrt()
    return points.flip(1)
