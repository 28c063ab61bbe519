"""Cutting out and resizing patches against a bilinear resize written pixel by pixel, and against OpenCV."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine import host
from engine.data.pipeline import normalise
from engine.mixmatch.host_crops import cut_windows
from engine.mixmatch.patches import crop_patches, sample_patches
from engine.mixmatch.window_cutters import Cutter, opencv, opencv_cutter, torch_cutter
from engine.mixmatch.windows import Patches
from engine.stages.patch_inputs import Buffer, patch_inputs


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_tensors(images: Tensor, patches: Patches, output_size: int = 128, fill: float = 0) -> Tensor:
    """The way of GPUs and of images that want a gradient, on the CPU."""
    cut = crop_patches(images.clone().requires_grad_(), patches, output_size, fill)
    assert cut.requires_grad
    return cut.detach()


def window_by_window(cutter: Callable[[Tensor, Tensor, Tensor], Cutter], layout: torch.memory_format) -> Cut:
    def cut_all(images: Tensor, patches: Patches, output_size: int = 128, fill: float = 0) -> Tensor:
        if cutter is opencv_cutter and opencv() is None:
            pytest.skip("OpenCV is not installed")
        dtype = images.dtype if images.is_floating_point() else torch.float32
        out = torch.empty((len(patches), images.shape[1], output_size, output_size), memory_format=layout)
        out = out.to(torch.promote_types(dtype, torch.float32))
        outside = torch.full((images.shape[1],), float(fill))
        return cut_windows(images.contiguous(memory_format=layout), patches, out, outside, cutter=cutter).to(dtype)

    return cut_all


Cut = Callable[..., Tensor]
EVERY_WAY = {"as it comes": crop_patches, "tensors": by_tensors} | {
    f"{name}, {layout}": window_by_window(cutter, getattr(torch, layout))
    for name, cutter in (("torch", torch_cutter), ("OpenCV", opencv_cutter))
    for layout in ("contiguous_format", "channels_last")
}
WAYS = pytest.mark.parametrize("cut_all", EVERY_WAY.values(), ids=EVERY_WAY.keys())


def pictures(batch: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn((batch, channels, height, width), generator=generator(seed))


def boxes(*rows: tuple[int, int, int, int]) -> Patches:
    """Patches from rows (image, cy, cx, size)."""
    image, cy, cx, size = torch.tensor(rows).unbind(1)
    return Patches(image, cy, cx, size, torch.zeros_like(image))


def cut_out(image: Tensor, cy: int, cx: int, size: int, fill: float) -> Tensor:
    """The window [c - size/2, c + size/2) of an image (C, H, W), ``fill`` where there is no image."""
    window = torch.full((image.shape[0], size, size), fill, dtype=image.dtype)
    for row in range(size):
        for column in range(size):
            y, x = cy - size // 2 + row, cx - size // 2 + column
            if 0 <= y < image.shape[1] and 0 <= x < image.shape[2]:
                window[:, row, column] = image[:, y, x]
    return window


def naive_resize(window: Tensor, side: int) -> Tensor:
    """INTER_LINEAR: half-pixel centres, no antialiasing, the border pixels of the window go on beyond it."""
    channels, size = window.shape[:2]
    result = torch.zeros((channels, side, side), dtype=window.dtype)
    taps = []
    for k in range(side):
        at = (k + 0.5) * size / side - 0.5
        low = math.floor(at)
        taps.append((max(0, min(size - 1, low)), max(0, min(size - 1, low + 1)), at - low))
    for row, (y0, y1, wy) in enumerate(taps):
        for column, (x0, x1, wx) in enumerate(taps):
            upper = window[:, y0, x0] * (1 - wx) + window[:, y0, x1] * wx
            lower = window[:, y1, x0] * (1 - wx) + window[:, y1, x1] * wx
            result[:, row, column] = upper * (1 - wy) + lower * wy
    return result


def naive_crops(images: Tensor, patches: Patches, side: int, fill: float) -> Tensor:
    windows = zip(patches.image.tolist(), patches.cy.tolist(), patches.cx.tolist(), patches.size.tolist(), strict=True)
    return torch.stack([naive_resize(cut_out(images[i], cy, cx, s, fill), side) for i, cy, cx, s in windows])


@st.composite
def windows(draw: st.DrawFn) -> tuple[Tensor, Patches, int, float]:
    batch, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 21)), draw(st.integers(1, 21))
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, batch - 1),
                st.integers(0, height - 1),
                st.integers(0, width - 1),
                st.integers(1, 15).map(lambda half: 2 * half),
            ),
            min_size=1,
            max_size=5,
        )
    )
    images = pictures(batch, 2, height, width, draw(st.integers(0, 99))).double()
    return images, boxes(*rows), draw(st.integers(1, 12)), draw(st.sampled_from([0.0, -1.5]))


@settings(max_examples=60, deadline=None)
@given(case=windows())
def test_crop_patches_any_windows_equal_a_naive_bilinear_resize(case: tuple[Tensor, Patches, int, float]) -> None:
    images, patches, side, fill = case
    expected = naive_crops(images, patches, side, fill)
    for name, cut_all in EVERY_WAY.items():
        if "OpenCV" in name and (opencv() is None or side == 1):
            continue
        if "OpenCV" not in name:
            torch.testing.assert_close(cut_all(images, patches, side, fill), expected, rtol=1e-9, atol=1e-9)
        single = cut_all(images.float(), patches, side, fill)
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)


@WAYS
def test_crop_patches_sampled_batch_equals_a_naive_bilinear_resize(cut_all: Cut) -> None:
    images = pictures(3, 3, 64, 64)
    labels = torch.zeros((3, 64, 64), dtype=torch.int64)
    labels[:, 20:50, 10:60] = 4
    patches = sample_patches(labels, 3, size=(8, 48), generator=generator())
    expected = naive_crops(images, patches, 16, 0.0)
    torch.testing.assert_close(cut_all(images, patches, 16), expected, rtol=1e-5, atol=1e-5)


@WAYS
def test_crop_patches_result_does_not_depend_on_how_patches_are_grouped(cut_all: Cut) -> None:
    images = pictures(3, 2, 20, 20)
    even = boxes((0, 5, 5, 8), (0, 9, 9, 6), (1, 3, 3, 10), (1, 18, 2, 4), (2, 7, 7, 2), (2, 0, 19, 12))
    grouped = cut_all(images, even, 6)
    order = torch.tensor([5, 0, 3, 2, 1, 4])
    mixed = Patches(*(getattr(even, name)[order] for name in ("image", "cy", "cx", "size", "label")))
    assert torch.equal(cut_all(images, mixed, 6), grouped[order])
    uneven = torch.tensor([0, 1, 2])
    few = Patches(*(getattr(even, name)[uneven] for name in ("image", "cy", "cx", "size", "label")))
    assert torch.equal(cut_all(images, few, 6), grouped[uneven])


@WAYS
def test_crop_patches_size_of_the_output_copies_the_pixels(cut_all: Cut) -> None:
    images = torch.randint(0, 256, (1, 3, 64, 64), generator=generator()).float()
    cut = cut_all(images, boxes((0, 20, 30, 16)), output_size=16)
    assert torch.equal(cut[0], images[0, :, 12:28, 22:38])


@WAYS
def test_crop_patches_never_reads_beside_its_window(cut_all: Cut) -> None:
    images = torch.full((1, 1, 32, 32), 1e6)
    images[:, :, 8:24, 4:20] = 1.0
    cut = cut_all(images, boxes((0, 16, 12, 16)), output_size=37)
    torch.testing.assert_close(cut, torch.ones_like(cut))


@WAYS
def test_crop_patches_outside_of_the_image_is_fill(cut_all: Cut) -> None:
    cut = cut_all(torch.ones((1, 1, 8, 8)), boxes((0, 0, 0, 8)), output_size=8, fill=-3.0)
    expected = torch.full((8, 8), -3.0)
    expected[4:, 4:] = 1.0
    assert torch.equal(cut[0, 0], expected)


@WAYS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_crop_patches_half_precision_images_are_read_at_exact_positions(dtype: torch.dtype, cut_all: Cut) -> None:
    ramp = torch.arange(512).remainder(16).to(dtype).expand(1, 1, 512, 512).contiguous()
    patches = boxes((0, 300, 411, 64))
    cut = cut_all(ramp, patches, output_size=32)
    assert cut.dtype == dtype
    assert torch.equal(cut, cut_all(ramp.float(), patches, output_size=32).to(dtype))


@pytest.mark.parametrize("unlabelled", [(), (1,), (0, 3)])
def test_patches_whose_number_an_image_is_known_are_cut_like_any_others(unlabelled: tuple[int, ...]) -> None:
    labels = torch.randint(0, 3, (4, 40, 50), generator=generator(1), dtype=torch.uint8)
    labels[list(unlabelled)] = 255
    patches = sample_patches(labels, 6, size=(4, 20), generator=generator(2))
    assert patches.per_image == 6 and len(patches) == 6 * (4 - len(unlabelled))
    images = pictures(4, 3, 40, 50)
    cut = by_tensors(images, patches, 8, 0.5)
    assert torch.equal(cut, by_tensors(images, replace(patches, per_image=0), 8, 0.5))
    mixed = torch.randperm(len(patches), generator=generator(3))
    assert patches.part(mixed).per_image == 0, "in any order"
    assert torch.equal(cut[mixed], by_tensors(images, patches.part(mixed), 8, 0.5))


def test_crop_patches_uint8_images_are_read_as_float32() -> None:
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=generator(), dtype=torch.uint8)
    patches = boxes((0, 10, 10, 20), (1, 30, 2, 12))
    cut = crop_patches(images, patches, output_size=9)
    assert torch.equal(cut, crop_patches(images.float(), patches, output_size=9))


def test_crop_patches_no_patches_gives_an_empty_batch() -> None:
    empty = Patches(*(torch.zeros(0, dtype=torch.int64) for _ in range(5)))
    cut = crop_patches(torch.zeros((2, 3, 8, 8), dtype=torch.uint8), empty, output_size=5)
    assert cut.shape == (0, 3, 5, 5)
    assert cut.dtype == torch.float32


@WAYS
def test_crop_patches_windows_inside_equal_opencv(cut_all: Cut) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; the naive resize above stands in for it")
    images = torch.randint(0, 256, (2, 3, 256, 256), generator=generator()).float()
    labels = torch.ones((2, 256, 256), dtype=torch.int64)
    patches = sample_patches(labels, 20, size=(30, 200), generator=generator())
    cut = cut_all(images, patches, output_size=128)
    for k in range(len(patches)):
        window = cut_out(images[patches.image[k]], int(patches.cy[k]), int(patches.cx[k]), int(patches.size[k]), 0.0)
        rows = np.ascontiguousarray(window.permute(1, 2, 0).numpy())
        expected = torch.from_numpy(cv2.resize(rows, (128, 128), interpolation=cv2.INTER_LINEAR)).permute(2, 0, 1)
        torch.testing.assert_close(cut[k], expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize(("side", "grey_levels"), [(128, 1e-4), (96, 0.02), (227, 0.02)])
def test_opencv_and_torch_cut_uint8_to_the_same_numbers(side: int, grey_levels: float) -> None:
    """To the rounding of weights, which powers of two do not have."""
    images = torch.randint(0, 256, (2, 3, 256, 256), generator=generator(), dtype=torch.uint8)
    patches = sample_patches(torch.ones((2, 256, 256), dtype=torch.uint8), 30, size=(30, 240), generator=generator())
    ways = [EVERY_WAY[f"{name}, channels_last"](images, patches, side) for name in ("torch", "OpenCV")]
    torch.testing.assert_close(*ways, rtol=0, atol=grey_levels)


@pytest.mark.parametrize("input", ["rgb", "rgb255", "gray"])
def test_patch_inputs_equal_patches_of_images_normalised_first(input: Literal["rgb", "rgb255", "gray"]) -> None:
    """To the rounding of positions to float32, which is less than a hundredth of a grey level."""
    images = torch.randint(0, 256, (3, 3, 40, 50), generator=generator(), dtype=torch.uint8)
    into = Buffer()
    for seed, side in ((0, 16), (1, 24), (2, 9)):
        patches = sample_patches(torch.ones(3, 40, 50, dtype=torch.uint8), 8, size=(4, 70), generator=generator(seed))
        assert {True, False} == set((patches.padding > 0).tolist())
        found = patch_inputs(images, patches, side, input, into)
        # PAPER 1.2: outside there is the mean for rgb, and black for gray.
        fill = -0.4488 if input == "gray" else 0.0
        expected = by_tensors(normalise(images, input).double() - fill, patches, side).float() + fill
        torch.testing.assert_close(found, expected, rtol=0, atol=0.01 if input == "rgb255" else 1e-4)


@pytest.mark.parametrize("on_host", [True, False])
def test_patch_inputs_of_gray_are_those_of_images_on_a_black_table(
    on_host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of an image lies black, by the rule of the release's colorization nets, on a CPU and on a GPU."""
    monkeypatch.setattr(host, "on_host", lambda _: on_host)
    images = torch.randint(0, 256, (2, 3, 40, 50), generator=generator(), dtype=torch.uint8)
    table = torch.zeros((2, 3, 240, 250), dtype=torch.uint8)
    table[:, :, 100:140, 100:150] = images
    patches = sample_patches(torch.ones(2, 40, 50, dtype=torch.uint8), 8, size=(4, 70), generator=generator())
    moved = Patches(patches.image, patches.cy + 100, patches.cx + 100, patches.size, patches.label)
    found = patch_inputs(images, patches, 16, "gray", Buffer())
    expected = by_tensors(normalise(table, "gray").double(), moved, 16).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert float(found.min()) == pytest.approx(-0.4488, abs=1e-6)


