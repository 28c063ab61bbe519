"""Random resizing and colours of crops against loops over pixels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from engine.data.augment import gather_resized, jitter_colours
from engine.data.dataset import SegmentationData
from engine.data.pipeline import sample_crops


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(sizes: list[tuple[int, int]]) -> SegmentationData:
    """Random pixels, also beside the images, where nothing may be read."""
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    images = torch.randint(0, 256, (len(sizes), 3, height, width), generator=generator(), dtype=torch.uint8)
    labels = torch.randint(0, 5, (len(sizes), height, width), generator=generator(), dtype=torch.uint8)
    return SegmentationData(images, labels, torch.tensor(sizes), [str(i) for i in range(len(sizes))], tuple("abcde"))


def bilinear(image: Tensor, y: float, x: float) -> list[float]:
    """Values of an image (3, h, w) at a position in pixels, the edge repeated beyond it."""
    height, width = image.shape[1:]
    top, left = math.floor(y), math.floor(x)
    total = [0.0, 0.0, 0.0]
    for row, row_weight in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, column_weight in ((left, 1 - (x - left)), (left + 1, x - left)):
            pixel = image[:, min(max(row, 0), height - 1), min(max(column, 0), width - 1)].tolist()
            total = [t + row_weight * column_weight * value for t, value in zip(total, pixel, strict=True)]
    return total


def naive_resize(image: Tensor, labels: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image (3, h, w) and its labels (h, w) at another size: half-pixel centres, bilinear and nearest."""
    new_image, new_labels = torch.zeros(3, height, width), torch.zeros(height, width, dtype=torch.int64)
    h, w = labels.shape
    for row in range(height):
        for column in range(width):
            y, x = (row + 0.5) * h / height, (column + 0.5) * w / width
            new_image[:, row, column] = torch.tensor(bilinear(image, y - 0.5, x - 0.5))
            new_labels[row, column] = labels[(2 * row + 1) * h // (2 * height), (2 * column + 1) * w // (2 * width)]
    return new_image, new_labels


SIZES = [(9, 12), (4, 12), (9, 5), (1, 1)]
NEW_SIZES = [(9, 12), (11, 5), (2, 3), (6, 1), (18, 24), (23, 9), (4, 12), (1, 1)]


def test_gather_resized_reads_what_a_resize_by_loops_gives() -> None:
    data = noise(SIZES)
    pairs = [(image, new) for image in range(len(SIZES)) for new in NEW_SIZES]
    crop = 26
    steps = torch.arange(crop).expand(len(pairs), crop) - 1
    new_sizes = torch.tensor([new for _, new in pairs])
    inside = (steps[:, :, None] >= 0) & (steps[:, None, :] >= 0)
    inside &= (steps[:, :, None] < new_sizes[:, 0, None, None]) & (steps[:, None, :] < new_sizes[:, 1, None, None])
    indices = torch.tensor([image for image, _ in pairs])
    images, labels = gather_resized(data, indices, steps, steps, data.sizes[indices], new_sizes, inside)
    assert images.dtype == torch.uint8 and labels.dtype == torch.uint8
    for place, (number, (height, width)) in enumerate(pairs):
        h, w = SIZES[number]
        true_image, true_labels = naive_resize(
            data.images[number, :, :h, :w], data.labels[number, :h, :w], height, width
        )
        got = images[place, :, 1 : height + 1, 1 : width + 1].double()
        # Weights are rounded to 2 ** -11: at most 255 * 2 * 2 ** -12 beside the exact value, then half a level.
        assert float((got - true_image).abs().max()) <= 0.5 + 255 / 2**11
        assert torch.equal(labels[place, 1 : height + 1, 1 : width + 1], true_labels)
        assert int(images[place][:, ~inside[place]].sum()) == 0 and bool((labels[place][~inside[place]] == 255).all())
        if (height, width) == (h, w):
            assert torch.equal(got, data.images[number, :, :h, :w].double())


def crops(seed: int, **options: object) -> tuple[Tensor, Tensor]:
    indices = torch.tensor([0, 1, 2, 3, 0])
    return sample_crops(noise(SIZES), indices, 7, generator(seed), **options)  # type: ignore[arg-type]


def test_sample_crops_without_jitter_draws_no_further_number() -> None:
    plain, off = generator(4), generator(4)
    first = sample_crops(noise(SIZES), torch.arange(4), 7, plain)
    second = sample_crops(noise(SIZES), torch.arange(4), 7, off, True, (1.0, 1.0), 0.0)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(plain.get_state(), off.get_state())
    coloured = crops(4, colour_jitter=0.5)
    assert torch.equal(coloured[1], crops(4)[1]) and not torch.equal(coloured[0], crops(4)[0])


def test_sample_crops_jitter_depends_on_the_generator_alone() -> None:
    options: dict[str, object] = {"scale_jitter": (0.5, 2.0), "colour_jitter": 0.3}
    torch.manual_seed(1)
    first = crops(2, **options)
    torch.manual_seed(2)
    again, other = crops(2, **options), crops(3, **options)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_sample_crops_scale_jitter_is_a_window_of_the_resized_image() -> None:
    """Every crop is found, mirrored or not, in the image resized to one of the sizes that the factors allow."""
    data = noise([(6, 8)])
    seen = set()
    found, found_labels = sample_crops(data, torch.zeros(40, dtype=torch.int64), 4, generator(), True, (0.75, 1.5))
    sizes = {(round(6 * f / 1000), round(8 * f / 1000)) for f in range(750, 1501)}
    resizes = {new: naive_resize(data.images[0], data.labels[0], *new) for new in sizes}
    for image, labels in zip(found.double(), found_labels, strict=True):
        matches = [
            (new, flipped)
            for new, (true_image, true_labels) in resizes.items()
            for flipped in (False, True)
            for top in range(new[0] - 3)
            for left in range(new[1] - 3)
            if torch.equal(labels.flip(1) if flipped else labels, true_labels[top : top + 4, left : left + 4])
            and float(
                ((image.flip(2) if flipped else image) - true_image[:, top : top + 4, left : left + 4]).abs().max()
            )
            < 0.63
        ]
        assert len(matches) >= 1
        seen.add(matches[0])
    assert {flipped for _, flipped in seen} == {True, False} and len({new for new, _ in seen}) >= 5


def test_sample_crops_scale_jitter_smaller_than_the_crop_is_padded() -> None:
    images, labels = sample_crops(noise([(8, 8)]), torch.zeros(30, dtype=torch.int64), 8, generator(), True, (0.5, 0.5))
    assert bool(((labels != 255).sum(dim=(1, 2)) == 16).all())
    assert int(images.permute(0, 2, 3, 1)[labels == 255].sum()) == 0
    places = {tuple((label != 255).nonzero()[0].tolist()) for label in labels}
    assert len(places) > 8


def test_jitter_colours_is_one_line_per_image_around_its_mean() -> None:
    images = torch.randint(0, 256, (6, 3, 5, 4), generator=generator(), dtype=torch.uint8)
    inside = torch.ones(6, 5, 4, dtype=torch.bool)
    inside[:, 3:] = False
    changed = jitter_colours(images, inside, 0.4, generator(9))
    draw = generator(9)
    factors = [torch.rand(6, generator=draw, dtype=torch.float64) * 0.8 + 0.6 for _ in range(2)]
    assert torch.equal(changed[:, :, 3:], images[:, :, 3:])
    for number in range(6):
        bright, contrast = (float(f[number]) for f in factors)
        values = [int(v) for v in images[number, :, :3].flatten()]
        mean = sum(values) / len(values)
        for value, new in zip(values, changed[number, :, :3].flatten().tolist(), strict=True):
            exact = min(max(bright * (mean + contrast * (value - mean)), 0.0), 255.0)
            assert abs(new - exact) <= 0.5001


def test_jitter_colours_of_a_crop_outside_of_its_image_changes_nothing() -> None:
    images = torch.full((2, 3, 4, 4), 7, dtype=torch.uint8)
    outside = torch.zeros(2, 4, 4, dtype=torch.bool)
    assert torch.equal(jitter_colours(images, outside, 1.0, generator()), images)


@pytest.mark.parametrize("limits", [(2.0, 2.0), (0.5, 1.0)])
def test_sample_crops_factors_stay_within_their_limits(limits: tuple[float, float]) -> None:
    """A 10 x 10 image of ones: the number of its pixels in a large crop is the square of its new side."""
    data = SegmentationData(
        torch.ones(1, 3, 10, 10, dtype=torch.uint8),
        torch.ones(1, 10, 10, dtype=torch.uint8),
        torch.tensor([[10, 10]]),
        ["a"],
        ("a", "b"),
    )
    _, labels = sample_crops(data, torch.zeros(200, dtype=torch.int64), 24, generator(), True, limits)
    sides = (labels == 1).sum(dim=(1, 2)).sqrt()
    assert sides.min() >= 10 * limits[0] and sides.max() <= 10 * limits[1]
    assert set(sides.tolist()) == {float(s) for s in range(int(10 * limits[0]), int(10 * limits[1]) + 1)}
