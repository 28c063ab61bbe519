"""Patch sampling against its rules, checked pixel by pixel (PAPER 1.2)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from engine.mixmatch.candidates import Candidates, row_counts, window_edges
from engine.mixmatch.overlap import choose, choose_on_device, most_covered
from engine.mixmatch.patches import sample_patches
from engine.mixmatch.windows import Patches

VOID = 255


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Case:
    """A batch of label maps and the settings of one draw."""

    labels: Tensor
    per_image: int
    size: tuple[int, int]
    background: int | None
    ratio: float
    overlap: float
    seed: int

    def draw(self, reference_compat: bool = False) -> Patches:
        return sample_patches(
            self.labels,
            self.per_image,
            size=self.size,
            background=self.background,
            background_ratio=self.ratio,
            overlap=self.overlap,
            generator=generator(self.seed),
            reference_compat=reference_compat,
        )


def label_maps(batch: int, height: int, width: int, seed: int) -> Tensor:
    """Random rectangles of classes 0-4 and void; some images are of one kind only."""
    source = np.random.default_rng(seed)
    maps = np.zeros((batch, height, width), dtype=np.int64)
    for image in maps:
        image[:] = source.choice([0, 0, 3, VOID])
        for _ in range(source.integers(0, 5)):
            y0, y1 = sorted(source.integers(0, height + 1, 2))
            x0, x1 = sorted(source.integers(0, width + 1, 2))
            image[y0:y1, x0:x1] = source.choice([0, 1, 2, 3, 4, VOID])
    return torch.from_numpy(maps)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    seed = draw(st.integers(0, 2**30))
    batch, height, width = draw(st.integers(1, 4)), draw(st.integers(1, 40)), draw(st.integers(1, 40))
    low = draw(st.integers(2, 24))
    return Case(
        label_maps(batch, height, width, seed),
        per_image=draw(st.integers(1, 12)),
        size=(low, draw(st.integers(low + low % 2, 50))),
        background=draw(st.sampled_from([0, 0, 3, None])),
        ratio=draw(st.sampled_from([0.0, 0.1, 0.34, 1.0])),
        overlap=draw(st.sampled_from([0.0, 0.25, 0.6, 1.0])),
        seed=seed,
    )


def quota(case: Case) -> int:
    """Background patches of an image, always leaving one for the other classes."""
    if case.background is None:
        return 0
    return min(max(1, math.floor(case.per_image * case.ratio)), case.per_image - 1)


def window(patches: Patches, k: int, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the part of a window that lies in the image."""
    half = int(patches.size[k]) // 2
    cy, cx = int(patches.cy[k]), int(patches.cx[k])
    return slice(max(0, cy - half), min(height, cy + half)), slice(max(0, cx - half), min(width, cx + half))


