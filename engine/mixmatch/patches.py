"""Mix: labelled square patches of many sizes, drawn at random from a batch of images (PAPER 1.2).

Shapes: B images, H and W their sides in pixels, K candidates per image, P patches per image, N patches in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine import host
from engine.mixmatch.device_crops import crop_on_device
from engine.mixmatch.host_choice import choose_windows
from engine.mixmatch.host_crops import cut_windows
from engine.mixmatch.purity import class_share
from engine.mixmatch.windows import Patches

CANDIDATES_PER_PATCH = 5
"""How many centres are drawn for every wanted patch (reference release: 5)."""

RANKINGS = ("order", "pure")
"""In what order candidates are tried, see ``sample_patches``."""

LABELS = 256
"""Label values there can be: classes and void."""

LANES = 8
"""Bytes of an int64, and so the flags that one integer addition counts."""


@dataclass(frozen=True)
class _Candidates:
    """Candidate windows, (B, K) each; ``label`` is that of the centre pixel."""

    cy: Tensor
    cx: Tensor
    size: Tensor
    label: Tensor

    def take(self, order: Tensor) -> _Candidates:
        return _Candidates(*(part.gather(1, order) for part in self.all()))

    def all(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.cy, self.cx, self.size, self.label


@dataclass(frozen=True)
class _Pool:
    """Pixels to draw from: which labels belong to it, and how many pixels of each image row do, int64 (B, H)."""

    member: Callable[[Tensor], Tensor]
    rows: Tensor


def sample_patches(
    label_maps: Tensor,
    per_image: int,
    size: tuple[int, int] = (64, 256),
    background: int | None = 0,
    background_ratio: float = 0.1,
    overlap: float = 0.6,
    ignore_index: int = 255,
    generator: torch.Generator | None = None,
    reference_compat: bool = False,
    centres: str = "uniform",
    candidates: str = "order",
    purity: bool = True,
) -> Patches:
    """Draw ``per_image`` patches from every image that has a labelled pixel.

    Centres are drawn uniformly from pixels, with replacement: with a background class ``max(1, int(P * ratio))``
    patches from its pixels and the others, at least one, from all further classes; without one, all from labelled
    pixels. Where a pool is empty its patches come from the other. A patch's label is the class of its centre pixel.
    Of five candidates per foreground patch, in the order drawn, one is dropped when kept windows already cover
    more than ``overlap`` of its own window (both clipped at the image); too few left, dropped ones are taken
    back in order. Background patches are not tested. Source: reference ``resources/create_patch.py``.

    Args:
        label_maps: (B, H, W), classes and ``ignore_index``; int64, or uint8, which is read far faster.
        per_image: patches per image P.
        size: smallest and largest side, pixels; a uniform integer between them is rounded down to even. An odd
            smallest side counts as the even one above it.
        background: class with a quota of its own, None = no such class.
        background_ratio: the quota, 0-1.
        overlap: covered share beyond which a candidate is dropped, 0-1.
        ignore_index: label of void pixels, never a centre.
        generator: source of randomness, on the device of ``label_maps``.
        reference_compat: repeat the quirks of the release: coverage is measured against the squared side of the
            image's first candidate; class 0 is the background whatever the data set calls it; background patches
            drawn from elsewhere are labelled background all the same.
        centres: ``uniform`` over pixels as published, where large classes win, or ``balanced``: every class of an
            image's pool is drawn equally often, and uniformly within the class.
        candidates: ``order``, as published and as they were drawn, or ``pure``, the release's unused switch
            ``by_ovlp``: those whose window has the largest share of its centre's class first. Background patches
            are then the purest of five times as many.
        purity: measure the patches' ``purity``, for which points all over every window are read.

    Raises:
        ValueError: unknown centres or candidates; sizes, counts or shares out of range.
    """
    sides = _even_sides(size)
    _check(label_maps, per_image, background_ratio, overlap)
    if centres not in DRAWS:
        raise ValueError(f"unknown centres {centres!r}; there are {', '.join(DRAWS)}")
    if candidates not in RANKINGS:
        raise ValueError(f"unknown candidates {candidates!r}; there are {', '.join(RANKINGS)}")
    if reference_compat:
        background = 0
    if label_maps.dtype != torch.uint8 or not {ignore_index, background or 0} <= set(range(LABELS)):
        label_maps = label_maps.long()  # a byte would be compared with the lowest byte of such a label
    quota = 0 if background is None else min(max(1, int(per_image * background_ratio)), per_image - 1)
    wanted = per_image - quota

    everything, behind, before = _pools(label_maps, background, ignore_index)
    front = _draw(label_maps, before, everything, wanted * CANDIDATES_PER_PATCH, sides, generator, centres)
    pure = candidates == "pure"
    ranking = _purest_first(label_maps, front) if pure else None
    chosen, rejected, topped = _choose(front, wanted, label_maps.shape[1:], overlap, reference_compat, ranking)
    parts = [front.take(chosen)]
    if quota:
        count = quota * CANDIDATES_PER_PATCH if pure else quota
        back = _draw(label_maps, behind, everything, count, sides, generator)
        if reference_compat:
            back = _Candidates(back.cy, back.cx, back.size, torch.zeros_like(back.label))
        parts.append(back.take(_purest_first(label_maps, back)[:, :quota]) if pure else back)
    usable = everything.rows.any(dim=1)
    drawn = _collect(parts, usable, label_maps.shape[1:], (rejected * usable).sum(), (topped * usable).sum())
    if not purity:
        return drawn
    windows = drawn.cy, drawn.cx, drawn.size, drawn.label
    return replace(drawn, purity=class_share(label_maps, drawn.image, *windows))


def _even_sides(size: tuple[int, int]) -> tuple[int, int]:
    low, high = size
    even = low + low % 2
    if not 2 <= even <= high:
        raise ValueError(f"size must be (smallest, largest) side with an even number of 2 or more between, got {size}")
    return even, high


def _check(label_maps: Tensor, per_image: int, background_ratio: float, overlap: float) -> None:
    if label_maps.ndim != 3:
        raise ValueError(f"label_maps must be (B, H, W), got {tuple(label_maps.shape)}")
    if per_image < 1:
        raise ValueError(f"per_image must be at least 1, got {per_image}")
    for name, share in (("background_ratio", background_ratio), ("overlap", overlap)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {share}")


def _pools(label_maps: Tensor, background: int | None, ignore_index: int) -> tuple[_Pool, _Pool, _Pool]:
    """Labelled pixels, those of the background and the others."""

    def labelled(labels: Tensor) -> Tensor:
        return ~_equals(labels, ignore_index)

    rows = label_maps.shape[2] - _row_counts(_equals(label_maps, ignore_index))
    if background is None or background == ignore_index:
        nothing = _Pool(lambda labels: torch.zeros_like(labels, dtype=torch.bool), torch.zeros_like(rows))
        return _Pool(labelled, rows), nothing, _Pool(labelled, rows)

    def behind(labels: Tensor) -> Tensor:
        return _equals(labels, background)

    def before(labels: Tensor) -> Tensor:
        return ~(_equals(labels, background) | _equals(labels, ignore_index))

    rows_behind = _row_counts(behind(label_maps))
    return _Pool(labelled, rows), _Pool(behind, rows_behind), _Pool(before, rows - rows_behind)


def _equals(label_maps: Tensor, value: int) -> Tensor:
    """Pixels of one label. NumPy compares bytes several times as fast as torch does on a CPU."""
    if host.on_host(label_maps):
        return torch.from_numpy(label_maps.numpy() == value)
    return label_maps == value


def _row_counts(flags: Tensor) -> Tensor:
    """True pixels of each image row: bool (B, H, W) to int64 (B, H).

    A CPU sums flags one by one. Eight of them read as one integer are added at once, as long as none of its bytes
    can overflow: a twentieth of the time.
    """
    width = flags.shape[2]
    if width % LANES or width // LANES > 255 or not flags.is_contiguous():
        return flags.sum(dim=2)
    return flags.view(torch.int64).sum(dim=2, keepdim=True).view(torch.uint8).sum(dim=2)


def _draw(
    label_maps: Tensor,
    pool: _Pool,
    fallback: _Pool,
    count: int,
    sides: tuple[int, int],
    generator: torch.Generator | None,
    centres: str = "uniform",
) -> _Candidates:
    """``count`` pixels per image from ``pool``, or from ``fallback`` where the pool is empty, with random sides."""
    empty = ~pool.rows.any(dim=1, keepdim=True)
    uniform = _uniform((2, len(label_maps), count), label_maps.device, generator)
    cy, cx = DRAWS[centres](label_maps, pool, fallback, empty, uniform[0])
    image = torch.arange(len(label_maps), device=label_maps.device)[:, None]
    low, high = sides
    side = low + (uniform[1] * (high - low + 1)).long().clamp(max=high - low)
    return _Candidates(cy, cx, side - side % 2, label_maps[image, cy, cx].long())


def _uniform_pixels(
    label_maps: Tensor, pool: _Pool, fallback: _Pool, empty: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """Row and column (B, K) of pixels drawn uniformly, from draws (B, K) in [0, 1)."""
    per_row = torch.where(empty, fallback.rows, pool.rows)
    up_to_row = per_row.cumsum(dim=1)
    total = up_to_row[:, -1:]
    # An image without any labelled pixel gets some centre; the caller leaves its patches out.
    pick = torch.minimum((uniform * total).long(), (total - 1).clamp(min=0))
    cy = torch.searchsorted(up_to_row, pick, right=True).clamp(max=label_maps.shape[1] - 1)
    within = pick - (up_to_row.gather(1, cy) - per_row.gather(1, cy))
    batch, height, width = label_maps.shape
    image = torch.arange(batch, device=label_maps.device)[:, None]
    lines = label_maps.flatten(0, 1).index_select(0, (image * height + cy).flatten()).view(batch, -1, width)
    # A running count of a line fits 16 bits, as a rule, and takes a third of the time then.
    count = torch.int16 if width < 2**15 else torch.int64
    along = _members(pool, fallback, empty, lines).cumsum(dim=2, dtype=count)
    cx = torch.searchsorted(along, within[:, :, None].to(count), right=True).squeeze(2).clamp(max=width - 1)
    return cy, cx


def _members(pool: _Pool, fallback: _Pool, empty: Tensor, lines: Tensor) -> Tensor:
    """Which pixels of lines (B, K, W) belong to the pool, or to ``fallback`` in images where it is ``empty`` (B, 1)."""
    own = pool.member(lines)
    if host.on_host(lines) and not empty.any():
        return own
    return torch.where(empty[:, :, None], fallback.member(lines), own)


def _balanced_pixels(
    label_maps: Tensor, pool: _Pool, fallback: _Pool, empty: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """The same, but every class of the pool is as likely as any other: a pixel weighs 1 / pixels of its class."""
    batch, height, width = label_maps.shape
    image = torch.arange(batch, device=label_maps.device)
    flat = label_maps.flatten(1).long()
    kinds = LABELS
    if label_maps.dtype != torch.uint8:
        # A void label may be no byte: it is counted behind the others, and never drawn.
        flat, kinds = torch.where((flat >= 0) & (flat < LABELS), flat, LABELS), LABELS + 1
    flat = flat + image[:, None] * kinds
    counts = torch.bincount(flat.flatten(), minlength=batch * kinds).view(batch, kinds)
    labels = torch.arange(kinds, device=label_maps.device).expand(batch, kinds)
    allowed = torch.where(empty, fallback.member(labels), pool.member(labels)) & (counts > 0) & (labels < LABELS)
    weight = torch.where(allowed, 1.0 / counts.clamp(min=1).double(), 0.0).flatten()
    along = weight[flat].view(batch, height, width).cumsum(dim=2)
    up_to_row = along[:, :, -1].cumsum(dim=1)
    pick = uniform * up_to_row[:, -1:]
    cy = torch.searchsorted(up_to_row, pick, right=True).clamp(max=height - 1)
    line = along[image[:, None], cy]
    within = pick - (up_to_row.gather(1, cy) - line[:, :, -1])
    # Sums of fractions are rounded: keep off the row's very end, behind which there is no pixel of the pool.
    within = torch.minimum(within.clamp(min=0), line[:, :, -1] * (1 - 1e-9))
    cx = torch.searchsorted(line, within[:, :, None], right=True).squeeze(2).clamp(max=width - 1)
    return cy, cx


def _uniform(shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None) -> Tensor:
    """float64 in [0, 1): 24 bits of float32 would bias the choice among many pixels."""
    return torch.rand(shape, generator=generator, device=device, dtype=torch.float64)


def _window(candidates: _Candidates, bounds: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Window edges y0, y1, x0, x1, each (B, K), clipped at the image of ``bounds`` (H, W)."""
    half = candidates.size // 2
    height, width = bounds
    return (
        (candidates.cy - half).clamp(min=0),
        (candidates.cy + half).clamp(max=height),
        (candidates.cx - half).clamp(min=0),
        (candidates.cx + half).clamp(max=width),
    )