@pytest.mark.parametrize("cutter", [torch_cutter, opencv_cutter])
def test_windows_hold_a_colour_outside_of_images(cutter: Callable[[Tensor, Tensor, Tensor], Cutter]) -> None:
    if cutter is opencv_cutter and opencv() is None:
        pytest.skip("OpenCV is not installed")
    images, colour = torch.full((1, 3, 20, 20), 200, dtype=torch.uint8), torch.tensor([10.5, 20.25, 30.0])
    for layout in (torch.contiguous_format, torch.channels_last):
        source, out = images.contiguous(memory_format=layout), torch.empty((8, 3, 16, 16), memory_format=layout)
        # Over each corner, with a side that is outside as well, beside the image altogether, and around it.
        corners = (0, 0, 0, 16), (0, 20, 0, 16), (0, 0, 20, 16), (0, 20, 20, 16)
        windows = boxes(*corners, (0, 60, 10, 16), (0, 10, 10, 48), (0, -38, 10, 16), (0, 10, -60, 16))
        cut = cut_windows(source, windows, out, colour, cutter=cutter) - colour.view(1, 3, 1, 1)
        inside = (cut - (200 - colour.view(1, 3, 1, 1))).abs() < 1e-4
        outside = cut.abs() < 1e-4
        assert inside[0, :, 8:, 8:].all() and outside[0, :, :8].all() and outside[0, :, :, :8].all()
        assert inside[1, :, :8, 8:].all() and outside[1, :, 8:].all() and outside[1, :, :, :8].all()
        assert inside[2, :, 8:, :8].all() and outside[2, :, :8].all() and outside[2, :, :, 8:].all()
        assert inside[3, :, :8, :8].all() and outside[3, :, 8:].all() and outside[3, :, :, 8:].all()
        assert outside[4].all() and outside[6:].all()
        assert outside[5, :, :4].all() and inside[5, :, 6:10, 6:10].all() and outside[5, :, :, 12:].all()


def test_patch_inputs_far_outside_are_zero() -> None:
    images = torch.full((1, 3, 20, 20), 200, dtype=torch.uint8)
    found = patch_inputs(images, boxes((0, 0, 0, 16)), 16, "rgb", Buffer())
    assert bool((found[:, :, 8:, 8:] > 1).all())
    found[:, :, 8:, 8:] = 0
    assert float(found.abs().max()) < 1e-6
