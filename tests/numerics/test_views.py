"""Random views of images against plain loops, and the probabilities they promise."""

from __future__ import annotations

import colorsys
import math

import pytest
import torch
from torch import Tensor

from engine.proxies import views
from engine.proxies.blur import blur
from engine.proxies.colours import jitter, luma, turn_hue
from engine.proxies.views import cut_out, two_views, view


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, side: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=generator(seed), dtype=torch.float64)


def draws(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


def naive_cut_out(image: list[list[float]], draw: list[float]) -> list[list[float]]:
    """One channel, with loops: where each pixel's centre lies in the image, and the mean of its four neighbours."""
    side = len(image)
    area, aspect = 0.2 + 0.8 * draw[0], (3 / 4) ** (1 - draw[1]) * (4 / 3) ** draw[1]
    height, width = min(1.0, math.sqrt(area / aspect)), min(1.0, math.sqrt(area * aspect))
    top, left = draw[2] * (1 - height), draw[3] * (1 - width)

    def value(y: float, x: float) -> float:
        y, x = (min(max(at, 0.0), side - 1.0) for at in (y, x))
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, side - 1), min(x0 + 1, side - 1)
        upper = image[y0][x0] * (1 - (x - x0)) + image[y0][x1] * (x - x0)
        lower = image[y1][x0] * (1 - (x - x0)) + image[y1][x1] * (x - x0)
        return upper * (1 - (y - y0)) + lower * (y - y0)

    found = []
    for row in range(side):
        line = [
            value((top + height * (row + 0.5) / side) * side - 0.5, (left + width * (x + 0.5) / side) * side - 0.5)
            for x in range(side)
        ]
        found.append(line[::-1] if draw[4] < 0.5 else line)
    return found


def test_cut_out_equals_the_loops() -> None:
    images, draw = pictures(6, 9), draws(5, 6)
    found = cut_out(images, draw)
    assert {bool(mirrored) for mirrored in draw[4] < 0.5} == {True, False}
    for image in range(6):
        for channel in range(3):
            wanted = naive_cut_out(images[image, channel].tolist(), draw[:, image].tolist())
            torch.testing.assert_close(found[image, channel], torch.tensor(wanted, dtype=torch.float64))


def test_blur_equals_the_loops() -> None:
    images, deviation, largest = pictures(2, 10)[:, :1], torch.tensor([0.3, 0.9], dtype=torch.float64), 0.9
    found, radius = blur(images, deviation, largest), math.ceil(3 * largest)

    def mirrored(at: int) -> int:
        return -at if at < 0 else 2 * 9 - at if at > 9 else at

    for image in range(2):
        sigma = deviation[image].item()
        weights = {k: math.exp(-(k**2) / (2 * sigma**2)) for k in range(-radius, radius + 1)}
        total = sum(weights.values()) ** 2
        for y in range(10):
            for x in range(10):
                parts = [
                    weights[dy] * weights[dx] * images[image, 0, mirrored(y + dy), mirrored(x + dx)].item()
                    for dy in weights
                    for dx in weights
                ]
                assert found[image, 0, y, x].item() == pytest.approx(math.fsum(parts) / total, abs=1e-9)


def test_blur_of_next_to_no_width_changes_nothing() -> None:
    images = pictures(2, 16).float()
    torch.testing.assert_close(blur(images, torch.tensor([1e-4, 7e-3]), 0.5), images, rtol=1e-6, atol=1e-6)


def test_turn_hue_is_that_of_colorsys() -> None:
    images, turn = pictures(3, 5), torch.tensor([-0.1, 0.03, 0.7], dtype=torch.float64)
    images[0, :, 0, 0] = 0.4  # grey
    found = turn_hue(images, turn)
    for image in range(3):
        for y in range(5):
            for x in range(5):
                hue, saturation, value = colorsys.rgb_to_hsv(*images[image, :, y, x].tolist())
                wanted = colorsys.hsv_to_rgb((hue + turn[image].item()) % 1, saturation, value)
                assert found[image, :, y, x].tolist() == pytest.approx(wanted, abs=1e-9)


def test_jitter_is_brightness_contrast_saturation_hue_one_after_the_other() -> None:
    images, draw = pictures(2, 6), draws(4, 2)
    found = jitter(images, draw)
    for image in range(2):
        bright, contrast, saturation = (1 + 0.4 * (2 * u - 1) for u in draw[:3, image].tolist())

        def cut(value: float) -> float:
            return min(max(value, 0.0), 1.0)

        def gray(rgb: list[float]) -> float:
            return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]

        pixels = [[cut(bright * v) for v in rgb] for rgb in images[image].flatten(1).T.tolist()]
        mean = math.fsum(gray(rgb) for rgb in pixels) / len(pixels)
        pixels = [[cut(mean + contrast * (v - mean)) for v in rgb] for rgb in pixels]
        pixels = [[cut(gray(rgb) + saturation * (v - gray(rgb))) for v in rgb] for rgb in pixels]
        turned = []
        for rgb in pixels:
            hue, chroma, value = colorsys.rgb_to_hsv(*rgb)
            turned.append(colorsys.hsv_to_rgb((hue + 0.1 * (2 * draw[3, image].item() - 1)) % 1, chroma, value))
        torch.testing.assert_close(found[image].flatten(1).T, torch.tensor(turned, dtype=torch.float64))


def test_luma_is_left_as_it_is_by_grey() -> None:
    gray = pictures(2, 4)[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(luma(gray), gray[:, :1])


def test_view_happens_as_often_as_it_says_and_for_each_image_apart() -> None:
    """Each step alone on flat red images: jitter and grey change the colour, mirroring and blur are looked at apart."""
    count = 2000
    red = torch.tensor([0.5, 0.25, 0.25]).view(1, 3, 1, 1).expand(count, 3, 16, 16).contiguous()
    seen = view(red, draws(views.DRAWS, count).float())
    gray = (seen.amax(dim=1) - seen.amin(dim=1)).amax(dim=(1, 2)) < 1e-6
    same = (seen - red).abs().amax(dim=(1, 2, 3)) < 1e-5
    spread = 4 * math.sqrt(0.25 / count)
    assert gray.float().mean().item() == pytest.approx(0.2, abs=spread)
    assert same.float().mean().item() == pytest.approx(0.2 * 0.8, abs=spread)


def test_two_views_are_of_the_generator_alone_and_differ() -> None:
    images = torch.randint(0, 256, (5, 3, 32, 32), generator=generator(), dtype=torch.uint8)
    one, again, other = (two_views(images, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert one.shape == (5, 2, 3, 32, 32) and one.dtype == torch.uint8
    assert all(not torch.equal(pair[0], pair[1]) for pair in one)
    same = two_views(images[:1].expand(5, -1, -1, -1), generator(3))
    assert len({bytes(pair.numpy().tobytes()) for pair in same.flatten(0, 1)}) == 10, "each image has draws of its own"


def test_two_views_of_a_flat_white_image_stay_white() -> None:
    """Nothing comes in over the edges: neither the cut nor the blur knows of black."""
    images = torch.full((40, 3, 32, 32), 255, dtype=torch.uint8)
    seen = two_views(images, generator()).float()
    assert (seen.amax(dim=(2, 3, 4)) - seen.amin(dim=(2, 3, 4))).max() <= 1
