"""The choice of candidates whose windows do not overlap too much (PAPER 1.2), for all images of a batch at once.

Shapes: B images, K candidates per image, E intervals between window edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine import host
from engine.mixmatch.candidates import Candidates, window_edges
from engine.mixmatch.host_choice import choose_windows


def choose(
    candidates: Candidates,
    wanted: int,
    bounds: Sequence[int],
    overlap: float,
    compat: bool,
    ranking: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Greedy choice in the order of ``ranking``, indices (B, K); None = in candidate order.

    Returns:
        indices (B, wanted) of the chosen candidates, and per image the numbers rejected and taken back, (B,).
    """
    ranked = candidates if ranking is None else candidates.take(ranking)
    edges = window_edges(ranked, bounds)
    y0, y1, x0, x1 = edges
    # The release measures against the candidate that was drawn first, whatever their ranking.
    area = candidates.size[:, :1].square().expand_as(y0) if compat else (y1 - y0) * (x1 - x0)
    if host.on_host(area):
        chosen, rejected, topped = choose_windows(edges, area, wanted, bounds, overlap)
    else:
        chosen, rejected, topped = choose_on_device(edges, area, wanted, overlap)
    return chosen if ranking is None else ranking.gather(1, chosen), rejected, topped


def choose_on_device(
    edges: tuple[Tensor, Tensor, Tensor, Tensor], area: Tensor, wanted: int, overlap: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The same for all images at once, without waiting for the device: it goes through all candidates.

    What is not covered yet is held on the grid of all window edges, whose cells are covered wholly or not at all:
    exact, and a hundred times smaller than a mask of pixels.
    """
    y0, y1, x0, x1 = edges
    rows, heights = _cells(y0, y1)
    columns, widths = _cells(x0, x1)
    least = (y1 - y0) * (x1 - x0) - most_covered(area.double(), overlap)
    free = heights[:, :, None] * widths[:, None, :]
    fits = []
    # As few operations as can be: there are many rounds. What is kept beyond the wanted number changes none before it.
    for k in range(y0.shape[1]):
        row, column = rows[:, k, :, None], columns[:, k, :, None]
        uncovered = torch.bmm(torch.bmm(row.mT, free), column)
        fits.append(uncovered >= least[:, k, None, None])
        free.addcmul_(free * (row * fits[-1]), column.mT, value=-1)
    fit = torch.cat(fits, dim=1)[:, :, 0]
    tested = fit.cumsum(dim=1) - fit.long() < wanted
    is_kept = fit & tested
    order = torch.argsort((~is_kept).to(torch.uint8), dim=1, stable=True)
    return order[:, :wanted], (tested & ~fit).sum(dim=1), wanted - is_kept.sum(dim=1)


def most_covered(area: Tensor, overlap: float) -> Tensor:
    """The largest whole number whose share of ``area``, as it is rounded, is at most ``overlap``; float64."""
    most = (area * overlap).floor() + 1
    for _ in range(2):
        most = torch.where(most / area <= overlap, most, most - 1)
    return most


def _cells(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Intervals between all edges of an axis: membership of each candidate (B, K, E) and lengths (B, E), float64."""
    edges = torch.cat([low, high], dim=1).sort(dim=1).values
    start, stop = edges[:, :-1], edges[:, 1:]
    inside = (start[:, None] >= low[:, :, None]) & (stop[:, None] <= high[:, :, None])
    return inside.double(), (stop - start).double()
