"""Candidates for patches: centres drawn from pools of pixels, with sides (PAPER 1.2).

Shapes: B images, H and W their sides in pixels, K candidates per image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine import host

LABELS = 256
"""Label values there can be: classes and void."""

LANES = 8
"""Bytes of an int64, and so the flags that one integer addition counts."""


@dataclass(frozen=True)
class Candidates:
    """Candidate windows, (B, K) each; ``label`` is that of the centre pixel."""

    cy: Tensor
    cx: Tensor
    size: Tensor
    label: Tensor

    def take(self, order: Tensor) -> Candidates:
        return Candidates(*(part.gather(1, order) for part in self.all()))

    def labelled(self, label: int) -> Candidates:
        """The same windows, all with one label."""
        return replace(self, label=torch.full_like(self.label, label))

    def all(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.cy, self.cx, self.size, self.label


@dataclass(frozen=True)
class Pool:
    """Pixels to draw from: which labels belong to it, and how many pixels of each image row do, int64 (B, H)."""

    member: Callable[[Tensor], Tensor]
    rows: Tensor


def pools(label_maps: Tensor, background: int | None, ignore_index: int) -> tuple[Pool, Pool, Pool]:
    """Labelled pixels, those of the background and the others."""

    def labelled(labels: Tensor) -> Tensor:
        return ~_equals(labels, ignore_index)

    rows = label_maps.shape[2] - row_counts(_equals(label_maps, ignore_index))
    if background is None or background == ignore_index:
        nothing = Pool(lambda labels: torch.zeros_like(labels, dtype=torch.bool), torch.zeros_like(rows))
        return Pool(labelled, rows), nothing, Pool(labelled, rows)

    def behind(labels: Tensor) -> Tensor:
        return _equals(labels, background)

    def before(labels: Tensor) -> Tensor:
        return ~(_equals(labels, background) | _equals(labels, ignore_index))

    rows_behind = row_counts(behind(label_maps))
    return Pool(labelled, rows), Pool(behind, rows_behind), Pool(before, rows - rows_behind)


def _equals(label_maps: Tensor, value: int) -> Tensor:
    """Pixels of one label. NumPy compares bytes several times as fast as torch does on a CPU."""
    if host.on_host(label_maps):
        return torch.from_numpy(label_maps.numpy() == value)
    return label_maps == value


def row_counts(flags: Tensor) -> Tensor:
    """True pixels of each image row: bool (B, H, W) to int64 (B, H).

    A CPU sums flags one by one. Eight of them read as one integer are added at once, as long as none of its bytes
    can overflow: a twentieth of the time.
    """
    width = flags.shape[2]
    if width % LANES or width // LANES > 255 or not flags.is_contiguous():
        return flags.sum(dim=2)
    return flags.view(torch.int64).sum(dim=2, keepdim=True).view(torch.uint8).sum(dim=2)


def draw_candidates(
    label_maps: Tensor,
    pool: Pool,
    fallback: Pool,
    count: int,
    sides: tuple[int, int],
    generator: torch.Generator | None,
    centres: str = "uniform",
) -> Candidates:
    """``count`` pixels per image from ``pool``, or from ``fallback`` where the pool is empty, with random sides."""
    empty = ~pool.rows.any(dim=1, keepdim=True)
    uniform = _uniform((2, len(label_maps), count), label_maps.device, generator)
    cy, cx = DRAWS[centres](label_maps, pool, fallback, empty, uniform[0])
    image = torch.arange(len(label_maps), device=label_maps.device)[:, None]
    low, high = sides
    side = low + (uniform[1] * (high - low + 1)).long().clamp(max=high - low)
    return Candidates(cy, cx, side - side % 2, label_maps[image, cy, cx].long())


def _uniform_pixels(
    label_maps: Tensor, pool: Pool, fallback: Pool, empty: Tensor, uniform: Tensor
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


def _members(pool: Pool, fallback: Pool, empty: Tensor, lines: Tensor) -> Tensor:
    """Which pixels of lines (B, K, W) belong to the pool, or to ``fallback`` in images where it is ``empty`` (B, 1)."""
    own = pool.member(lines)
    if host.on_host(lines) and not empty.any():
        return own
    return torch.where(empty[:, :, None], fallback.member(lines), own)


def _balanced_pixels(
    label_maps: Tensor, pool: Pool, fallback: Pool, empty: Tensor, uniform: Tensor
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


def window_edges(candidates: Candidates, bounds: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Window edges y0, y1, x0, x1, each (B, K), clipped at the image of ``bounds`` (H, W)."""
    half = candidates.size // 2
    height, width = bounds
    return (
        (candidates.cy - half).clamp(min=0),
        (candidates.cy + half).clamp(max=height),
        (candidates.cx - half).clamp(min=0),
        (candidates.cx + half).clamp(max=width),
    )


DRAWS = {"uniform": _uniform_pixels, "balanced": _balanced_pixels}
"""How centres are drawn from a pool, by name."""