@settings(max_examples=120, deadline=None)
@given(case=cases())
def test_sample_patches_any_maps_give_the_number_size_and_label_asked_for(case: Case) -> None:
    patches = case.draw()
    usable = [i for i, image in enumerate(case.labels) if bool((image != VOID).any())]
    assert patches.image.tolist() == [i for i in usable for _ in range(case.per_image)]
    for name in ("image", "cy", "cx", "size", "label"):
        column = getattr(patches, name)
        assert column.dtype == torch.int64
        assert column.shape == (len(patches),)
    height, width = case.labels.shape[1:]
    for k in range(len(patches)):
        side = int(patches.size[k])
        assert case.size[0] <= side <= case.size[1]
        assert side % 2 == 0
        label = int(case.labels[patches.image[k], patches.cy[k], patches.cx[k]])
        assert int(patches.label[k]) == label != VOID
        rows, columns = window(patches, k, height, width)
        inside = (rows.stop - rows.start) * (columns.stop - columns.start)
        assert float(patches.padding[k]) == pytest.approx(1 - inside / side**2, abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(case=cases())
def test_sample_patches_any_maps_keep_the_quota_of_the_background(case: Case) -> None:
    patches = case.draw()
    behind = quota(case)
    for i, image in enumerate(case.labels):
        own = patches.label[patches.image == i].tolist()
        if not own or case.background is None:
            continue
        present = set(image.unique().tolist()) - {VOID}
        if present == {case.background}:
            assert set(own) == {case.background}
        elif case.background not in present:
            assert case.background not in own
        else:
            assert own[len(own) - behind :] == [case.background] * behind
            assert case.background not in own[: len(own) - behind]


@settings(max_examples=120, deadline=None)
@given(case=cases())
def test_sample_patches_any_maps_obey_the_rule_of_overlap(case: Case) -> None:
    """Windows are painted in the order they came; from the first one that is covered too much on, all others were
    rejected and taken back, so they are covered too much as well."""
    patches = case.draw()
    height, width = case.labels.shape[1:]
    taken_back = 0
    for i in patches.image.unique().tolist():
        own = (patches.image == i).nonzero().flatten().tolist()
        mask = np.zeros((height, width), dtype=bool)
        short = False
        for k in own[: case.per_image - quota(case)]:
            seen = mask[window(patches, k, height, width)]
            crowded = seen.mean() > case.overlap
            assert crowded or not short
            short = short or crowded
            taken_back += short
            if not short:
                seen[:] = True
    assert int(patches.topped_up) == taken_back
    assert int(patches.overlap_rejections) >= taken_back


def naive_choice(
    boxes: NDArray[np.int64], wanted: int, bounds: tuple[int, int], overlap: float, compat: bool
) -> tuple[list[int], int]:
    """Greedy choice of one image on a mask of pixels; boxes are rows (cy, cx, side). Chosen ones, number rejected."""
    mask = np.zeros(bounds, dtype=bool)
    kept: list[int] = []
    rejected: list[int] = []
    for k, (cy, cx, side) in enumerate(boxes):
        rows = slice(max(0, cy - side // 2), min(bounds[0], cy + side // 2))
        columns = slice(max(0, cx - side // 2), min(bounds[1], cx + side // 2))
        area = boxes[0, 2] ** 2 if compat else mask[rows, columns].size
        if len(kept) == wanted:
            break
        if mask[rows, columns].sum() / area > overlap:
            rejected.append(k)
            continue
        mask[rows, columns] = True
        kept.append(k)
    return (kept + rejected)[:wanted], len(rejected)


def by_tensors(
    candidates: Candidates, wanted: int, bounds: tuple[int, int], overlap: float, compat: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The way of GPUs, on the CPU."""
    y0, y1, x0, x1 = edges = window_edges(candidates, bounds)
    area = candidates.size[:, :1].square().expand_as(y0) if compat else (y1 - y0) * (x1 - x0)
    return choose_on_device(edges, area, wanted, overlap)


@pytest.mark.parametrize("overlap", [0.0, 0.1, 1 / 3, 0.35, 0.6, 0.7, 1 - 2**-53, 1.0])
def test_most_that_may_be_covered_is_where_the_share_passes_the_limit(overlap: float) -> None:
    areas = [*range(1, 700), *(side * side for side in range(600, 700)), 512 * 512, 10_000_019]
    for area, most in zip(areas, most_covered(torch.tensor(areas).double(), overlap).tolist(), strict=True):
        assert most / area <= overlap < (most + 1) / area, area


@pytest.mark.parametrize("way", [choose, by_tensors])
@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.6, 0.7])
def test_choose_random_windows_agree_with_a_mask_of_pixels(
    overlap: float, compat: bool, way: Callable[..., tuple[Tensor, Tensor, Tensor]]
) -> None:
    source = np.random.default_rng(7)
    wanted, bounds = 6, (48, 64)
    boxes = source.integers([0, 0, 1], [48, 64, 21], (60, 30, 3)) * [1, 1, 2]
    # Half of the images have few places, so that windows repeat and overlap by round shares.
    boxes[30:] = boxes[30:] // 8 * 8 + [0, 0, 4]
    cy, cx, side = torch.from_numpy(boxes).unbind(2)
    chosen, rejected, topped = way(Candidates(cy, cx, side, cy), wanted, bounds, overlap, compat)
    expected = [naive_choice(rows, wanted, bounds, overlap, compat) for rows in boxes]
    assert chosen.tolist() == [picks for picks, _ in expected]
    assert rejected.tolist() == [count for _, count in expected]
    assert len(set(rejected.tolist())) > 3
    assert bool((topped <= rejected).all())


@pytest.mark.parametrize(("shift", "kept"), [(8, True), (7, False), (9, True)])
def test_choose_share_equal_to_the_limit_is_kept(shift: int, kept: bool) -> None:
    """20 x 20 windows shifted by 8: 60 % of the second is covered, which is not beyond 60 %."""
    cx = torch.tensor([[10, 10 + shift, 60]])
    fixed = torch.full_like(cx, 10)
    chosen, rejected, _ = choose(Candidates(fixed, cx, fixed * 2, fixed), 2, (100, 100), 0.6, False)
    assert chosen.tolist() == [[0, 1] if kept else [0, 2]]
    assert rejected.tolist() == [0 if kept else 1]


def test_choose_reference_compat_measures_against_the_first_candidate() -> None:
    """A 40 x 40 window wholly covered by two others of 80: 1600 of the first one's 6400 pixels pass the release."""
    size = torch.tensor([[80, 40, 40]])
    center = torch.tensor([[60, 60, 120]])
    candidates = Candidates(center, center, size, size)
    assert choose(candidates, 2, (200, 200), 0.6, False)[0].tolist() == [[0, 2]]
    assert choose(candidates, 2, (200, 200), 0.6, True)[0].tolist() == [[0, 1]]


def copies(image: Tensor, count: int) -> Tensor:
    return image[None].expand(count, *image.shape).contiguous()


def test_sample_patches_centres_are_uniform_over_the_pixels_of_their_pool() -> None:
    image = torch.full((6, 11), VOID)
    image[1:4, 2:9] = 0
    image[2:5, 5:10] = 4
    image[5, 0] = 2
    # An overlap of 1 drops nothing, so the choice among candidates leaves the draw as it is.
    maps = copies(image, 4000)
    patches = sample_patches(maps, 4, size=(2, 4), overlap=1.0, background_ratio=0.5, generator=generator())
    for pool, is_behind in (((image != 0) & (image != VOID), False), (image == 0, True)):
        own = (patches.label == 0) == is_behind
        counts = torch.zeros(image.shape).index_put_(
            (patches.cy[own], patches.cx[own]), torch.ones(int(own.sum())), accumulate=True
        )
        assert not counts[~pool].any()
        assert counts.sum() == 8000
        assert stats.chisquare(counts[pool].tolist()).pvalue > 1e-4


def test_sample_patches_sides_are_uniform_integers_rounded_down_to_even() -> None:
    maps = torch.ones((4000, 4, 4), dtype=torch.int64)
    patches = sample_patches(maps, 5, size=(6, 12), overlap=1.0, generator=generator())
    seen = Counter(patches.size.tolist())
    expected = {6: 2 / 7, 8: 2 / 7, 10: 2 / 7, 12: 1 / 7}
    observed = [seen[side] for side in expected]
    assert sum(observed) == len(patches) == 20_000
    assert stats.chisquare(observed, [share * 20_000 for share in expected.values()]).pvalue > 1e-4


def test_sample_patches_without_background_draws_all_classes_from_one_pool() -> None:
    image = torch.zeros((8, 8), dtype=torch.int64)
    image[:2] = 1
    patches = sample_patches(copies(image, 2000), 5, size=(2, 2), background=None, overlap=1.0, generator=generator())
    ones = int((patches.label == 1).sum())
    assert stats.binomtest(ones, 10_000, 0.25).pvalue > 1e-4


@pytest.mark.parametrize(
    ("per_image", "ratio", "expected"),
    [(10, 0.1, 1), (9, 0.1, 1), (25, 0.1, 2), (10, 0.0, 1), (8, 0.5, 4), (2, 1.0, 1), (1, 0.5, 0)],
)
def test_sample_patches_background_quota_is_rounded_down_and_at_least_one(
    per_image: int, ratio: float, expected: int
) -> None:
    image = torch.zeros((32, 32), dtype=torch.int64)
    image[8:24] = 5
    patches = sample_patches(image[None], per_image, size=(4, 8), background_ratio=ratio, generator=generator())
    assert int((patches.label == 0).sum()) == expected
    assert len(patches) == per_image


@pytest.mark.parametrize("only", [0, 7])
def test_sample_patches_image_of_one_class_is_filled_from_it(only: int) -> None:
    image = torch.full((1, 40, 40), only)
    image[:, :10] = VOID
    patches = sample_patches(image, 6, size=(8, 16), generator=generator())
    assert patches.label.tolist() == [only] * 6
    assert int(patches.cy.min()) >= 10


def test_sample_patches_void_images_give_nothing_and_shift_nothing() -> None:
    maps = torch.full((4, 16, 16), VOID)
    maps[1, 3, 4] = 2
    maps[3, 15, 15] = 0
    patches = sample_patches(maps, 3, size=(4, 4), generator=generator())
    assert patches.image.tolist() == [1, 1, 1, 3, 3, 3]
    assert patches.label.tolist() == [2, 2, 2, 0, 0, 0]
    assert patches.cy.tolist() == [3, 3, 3, 15, 15, 15]
    assert patches.cx.tolist() == [4, 4, 4, 15, 15, 15]
    assert len(sample_patches(maps[:1], 3, size=(4, 4), generator=generator())) == 0


def test_sample_patches_void_images_do_not_count_as_overlap() -> None:
    patches = sample_patches(torch.full((3, 16, 16), VOID), 4, size=(8, 8), generator=generator())
    assert int(patches.overlap_rejections) == int(patches.topped_up) == 0


def test_sample_patches_other_void_label_is_honoured() -> None:
    maps = torch.full((1, 8, 8), -1)
    maps[0, 5] = VOID
    patches = sample_patches(maps, 4, size=(2, 4), ignore_index=-1, generator=generator())
    assert patches.label.tolist() == [VOID] * 4


def test_sample_patches_reference_compat_calls_fallback_patches_background() -> None:
    image = torch.full((1, 40, 40), 7)
    faithful = sample_patches(image, 10, size=(8, 16), generator=generator())
    compat = sample_patches(image, 10, size=(8, 16), generator=generator(), reference_compat=True)
    assert faithful.label.tolist() == [7] * 10
    assert compat.label.tolist() == [7] * 9 + [0]


def test_sample_patches_reference_compat_takes_class_0_for_background_in_every_data_set() -> None:
    image = torch.zeros((1, 64, 64), dtype=torch.int64)
    image[:, 60:] = 3
    compat = sample_patches(image, 9, size=(4, 4), background=None, generator=generator(), reference_compat=True)
    assert compat.label.tolist() == [3] * 8 + [0]


def test_sample_patches_reference_compat_uses_the_area_of_the_release() -> None:
    case = Case(label_maps(8, 64, 64, seed=3), 10, (8, 40), 0, 0.1, 0.3, seed=5)
    assert int(case.draw(reference_compat=True).overlap_rejections) != int(case.draw().overlap_rejections)


def test_sample_patches_equal_seeds_give_equal_patches() -> None:
    case = Case(label_maps(4, 32, 40, 1), 6, (4, 16), 0, 0.1, 0.6, seed=11)
    first, second = case.draw(), case.draw()
    for field in fields(Patches):
        one, other = (torch.as_tensor(getattr(patches, field.name)) for patches in (first, second))
        assert torch.equal(one, other)
    other = Case(case.labels, 6, (4, 16), 0, 0.1, 0.6, seed=12).draw()
    assert not torch.equal(first.cy, other.cy)


@pytest.mark.parametrize("centres", ["uniform", "balanced"])
@pytest.mark.parametrize("background", [0, 3, None, 300])
@pytest.mark.parametrize("ignore_index", [VOID, -1, 256])
def test_sample_patches_bytes_and_int64_labels_give_equal_patches(
    centres: str, background: int | None, ignore_index: int
) -> None:
    labels = label_maps(6, 40, 48, 3)
    if ignore_index != VOID:
        labels[labels == VOID] = 4

    def draw(maps: Tensor) -> Patches:
        return sample_patches(
            maps, 7, (4, 20), background, ignore_index=ignore_index, centres=centres, generator=generator(5)
        )

    wide, narrow = draw(labels), draw(labels.to(torch.uint8))
    for field in fields(Patches):
        first, second = (torch.as_tensor(getattr(patches, field.name)) for patches in (wide, narrow))
        assert first.dtype == second.dtype and torch.equal(first, second), field.name


@pytest.mark.parametrize("centres", ["uniform", "balanced"])
@pytest.mark.parametrize("ignore_index", [-1, 256, 300])
def test_sample_patches_void_may_be_no_byte(centres: str, ignore_index: int) -> None:
    labels = label_maps(6, 40, 48, 3)
    assert (labels == VOID).any()
    other = torch.where(labels == VOID, ignore_index, labels)

    def draw(maps: Tensor, void: int) -> Patches:
        return sample_patches(maps, 7, (4, 20), 0, ignore_index=void, centres=centres, generator=generator(5))

    expected, found = draw(labels, VOID), draw(other, ignore_index)
    assert len(found) and int(found.label.max()) < 9
    for field in fields(Patches):
        one, other = (torch.as_tensor(getattr(patches, field.name)) for patches in (found, expected))
        assert torch.equal(one, other), field.name


def test_sample_patches_does_not_touch_the_global_random_state() -> None:
    before = torch.get_rng_state()
    Case(label_maps(2, 16, 16, 1), 4, (4, 8), 0, 0.1, 0.6, seed=1).draw()
    assert torch.equal(before, torch.get_rng_state())


@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 80), share=st.floats(0, 1), seed=st.integers(0, 99))
@example(width=2040, share=1.0, seed=0)
@example(width=2048, share=1.0, seed=0)
@example(width=4096, share=0.5, seed=0)
def test_row_counts_any_width_equals_a_plain_sum(width: int, share: float, seed: int) -> None:
    flags = torch.rand((2, 3, width), generator=generator(seed)) < share
    expected = [[sum(row) for row in image] for image in flags.tolist()]
    assert row_counts(flags).tolist() == expected
    assert row_counts(flags.mT.contiguous().mT).tolist() == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (16, 8)}, "size must be"),
        ({"size": (7, 7)}, "even number"),
        ({"size": (0, 1)}, "even number"),
        ({"per_image": 0}, "per_image"),
        ({"background_ratio": 1.5}, "background_ratio"),
        ({"overlap": -0.1}, "overlap"),
        ({"label_maps": torch.zeros((4, 4), dtype=torch.int64)}, r"\(B, H, W\)"),
    ],
)
def test_sample_patches_wrong_settings_are_named(change: dict[str, object], message: str) -> None:
    settings_ = {"label_maps": torch.zeros((1, 4, 4), dtype=torch.int64), "per_image": 2, "size": (2, 4), **change}
    with pytest.raises(ValueError, match=message):
        sample_patches(**settings_)  # type: ignore[arg-type]


