"""What the graph-sampling panel shows: statistics of match graphs, taken at the logging interval only.

Each graph is counted by itself; what is told of several, or of those of all processes, comes from sums of these counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.json_types import JsonObject
from engine.mixmatch.graph import MatchGraph
from engine.mixmatch.loss import normalise, triplet_distances
from engine.mixmatch.windows import Patches

BINS = 16
FARTHEST, FARTHEST_POSITIVE = 4.0, 2.0
"""Squared distance of opposite unit vectors, and of unit vectors without negative numbers, as a ReLU gives them."""
_FINE = 2 * BINS
"""Bins of [0, FARTHEST] while graphs are counted: as wide as those of [0, FARTHEST_POSITIVE] that are told."""


@dataclass(frozen=True)
class Tally:
    """What is counted of one match graph or several, in this process or all; float64 tensors on the graphs' device.

    ``sums`` of several graphs are added, of ``largest`` the larger counts. Nothing in here was waited for.
    """

    sums: dict[str, Tensor]
    largest: dict[str, Tensor]

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            {name: value + other.sums[name] for name, value in self.sums.items()},
            {name: torch.maximum(value, other.largest[name]) for name, value in self.largest.items()},
        )

    def __or__(self, other: Tally) -> Tally:
        """Both of them, which count different things."""
        return Tally(self.sums | other.sums, self.largest | other.largest)

    def blank(self) -> Tally:
        """The tally of no graph."""
        return Tally(
            {name: torch.zeros_like(value) for name, value in self.sums.items()},
            {name: torch.full_like(value, -torch.inf) for name, value in self.largest.items()},
        )

    def changed(self, sums: Callable[[Tensor], Tensor], largest: Callable[[Tensor], Tensor]) -> Tally:
        """Each part, joined to one tensor, through a function: one message, or one wait, for all of it."""
        return Tally(_through(self.sums, sums), _through(self.largest, largest))


def _through(parts: dict[str, Tensor], function: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    joined = function(torch.cat([part.flatten() for part in parts.values()]))
    pieces = joined.split([part.numel() for part in parts.values()])
    return {name: piece.view(part.shape) for (name, part), piece in zip(parts.items(), pieces, strict=True)}


@torch.no_grad()
def tally_graph(labels: Tensor, graph: MatchGraph, embeddings: Tensor, margin: float, num_classes: int) -> Tally:
    """Nodes, edges and distances of one graph.

    Args:
        labels: int64 (N,), class of each node, below ``num_classes``.
        graph: its triplets.
        embeddings: float (N, D), not normalised.
        margin: alpha of the loss.
        num_classes: classes of the data set.
    """
    return _structure(labels, graph, num_classes) | _distances(graph, embeddings, margin)


def graph_statistics(
    labels: Tensor, graph: MatchGraph, embeddings: Tensor, margin: float, patches: Patches, num_classes: int
) -> JsonObject:
    """``told`` of one graph, whose nodes are ``patches``; the other arguments are those of ``tally_graph``."""
    return told(tally_graph(labels, graph, embeddings, margin, num_classes) | tally_windows(patches))


def told(tally: Tally) -> JsonObject:
    """Values of a ``graph`` event (docs/events.md) but ``starved`` and ``empty_graphs``, ready for JSON.

    Args:
        tally: of graphs and of the windows of their nodes.
    """
    values = tally.changed(lambda sums: sums.cpu(), lambda largest: largest.cpu())
    return {**_told_structure(values), **_told_distances(values), **_told_windows(values)}


def _structure(labels: Tensor, graph: MatchGraph, num_classes: int) -> Tally:
    per_class = torch.bincount(labels, minlength=num_classes)
    tied = graph.positive != graph.anchor
    degree = torch.zeros(len(labels) + 1, dtype=torch.int64, device=labels.device)  # one more: it has a largest always
    ends = [graph.anchor[tied], graph.positive[tied]]
    ends += [graph.anchor[graph.has_negative], graph.negative[graph.has_negative]]
    for end in ends:
        degree.scatter_add_(0, end, torch.ones_like(end))
    components = torch.zeros(num_classes, dtype=torch.float64, device=labels.device)
    for c, k in graph.components(labels).items():
        components[c] = k
    sums = {
        "graphs": torch.ones((), device=labels.device),
        "nodes": per_class.sum(),
        "attractive_edges": tied.sum(),
        "rejective_edges": graph.has_negative.sum(),
        "nodes_per_class": per_class,
        "singletons": (per_class == 1).sum(),
        "no_negative": (~graph.has_negative).sum(),
        "degree": degree.sum(),
        "class_pairs": _class_pairs(labels, graph, num_classes),
    }
    return _tally(sums, {"degree": degree.max(), "components": components})


def _tally(sums: dict[str, Tensor], largest: dict[str, Tensor]) -> Tally:
    both = ({name: value.double() for name, value in part.items()} for part in (sums, largest))
    return Tally(*both)


def _class_pairs(labels: Tensor, graph: MatchGraph, num_classes: int) -> Tensor:
    """Rejective edges by pair of classes, the smaller one first: int64 (K, K)."""
    here = labels[graph.anchor[graph.has_negative]]
    there = labels[graph.negative[graph.has_negative]]
    key = torch.minimum(here, there) * num_classes + torch.maximum(here, there)
    return torch.bincount(key, minlength=num_classes * num_classes).view(num_classes, num_classes)


def _told_structure(values: Tally) -> JsonObject:
    sums, largest = values.sums, values.largest
    counted = ("graphs", "nodes", "attractive_edges", "rejective_edges", "singletons", "no_negative")
    per_class = sums["nodes_per_class"].long().tolist()
    pairs = sums["class_pairs"].long()
    nodes = int(sums["nodes"])
    return {
        **{name: int(sums[name]) for name in counted},
        "classes_present": sum(k > 0 for k in per_class),
        "nodes_per_class": {str(c): k for c, k in enumerate(per_class) if k},
        "components_per_class": {str(c): int(k) for c, k in enumerate(largest["components"].tolist()) if k > 0},
        "degree_mean": round(float(sums["degree"]) / nodes, 3) if nodes else 0.0,
        "degree_max": int(largest["degree"]) if nodes else 0,
        "class_pairs": [[a, b, int(pairs[a, b])] for a, b in torch.nonzero(pairs).tolist()],
    }


def _distances(graph: MatchGraph, embeddings: Tensor, margin: float) -> Tally:
    positive, negative = triplet_distances(normalise(embeddings.float()), graph) if len(graph) else (_NONE, _NONE)
    positive, negative = (distances.to(embeddings.device) for distances in (positive, negative))
    sums = {
        "active": (positive - negative + margin > 0).sum(),
        "d_pos": positive.double().sum(),
        "d_neg": negative.double().sum(),
        "d_pos_hist": _histogram(positive),
        "d_neg_hist": _histogram(negative),
    }
    # What is not finite counts as negative: nothing is known of its distances.
    below = ~(embeddings >= 0).all()
    return _tally(sums, {"below_zero": below})


_NONE = torch.empty(0)


def _histogram(distances: Tensor) -> Tensor:
    bins = (distances * (_FINE / FARTHEST)).long().clamp_(0, _FINE - 1)
    return torch.bincount(bins, minlength=_FINE)


def _told_distances(values: Tally) -> JsonObject:
    sums, nodes = values.sums, int(values.sums["nodes"])
    positive_only = not bool(values.largest["below_zero"] > 0)
    hists: JsonObject = {"d_hist_max": FARTHEST_POSITIVE if positive_only else FARTHEST}
    hists |= {name: _told_histogram(sums[name].long(), positive_only) for name in ("d_pos_hist", "d_neg_hist")}
    if not nodes:
        return {**dict.fromkeys(("active_triplets", "d_pos_mean", "d_neg_mean")), **hists}
    return {
        "active_triplets": round(float(sums["active"]) / nodes, 4),
        "d_pos_mean": round(float(sums["d_pos"]) / nodes, 5),
        "d_neg_mean": round(float(sums["d_neg"]) / nodes, 5),
        **hists,
    }


def _told_histogram(fine: Tensor, positive_only: bool) -> list[int]:
    """``BINS`` counts over the range there can be; a distance that rounding puts beyond it falls into the last."""
    if not positive_only:
        return [int(count) for count in fine.view(BINS, 2).sum(dim=1).tolist()]
    counts = fine[:BINS].clone()
    counts[-1] += fine[BINS:].sum()
    return [int(count) for count in counts.tolist()]


@torch.no_grad()
def tally_windows(patches: Patches) -> Tally:
    """Sizes and places of the patches that are nodes."""
    size = patches.size.double()
    area, none = size.square(), size.new_full((1,), -torch.inf)
    sums = {
        "patches": torch.full((), len(patches), device=size.device),
        "size": size.sum(),
        "area": area.sum(),
        "padding": (patches.padding.double() * area).sum(),
        "purity": patches.purity.double().expand_as(size).sum(),
        "overlap_rejections": patches.overlap_rejections,
        "topped_up": patches.topped_up,
    }
    return _tally(sums, {"size": torch.cat([size, none]).max(), "smallness": torch.cat([-size, none]).max()})


def _told_windows(values: Tally) -> JsonObject:
    sums, count = values.sums, int(values.sums["patches"])
    counts = {name: int(sums[name]) for name in ("overlap_rejections", "topped_up")}
    if not count:
        names = ("patch_size_mean", "patch_size_min", "patch_size_max", "padding_share", "purity_mean")
        return {**dict.fromkeys(names), **counts}
    return {
        "patch_size_mean": round(float(sums["size"]) / count, 2),
        "patch_size_min": -int(values.largest["smallness"]),
        "patch_size_max": int(values.largest["size"]),
        "padding_share": round(float(sums["padding"] / sums["area"]), 4),
        "purity_mean": round(float(sums["purity"]) / count, 4),
        **counts,
    }


class StarvationCounter:
    """Remembers when each class was last among the nodes. Lives on the device; read only when asked.

    Counting starts with the first update, or with what was recalled: a run that goes on from a checkpoint without
    does not call classes starved for steps it did not see.

    Attributes:
        last: int64 (K,), the step of which each class last had a node; None before the first update.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.last: Tensor | None = None

    def update(self, labels: Tensor, step: int) -> None:
        """Note the classes of nodes of one step, int64 (N,); steps count from 1, a step may come in several parts."""
        if self.last is None:
            self.last = torch.full((self.num_classes,), step - 1, dtype=torch.int64, device=labels.device)
        self.last.index_fill_(0, labels, step)

    def recall(self, last: Sequence[int], device: torch.device) -> None:
        """Go on from what ``last`` held; what belongs to other classes is left alone."""
        if len(last) == self.num_classes:
            self.last = torch.tensor(last, dtype=torch.int64, device=device)

    def starved(self, step: int, patience: int = 20) -> dict[str, int]:
        """Classes that were not sampled for at least ``patience`` steps: {class: steps since}."""
        if self.last is None:
            return {}
        since = (step - self.last).tolist()
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
