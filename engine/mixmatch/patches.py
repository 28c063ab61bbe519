"""Mix: labelled square patches of many sizes, drawn at random from a batch of images (PAPER 1.2).

Shapes: B images, H and W their sides in pixels, K candidates per image, P patches per image, N patches in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from engine import host
from engine.mixmatch.candidates import DRAWS, LABELS, Candidates, Pool, draw_candidates, pools, window_edges
from engine.mixmatch.device_crops import crop_on_device
from engine.mixmatch.host_crops import cut_windows
from engine.mixmatch.overlap import choose
from engine.mixmatch.purity import class_share
from engine.mixmatch.windows import Patches

CANDIDATES_PER_PATCH = 5
"""How many centres are drawn for every wanted patch (reference release: 5)."""

RANKINGS = ("order", "pure")
"""In what order candidates are tried, see ``sample_patches``."""


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
    _check(label_maps, per_image, background_ratio, overlap, centres, candidates)
    background = 0 if reference_compat else background
    label_maps = _comparable(label_maps, ignore_index, background or 0)
    quota = 0 if background is None else min(max(1, int(per_image * background_ratio)), per_image - 1)
    wanted, bounds, pure = per_image - quota, label_maps.shape[1:], candidates == "pure"
    everything, behind, before = pools(label_maps, background, ignore_index)
    front = draw_candidates(label_maps, before, everything, wanted * CANDIDATES_PER_PATCH, sides, generator, centres)
    ranking = _purest_first(label_maps, front) if pure else None
    chosen, *counts = choose(front, wanted, bounds, overlap, reference_compat, ranking)
    back = _background_patches(label_maps, behind, everything, quota, sides, generator, pure=pure)
    parts = [front.take(chosen), *(one.labelled(0) if reference_compat else one for one in back)]
    drawn = _collect(parts, everything.rows.any(dim=1), bounds, counts)
    return with_purity(drawn, label_maps) if purity else drawn


def _comparable(label_maps: Tensor, *labels: int) -> Tensor:
    """The label maps in a dtype that holds these labels: a byte would be compared with the lowest byte of others."""
    fits = label_maps.dtype == torch.uint8 and all(label in range(LABELS) for label in labels)
    return label_maps if fits else label_maps.long()


def _background_patches(
    label_maps: Tensor,
    behind: Pool,
    everything: Pool,
    quota: int,
    sides: tuple[int, int],
    generator: torch.Generator | None,
    *,
    pure: bool,
) -> list[Candidates]:
    """``quota`` patches per image whose centres are background, the purest of five times as many if asked for; [] for
    a quota of 0, which draws no random number."""
    if not quota:
        return []
    back = draw_candidates(
        label_maps, behind, everything, quota * CANDIDATES_PER_PATCH if pure else quota, sides, generator
    )
    return [back.take(_purest_first(label_maps, back)[:, :quota]) if pure else back]


def with_purity(patches: Patches, label_maps: Tensor) -> Patches:
    """The patches, with the share of each window that has the class of its centre."""
    windows = patches.cy, patches.cx, patches.size, patches.label
    return replace(patches, purity=class_share(label_maps, patches.image, *windows))


def _even_sides(size: tuple[int, int]) -> tuple[int, int]:
    low, high = size
    even = low + low % 2
    if not 2 <= even <= high:
        raise ValueError(f"size must be (smallest, largest) side with an even number of 2 or more between, got {size}")
    return even, high


def _check(
    label_maps: Tensor, per_image: int, background_ratio: float, overlap: float, centres: str, candidates: str
) -> None:
    if label_maps.ndim != 3:
        raise ValueError(f"label_maps must be (B, H, W), got {tuple(label_maps.shape)}")
    if per_image < 1:
        raise ValueError(f"per_image must be at least 1, got {per_image}")
    for name, share in (("background_ratio", background_ratio), ("overlap", overlap)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {share}")
    if centres not in DRAWS:
        raise ValueError(f"unknown centres {centres!r}; there are {', '.join(DRAWS)}")
    if candidates not in RANKINGS:
        raise ValueError(f"unknown candidates {candidates!r}; there are {', '.join(RANKINGS)}")


def _purest_first(label_maps: Tensor, candidates: Candidates) -> Tensor:
    """Indices (B, K) of the candidates by falling share of their label; of equal ones the first drawn comes first."""
    image = torch.arange(len(label_maps), device=label_maps.device)[:, None]
    return class_share(label_maps, image, *candidates.all()).argsort(dim=1, descending=True, stable=True)


def _collect(parts: list[Candidates], usable: Tensor, bounds: Sequence[int], counts: Sequence[Tensor]) -> Patches:
    """The patches of images that have a labelled pixel; ``counts``: rejected and taken back of each image, (B,)."""
    rejected, topped = ((number * usable).sum() for number in counts)
    image = usable.nonzero()
    joined = Candidates(*(torch.cat(kind, dim=1)[image[:, 0]] for kind in zip(*(p.all() for p in parts), strict=True)))
    y0, y1, x0, x1 = window_edges(joined, bounds)
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