def _purest_first(label_maps: Tensor, candidates: _Candidates) -> Tensor:
    """Indices (B, K) of the candidates by falling share of their label; of equal ones the first drawn comes first."""
    image = torch.arange(len(label_maps), device=label_maps.device)[:, None]
    return class_share(label_maps, image, *candidates.all()).argsort(dim=1, descending=True, stable=True)


def _choose(
    candidates: _Candidates,
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
    edges = _window(ranked, bounds)
    y0, y1, x0, x1 = edges
    # The release measures against the candidate that was drawn first, whatever their ranking.
    area = candidates.size[:, :1].square().expand_as(y0) if compat else (y1 - y0) * (x1 - x0)
    if host.on_host(area):
        chosen, rejected, topped = choose_windows(edges, area, wanted, bounds, overlap)
    else:
        chosen, rejected, topped = _choose_on_device(edges, area, wanted, overlap)
    return chosen if ranking is None else ranking.gather(1, chosen), rejected, topped


def _choose_on_device(
    edges: tuple[Tensor, Tensor, Tensor, Tensor], area: Tensor, wanted: int, overlap: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The same for all images at once, without waiting for the device: it goes through all candidates.

    What is not covered yet is held on the grid of all window edges, whose cells are covered wholly or not at all:
    exact, and a hundred times smaller than a mask of pixels.
    """
    y0, y1, x0, x1 = edges
    rows, heights = _cells(y0, y1)
    columns, widths = _cells(x0, x1)
    least = (y1 - y0) * (x1 - x0) - _most_covered(area.double(), overlap)
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


def _most_covered(area: Tensor, overlap: float) -> Tensor:
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


def _collect(
    parts: list[_Candidates], usable: Tensor, bounds: Sequence[int], rejected: Tensor, topped: Tensor
) -> Patches:
    image = usable.nonzero()
    joined = _Candidates(*(torch.cat(kind, dim=1)[image[:, 0]] for kind in zip(*(p.all() for p in parts), strict=True)))
    y0, y1, x0, x1 = _window(joined, bounds)
    outside = 1 - ((y1 - y0) * (x1 - x0)).float() / joined.size.float().square()
    return Patches(
        image.expand_as(joined.cy).flatten(),
        joined.cy.flatten(),
        joined.cx.flatten(),
        joined.size.flatten(),
        joined.label.flatten(),
        outside.flatten(),
        rejected,
        topped,
        per_image=joined.cy.shape[1],
    )


def crop_patches(images: Tensor, patches: Patches, output_size: int = 128, fill: float = 0) -> Tensor:
    """Cut the patches out of their images and resize them.

    Outside the image a window holds ``fill``. Resizing is bilinear with half-pixel centres and without
    antialiasing, inside the window alone, as OpenCV's INTER_LINEAR resizes a cut-out.

    Args:
        images: (B, C, H, W); integers are read as float32.
        patches: windows in them, in any order.
        output_size: side of the result, pixels.
        fill: value outside the image.

    Returns:
        (N, C, output_size, output_size) of the images' floating dtype, on their device.
    """
    dtype = images.dtype if images.is_floating_point() else torch.float32
    if len(patches) == 0:
        return images.new_zeros((0, images.shape[1], output_size, output_size), dtype=dtype)
    if host.on_host(images) and not images.requires_grad:
        shape = (len(patches), images.shape[1], output_size, output_size)
        result = torch.empty(shape, dtype=torch.promote_types(dtype, torch.float32))
        outside = torch.full((images.shape[1],), fill, dtype=result.dtype)
        return cut_windows(images, patches, result, outside).to(dtype)
    return crop_on_device(images, patches, output_size, fill, dtype)


DRAWS = {"uniform": _uniform_pixels, "balanced": _balanced_pixels}