def naive_release(image: list[list[int]], per_image: int, size: tuple[int, int], source: np.random.Generator) -> object:
    """All rules of the release for one image, in its order, quirks included; boxes (cy, cx, side, label) of patches."""
    height, width = len(image), len(image[0])
    behind = max(1, int(per_image * 0.1))
    wanted = max(1, per_image - behind)
    pixels = [(y, x) for y in range(height) for x in range(width)]
    front = [(y, x) for y, x in pixels if image[y][x] not in (0, VOID)]
    back = [(y, x) for y, x in pixels if image[y][x] == 0]
    front, back = front or back, back or front

    def drawn(pool: list[tuple[int, int]], count: int) -> list[tuple[int, int, int]]:
        picks = [pool[source.integers(len(pool))] for _ in range(5 * count)]
        return [(y, x, int(source.integers(size[0], size[1] + 1)) // 2 * 2) for y, x in picks]

    candidates, covered = drawn(front, wanted), set[tuple[int, int]]()
    first_area, kept = candidates[0][2] ** 2, list[int]()
    for number, (cy, cx, side) in enumerate(candidates):
        rows = range(max(0, cy - side // 2), min(cy + side // 2, height))
        own = {(y, x) for y in rows for x in range(max(0, cx - side // 2), min(cx + side // 2, width))}
        if len(own & covered) / first_area > 0.6:
            continue
        covered |= own
        kept.append(number)
    chosen = (kept + [number for number in range(len(candidates)) if number not in kept])[:wanted]
    boxes = [(*candidates[number], image[candidates[number][0]][candidates[number][1]]) for number in chosen]
    return tuple(boxes + [(*box, 0) for box in drawn(back, behind)[:behind]])


@pytest.mark.parametrize("background", [0, VOID])
def test_sample_patches_reference_compat_is_distributed_as_the_rules_of_the_release(background: int) -> None:
    """With background pixels, and without: then patches of a class are called background."""
    image = torch.full((5, 5), VOID)
    image[0, 4] = background
    for label, (y, x) in enumerate([(1, 1), (1, 2), (3, 3)], start=1):
        image[y, x] = label
    rounds, rng, plain = 6000, np.random.default_rng(1), image.tolist()
    found = sample_patches(copies(image, rounds), 3, size=(2, 4), generator=generator(1), reference_compat=True)
    columns = [getattr(found, name).view(rounds, 3).tolist() for name in ("cy", "cx", "size", "label")]
    ours = Counter(tuple(zip(*rows, strict=True)) for rows in zip(*columns, strict=True))
    theirs = Counter(naive_release(plain, 3, (2, 4), rng) for _ in range(rounds))
    often = [key for key in ours | theirs if ours[key] + theirs[key] >= 20]
    rare = [counts.total() - sum(counts[key] for key in often) for counts in (ours, theirs)]
    table = [[counts[key] for key in often] + [left] for counts, left in zip((ours, theirs), rare, strict=True)]
    table = table if sum(rare) else [row[:-1] for row in table]
    assert len(often) > 30
    assert float(stats.chi2_contingency(table).pvalue) > 1e-4
