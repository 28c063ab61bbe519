"""The share of a patch that has its class, and the choice of the purest candidates, against loops over pixels."""

from __future__ import annotations

import itertools
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

import engine.mixmatch.patches as module
from engine.config.schema import ShapesData
from engine.data.shapes import draw
from engine.mixmatch.candidates import Candidates, draw_candidates, pools
from engine.mixmatch.patches import CANDIDATES_PER_PATCH, sample_patches
from engine.mixmatch.purity import GRID, class_share
from engine.mixmatch.windows import Patches

VOID = 255


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact_share(image: NDArray[np.int64], cy: int, cx: int, side: int, label: int) -> float:
    """Every pixel of the window looked at; those outside the image have no class."""
    height, width = image.shape
    hits = 0
    for y, x in itertools.product(range(cy - side // 2, cy + side // 2), range(cx - side // 2, cx + side // 2)):
        hits += 0 <= y < height and 0 <= x < width and image[y, x] == label
    return hits / side**2


def share_at_points(image: NDArray[np.int64], cy: int, cx: int, side: int, label: int) -> float:
    """The same at the pixels in which the middles of 16 x 16 equal cells lie."""
    height, width = image.shape
    steps = [int((k + 0.5) / 16 * side) for k in range(16)]
    hits = 0
    for y, x in itertools.product((cy - side // 2 + step for step in steps), (cx - side // 2 + step for step in steps)):
        hits += 0 <= y < height and 0 <= x < width and image[y, x] == label
    return hits / 256


def maps(seed: int, batch: int = 4, height: int = 40, width: int = 56) -> Tensor:
    """Rectangles of classes 0-4 and void."""
    source = np.random.default_rng(seed)
    found = np.zeros((batch, height, width), dtype=np.int64)
    for image in found:
        image[:] = source.choice([0, 0, 3])
        for _ in range(source.integers(1, 7)):
            y0, y1 = sorted(source.integers(0, height + 1, 2))
            x0, x1 = sorted(source.integers(0, width + 1, 2))
            image[y0:y1, x0:x1] = source.choice([0, 1, 2, 3, 4, VOID])
    return torch.from_numpy(found)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**30), half=st.integers(1, 40), dtype=st.sampled_from([torch.uint8, torch.int64]))
def test_class_share_any_windows_equal_a_loop_over_the_points(seed: int, half: int, dtype: torch.dtype) -> None:
    labels = maps(seed)
    source = np.random.default_rng(seed)
    windows = [(source.integers(4), source.integers(40), source.integers(56), half * 2) for _ in range(6)]
    image, cy, cx, side = torch.tensor(np.array(windows)).unbind(1)
    label = labels[image, cy, cx]
    found = class_share(labels.to(dtype), image, cy, cx, side, label)
    rows = zip(windows, label.tolist(), strict=True)
    assert found.tolist() == [share_at_points(labels[i].numpy(), y, x, s, c) for (i, y, x, s), c in rows]
    assert found.dtype == torch.float32


@pytest.mark.parametrize("side", [2, 4, 8, 16])
def test_class_share_small_windows_are_exact(side: int) -> None:
    labels = maps(side)
    for cy, cx in itertools.product((0, 1, 17, 39), (0, 3, 30, 55)):
        args = [torch.tensor(value) for value in (2, cy, cx, side, int(labels[2, cy, cx]))]
        assert float(class_share(labels, *args)) == exact_share(labels[2].numpy(), cy, cx, side, int(args[-1]))


@settings(max_examples=60, deadline=None)
@given(side=st.integers(1, 70), border=st.integers(-40, 40), across=st.booleans())
def test_class_share_straight_border_is_right_within_half_a_cell(side: int, border: int, across: bool) -> None:
    labels = torch.zeros((1, 200, 200), dtype=torch.int64)
    labels[:, : 100 + border] = 1
    if across:
        labels = labels.mT.contiguous()
    side *= 2
    zero, middle = torch.tensor(0), torch.tensor(100)
    found = float(class_share(labels, zero, middle, middle, torch.tensor(side), torch.tensor(1)))
    assert abs(found - exact_share(labels[0].numpy(), 100, 100, side, 1)) <= 0.5 / GRID


def naive_purest(
    image: NDArray[np.int64], boxes: list[tuple[int, int, int, int]], wanted: int, overlap: float, compat: bool
) -> tuple[list[int], int]:
    """Numbers of the chosen ones of one image's candidates (cy, cx, side, label), and how many were dropped."""
    share = [share_at_points(image, *box) for box in boxes]
    covered: set[tuple[int, int]] = set()
    kept: list[int] = []
    dropped: list[int] = []
    for number in sorted(range(len(boxes)), key=lambda k: (-share[k], k)):
        cy, cx, side, _ = boxes[number]
        rows = range(max(0, cy - side // 2), min(cy + side // 2, image.shape[0]))
        own = {(y, x) for y in rows for x in range(max(0, cx - side // 2), min(cx + side // 2, image.shape[1]))}
        if len(kept) == wanted:
            break
        if len(own & covered) / (boxes[0][2] ** 2 if compat else len(own)) > overlap:
            dropped.append(number)
            continue
        covered |= own
        kept.append(number)
    return (kept + dropped)[:wanted], len(dropped)


@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("centres", ["uniform", "balanced"])
@pytest.mark.parametrize("overlap", [0.1, 0.6])
def test_pure_candidates_are_chosen_as_by_a_loop_over_pixels(
    overlap: float, centres: str, compat: bool, on_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways to choose: that of CPUs, and that of GPUs on the CPU."""
    labels = maps(17, batch=12)
    labels[labels == VOID] = 4
    labels[:, 0, 0], labels[:, 0, 1] = 0, 2
    per_image, sides, background = 5, (6, 24), 0
    found = _draw_with(labels, per_image, sides, overlap, compat, centres, on_device, monkeypatch)
    # The draws again, in their order: first the candidates in front, then those behind.
    source = generator(3)
    everything, behind, before = pools(labels, background, VOID)
    front = draw_candidates(labels, before, everything, 4 * CANDIDATES_PER_PATCH, sides, source, centres)
    back = draw_candidates(labels, behind, everything, CANDIDATES_PER_PATCH, sides, source)
    drops = 0
    for i, image in enumerate(labels.numpy()):
        boxes = _boxes(front, i)
        picks, dropped = naive_purest(image, boxes, 4, overlap, compat)
        drops += dropped
        behind_boxes = _boxes(back, i)
        best = max(behind_boxes, key=lambda box: share_at_points(image, *box))
        own = (found.image == i).nonzero().flatten().tolist()
        columns = (found.cy, found.cx, found.size, found.label)
        assert [tuple(int(c[k]) for c in columns) for k in own] == [*(boxes[k] for k in picks), best]
        assert [float(found.purity[k]) for k in own] == [
            share_at_points(image, *box) for box in [*(boxes[k] for k in picks), best]
        ]
    assert int(found.overlap_rejections) == drops > 0


def _draw_with(
    labels: Tensor,
    per_image: int,
    sides: tuple[int, int],
    overlap: float,
    compat: bool,
    centres: str,
    on_device: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> Patches:
    with monkeypatch.context() as patched:
        if on_device:
            patched.setattr(module.host, "on_host", lambda tensor: False)
        return sample_patches(
            labels, per_image, sides, 0, 0.1, overlap, generator=generator(3), reference_compat=compat,
            centres=centres, candidates="pure",
        )  # fmt: skip


def _boxes(candidates: Candidates, image: int) -> list[tuple[int, int, int, int]]:
    rows = zip(*(part[image].tolist() for part in candidates.all()), strict=True)
    return [(cy, cx, side, label) for cy, cx, side, label in rows]


def test_pure_candidates_of_a_void_image_are_left_out() -> None:
    labels = torch.full((2, 16, 16), VOID)
    labels[1, 8:] = 1
    patches = sample_patches(labels, 3, (4, 8), background=None, generator=generator(), candidates="pure")
    assert patches.image.tolist() == [1, 1, 1] and patches.purity.shape == (3,)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**30), background=st.sampled_from([None, 0]), centres=st.sampled_from(["uniform", "balanced"])
)
def test_pure_candidates_are_purer_on_any_maps(seed: int, background: int | None, centres: str) -> None:
    """With no rule of overlap the purest of the very same candidates win, so not one image can lose."""
    labels = maps(seed, batch=6)

    def purity(candidates: str, overlap: float) -> Tensor:
        found = sample_patches(
            labels, 6, (8, 32), background, overlap=overlap, generator=generator(seed), centres=centres,
            candidates=candidates,
        )  # fmt: skip
        front = found.purity.view(-1, 6)[:, : 6 if background is None else 5]
        return front.double().mean(dim=1)

    assert bool((purity("pure", 1.0) >= purity("order", 1.0)).all())


def test_pure_candidates_are_purer_on_shapes_with_the_rule_of_overlap() -> None:
    labels = torch.stack([torch.from_numpy(draw(ShapesData(), "train", index)[1]) for index in range(16)])
    shares = {
        candidates: float(
            sample_patches(labels, 9, (16, 48), generator=generator(1), candidates=candidates).purity.mean()
        )
        for candidates in ("order", "pure")
    }
    assert shares["pure"] > shares["order"] + 0.1


def test_order_is_the_default_and_draws_what_it_always_drew() -> None:
    """The shares are told all the same, and they are those of the windows."""
    labels = maps(5)
    named = sample_patches(labels, 6, (4, 20), generator=generator(2), candidates="order")
    default = sample_patches(labels, 6, (4, 20), generator=generator(2))
    for field in fields(Patches):
        one, other = (torch.as_tensor(getattr(patches, field.name)) for patches in (named, default))
        assert torch.equal(one, other), field.name
    rows = zip(*(getattr(named, name).tolist() for name in ("image", "cy", "cx", "size", "label")), strict=True)
    assert named.purity.tolist() == [share_at_points(labels[i].numpy(), *box) for i, *box in rows]


def test_unknown_candidates_are_named() -> None:
    with pytest.raises(ValueError, match="unknown candidates 'best'; there are order, pure"):
        sample_patches(torch.zeros((1, 4, 4), dtype=torch.int64), 2, (2, 4), candidates="best")
