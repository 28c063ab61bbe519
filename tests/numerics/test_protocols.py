"""Evaluation protocols against loops over pixels; the network is a small one that knows place and neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from engine.config.evaluation import EvaluateConfig
from engine.config.schema import InputName
from engine.data.pipeline import OUTSIDE, normalise
from engine.errors import RecipeError
from engine.stages.protocols import Member, Predictor, check_protocol, fit_place, nearest, on_grid, window_corners

Array = NDArray[np.float64]
K = 4


class Net:
    """Scores of a pixel from itself, its right neighbour and where it is; dense ones by loops."""

    def __init__(self, seed: int, channels: int = 3) -> None:
        source = np.random.default_rng(seed)
        self.own, self.right = source.normal(size=(2, K, channels))
        self.place = source.normal(size=(K, 2)) / 10
        self.batches: list[tuple[int, ...]] = []

    def at(self, x: Array, row: int, column: int) -> Array:
        right = x[:, row, min(column + 1, x.shape[2] - 1)]
        where = np.sin(self.place @ np.array([row, column]))
        scores: Array = self.own @ x[:, row, column] + np.tanh(self.right @ right) + where
        return scores

    def grid(self, x: Array, stride: int) -> Array:
        rows, columns = range(0, x.shape[1], stride), range(0, x.shape[2], stride)
        return np.stack([np.stack([self.at(x, r, c) for c in columns], 1) for r in rows], 1)

    def dense(self, x: Array, stride: int) -> Array:
        return spread(self.grid(x, stride), stride, x.shape[1:])

    def dense_logits(self, x: Tensor, stride: int = 1) -> Tensor:
        self.batches.append(tuple(x.shape))
        return torch.from_numpy(np.stack([self.dense(image, stride) for image in x.double().numpy()])).float()


def spread(grid: Array, stride: int, size: tuple[int, ...]) -> Array:
    """Point i of the grid is pixel i * stride; bilinear between points, the last one's value beyond it."""
    result = np.zeros((len(grid), *size))
    for row in range(size[0]):
        for column in range(size[1]):
            result[:, row, column] = mixed(grid, row / stride, column / stride)
    return result


def stretched(x: Array, size: tuple[int, int]) -> Array:
    """Bilinear with half-pixel centres, edges repeated."""
    result = np.zeros((len(x), *size))
    for row in range(size[0]):
        for column in range(size[1]):
            y = max(0.0, (row + 0.5) * x.shape[1] / size[0] - 0.5)
            z = max(0.0, (column + 0.5) * x.shape[2] / size[1] - 0.5)
            result[:, row, column] = mixed(x, y, z)
    return result


def mixed(x: Array, y: float, z: float) -> Array:
    """Value between four pixels."""
    y, z = min(y, x.shape[1] - 1), min(z, x.shape[2] - 1)
    y0, z0 = int(y), int(z)
    y1, z1 = min(y0 + 1, x.shape[1] - 1), min(z0 + 1, x.shape[2] - 1)
    upper = x[:, y0, z0] * (1 - (z - z0)) + x[:, y0, z1] * (z - z0)
    lower = x[:, y1, z0] * (1 - (z - z0)) + x[:, y1, z1] * (z - z0)
    between: Array = upper * (1 - (y - y0)) + lower * (y - y0)
    return between


def probabilities(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=0, keepdims=True))
    shares: Array = powers / powers.sum(axis=0, keepdims=True)
    return shares


def half_up(value: float) -> int:
    return math.floor(value + 0.5)


def views(config: EvaluateConfig) -> list[tuple[float, bool]]:
    return [(scale, flip) for scale in config.scales for flip in ((False, True) if config.flip else (False,))]


def dense_view(net: Net, x: Array, stride: int, flip: bool) -> Array:
    scores = net.dense(x[:, :, ::-1] if flip else x, stride)
    return scores[:, :, ::-1] if flip else scores


# ---- the protocols, naively; image float (C, h, w) after normalisation, without padding ----------------------------


def plain(nets: list[Net], image: Array, config: EvaluateConfig) -> Array:
    height, width = image.shape[1:]
    total = np.zeros((K, height, width))
    for net in nets:
        for scale, flip in views(config):
            size = (max(1, half_up(height * scale)), max(1, half_up(width * scale)))
            view = dense_view(net, stretched(image, size), config.stride, flip)
            total += stretched(probabilities(view), (height, width))
    return total.argmax(axis=0)


def fitted(nets: list[Net], image: Array, config: EvaluateConfig) -> Array:
    cells = picture_cells(image, config.side, config.stride)[1]
    total = np.zeros((K, len(cells[0]), len(cells[1])))
    for net in nets:
        for scale, flip in views(config):
            square, (rows, columns) = picture_cells(image, half_up(config.side * scale), config.stride)
            scores = dense_view(net, square, config.stride, flip)
            shares = probabilities(np.stack([scores[:, row, columns] for row in rows], axis=1))
            total += stretched(shares, (len(cells[0]), len(cells[1])))
    return resized_by_nearest(total.argmax(axis=0), image.shape[1:])


def picture_cells(image: Array, side: int, stride: int) -> tuple[Array, tuple[list[int], list[int]]]:
    """The square that holds the resized picture, and the grid's rows and columns (pixels) that lie on it."""
    longest = max(image.shape[1:])
    height, width = (half_up(float(Fraction(length * side, longest))) for length in image.shape[1:])
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((len(image), side, side))
    square[:, top : top + height, left : left + width] = stretched(image, (height, width))
    rows = [row for row in range(0, side, stride) if top <= row < top + height]
    columns = [column for column in range(0, side, stride) if left <= column < left + width]
    return square, (rows, columns)


def resized_by_nearest(classes: Array, size: tuple[int, ...]) -> Array:
    """The cell into which a pixel's centre falls, in exact fractions."""
    result = np.zeros(size, dtype=classes.dtype)
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = (
                math.floor(Fraction(2 * at + 1, 2) * Fraction(old, new))
                for at, old, new in zip((row, column), classes.shape, size, strict=True)
            )
            result[row, column] = classes[y, x]
    return result


def windowed(nets: list[Net], image: Array, config: EvaluateConfig) -> Array:
    height, width = image.shape[1:]
    total = np.zeros((K, height, width))
    for net in nets:
        for scale in config.scales:
            view = stretched(image, (half_up(height * scale), half_up(width * scale)))
            total += stretched(window_mean(net, view, config), (height, width))
    return total.argmax(axis=0)


def window_mean(net: Net, image: Array, config: EvaluateConfig) -> Array:
    side, stride, (height, width) = config.side, config.stride, image.shape[1:]
    padded = np.zeros((len(image), max(side, height), max(side, width)))
    padded[:, :height, :width] = image
    total, count = np.zeros((K, *padded.shape[1:])), np.zeros(padded.shape[1:])
    for top in window_starts(padded.shape[1], side, config.window_stride):
        for left in window_starts(padded.shape[2], side, config.window_stride):
            here = (slice(top, top + side), slice(left, left + side))
            for flip in (False, True) if config.flip else (False,):
                scores = dense_view(net, padded[:, *here], stride, flip)
                total[:, *here] += spread(probabilities(scores[:, ::stride, ::stride]), stride, (side, side))
                count[here] += 1
    return (total / count)[:, :height, :width]


def window_starts(length: int, side: int, step: int) -> list[int]:
    """Go on by ``step`` until a window would leave the image; that one is moved back to its border."""
    starts, at = [], 0
    while at + side < length:
        starts.append(at)
        at += step
    return [*starts, length - side]


# ---- comparison ----------------------------------------------------------------------------------------------------


def batch(sizes: list[tuple[int, int]], seed: int = 0) -> Tensor:
    """Images in the upper left corner, rubbish beside them."""
    height, width = (max(side) for side in zip(*sizes, strict=True))
    source = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (len(sizes), 3, height, width), dtype=torch.uint8, generator=source)


def own_pixels(images: Tensor, sizes: list[tuple[int, int]], index: int) -> Array:
    height, width = sizes[index]
    pixels: Array = normalise(images[index : index + 1, :, :height, :width], "rgb")[0].double().numpy()
    return pixels


def predicted(nets: list[Net], config: EvaluateConfig, images: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
    return Predictor([Member(net, "rgb") for net in nets], config).classes(images, sizes)


Oracle = Callable[[list[Net], Array, EvaluateConfig], Array]


def compare(config: EvaluateConfig, sizes: list[tuple[int, int]], nets: list[Net], oracle: Oracle) -> None:
    images = batch(sizes)
    found = predicted(nets, config, images, sizes)
    assert found.shape == (len(sizes), *images.shape[2:]) and found.dtype == torch.int64
    for index, (height, width) in enumerate(sizes):
        expected = oracle(nets, own_pixels(images, sizes, index), config)
        assert len(np.unique(expected)) > 1, "a constant picture would prove nothing"
        assert np.array_equal(found[index, :height, :width].numpy(), expected)


SIZES = [(9, 14), (13, 8), (10, 10)]
VARIANTS = [((1.0,), False), ((1.0,), True), ((0.75, 1.0, 1.5), False), ((1.3,), True)]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("scales", "flip"), VARIANTS)
def test_fit_equals_loops_over_pixels(stride: int, scales: tuple[float, ...], flip: bool) -> None:
    config = EvaluateConfig(protocol="fit", side=16, stride=stride, scales=scales, flip=flip)
    compare(config, SIZES, [Net(1)], fitted)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("scales", "flip"), VARIANTS)
def test_windows_equal_loops_over_pixels(stride: int, scales: tuple[float, ...], flip: bool) -> None:
    sizes = [(9, 31), (21, 16), (17, 20)]
    options = {"side": 16, "window_stride": 8, "batch_size": 2}
    config = EvaluateConfig(protocol="windows", stride=stride, scales=scales, flip=flip, **options)
    compare(config, sizes, [Net(2)], windowed)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("scales", "flip"), VARIANTS)
def test_plain_equals_loops_over_pixels(stride: int, scales: tuple[float, ...], flip: bool) -> None:
    compare(EvaluateConfig(stride=stride, scales=scales, flip=flip), SIZES, [Net(3)], plain)


def test_plain_is_the_argmax_of_dense_logits_and_nothing_else() -> None:
    sizes = [(13, 14)] * 3
    images, net = batch(sizes), Net(4)
    found = predicted([net], EvaluateConfig(stride=2), images, sizes)
    assert net.batches == [(3, 3, 13, 14)], "all images in one pass"
    assert torch.equal(found, net.dense_logits(normalise(images, "rgb"), 2).argmax(dim=1))


def test_plain_images_of_one_size_pass_the_network_together_and_keep_their_places() -> None:
    sizes, net = [(9, 14), (13, 8), (9, 14), (10, 10), (13, 8)], Net(4)
    compare(EvaluateConfig(stride=2), sizes, [net], plain)
    assert net.batches == [(2, 3, 9, 14), (2, 3, 13, 8), (1, 3, 10, 10)]


@pytest.mark.parametrize("protocol", ["plain", "fit"])
@pytest.mark.parametrize("input", ["rgb", "gray"])
def test_image_too_small_for_a_network_is_surrounded_by_what_lies_outside_of_images(
    protocol: str, input: InputName
) -> None:
    net, images = Recorder(), batch([(9, 20)])
    config = EvaluateConfig(protocol=protocol, side=20, stride=1, flip=True, scales=(0.9,))  # type: ignore[arg-type]
    found = Predictor([Member(net, input, smallest=19)], config).classes(images, [(9, 20)])
    assert found.shape == (1, 9, 20)
    assert [x.shape[2:] for x in net.inputs] == [(19, 19)] * 2
    for x, there in zip(net.inputs, (slice(0, 18), slice(1, 19)), strict=True):
        outside = torch.ones_like(x, dtype=torch.bool)
        outside[:, :, : 8 if protocol == "plain" else 18, there] = False
        assert torch.equal(x[outside].unique(), torch.tensor([OUTSIDE[input]]))
        assert x[~outside].std() > 0.1


@pytest.mark.parametrize("protocol", ["plain", "fit", "windows"])
def test_ensemble_adds_probabilities_of_all_networks(protocol: str) -> None:
    config = EvaluateConfig(protocol=protocol, side=16, window_stride=8, stride=2)  # type: ignore[arg-type]
    nets, sizes = [Net(5), Net(6)], [(12, 17), (9, 13)]
    compare(config, sizes, nets, {"plain": plain, "fit": fitted, "windows": windowed}[protocol])
    images = batch(sizes)
    together = predicted(nets, config, images, sizes)
    alone = [predicted([net], config, images, sizes) for net in nets]
    assert all(not torch.equal(together, one) for one in alone), "each network has a say"
    assert torch.equal(predicted([nets[0], nets[0]], config, images, sizes), alone[0])


def test_ensemble_feeds_each_network_its_own_input() -> None:
    config = EvaluateConfig(stride=1)
    gray, rgb, images = Net(7, channels=1), Net(8), batch([(9, 9)])
    found = Predictor([Member(gray, "gray"), Member(rgb, "rgb")], config).classes(images, [(9, 9)])
    shares = [
        probabilities(net.dense(normalise(images, input)[0].double().numpy(), 1))  # type: ignore[arg-type]
        for net, input in ((gray, "gray"), (rgb, "rgb"))
    ]
    assert np.array_equal(found[0].numpy(), (shares[0] + shares[1]).argmax(axis=0))


@pytest.mark.parametrize("protocol", ["plain", "fit", "windows"])
def test_what_lies_beside_an_image_and_its_neighbours_in_the_batch_never_count(protocol: str) -> None:
    config = EvaluateConfig(protocol=protocol, side=16, window_stride=8, stride=2, scales=(1.0, 0.8), flip=True)  # type: ignore[arg-type]
    images, net = batch(SIZES), Net(9)
    together = predicted([net], config, images, SIZES)
    for index, (height, width) in enumerate(SIZES):
        alone = images[index : index + 1, :, :height, :width]
        found = predicted([net], config, alone, [(height, width)])
        assert torch.equal(found[0], together[index, :height, :width])


def test_prediction_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    for protocol in ("plain", "fit", "windows"):
        config = EvaluateConfig(protocol=protocol, side=16, window_stride=8, scales=(0.9,), flip=True)
        predicted([Net(1)], config, batch([(9, 9)]), [(9, 9)])
    assert torch.equal(torch.get_rng_state(), before)


# ---- geometry ------------------------------------------------------------------------------------------------------


def test_windows_of_a_cityscapes_image_are_21_and_end_at_its_borders() -> None:
    corners = window_corners((1024, 2048), 512, 256)
    assert sorted({top for top, _ in corners}) == [0, 256, 512]
    assert sorted({left for _, left in corners}) == [0, 256, 512, 768, 1024, 1280, 1536]
    assert len(corners) == len(set(corners)) == 21


@settings(max_examples=100, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), side=st.integers(1, 40), step=st.integers(1, 40))
def test_windows_cover_every_pixel_once_at_least(height: int, width: int, side: int, step: int) -> None:
    step = min(step, side)
    corners = window_corners((height, width), side, step)
    rows, columns = (window_starts(max(length, side), side, step) for length in (height, width))
    assert corners == [(top, left) for top in rows for left in columns]
    covered = np.zeros((max(height, side), max(width, side)), dtype=int)
    for top, left in corners:
        assert top + side <= covered.shape[0] and left + side <= covered.shape[1]
        covered[top : top + side, left : left + side] += 1
    assert covered.min() >= 1


class Recorder:
    """A network of one multiplication that notes what it is given."""

    def __init__(self) -> None:
        self.inputs: list[Tensor] = []

    def dense_logits(self, x: Tensor, stride: int = 1) -> Tensor:
        self.inputs.append(x)
        return x[:, :2].contiguous()


def test_windows_of_a_full_image_pass_the_network_a_few_at_a_time() -> None:
    images = torch.zeros((1, 3, 1024, 2048), dtype=torch.uint8)
    images[:, 0] = 150
    images[:, 1, 300:, 700:] = 255
    net = Recorder()
    config = EvaluateConfig(protocol="windows", batch_size=4, stride=2)
    found = Predictor([Member(net, "rgb")], config).classes(images, [(1024, 2048)])
    assert [x.shape for x in net.inputs] == [(4, 3, 512, 512)] * 5 + [(1, 3, 512, 512)]
    expected = torch.zeros((1024, 2048), dtype=torch.int64)
    expected[300:, 700:] = 1
    assert torch.equal(found[0], expected)


def test_fit_of_a_voc_image_is_the_releases_grid() -> None:
    place = fit_place((375, 500), 512)
    assert (place.height, place.width, place.top, place.left) == (384, 512, 64, 0)
    assert on_grid(place, 512, 2) == (slice(32, 224), slice(0, 256))


@settings(max_examples=100, deadline=None)
@given(size=st.tuples(st.integers(1, 300), st.integers(1, 300)), side=st.integers(16, 64), step=st.integers(1, 16))
def test_fit_of_any_image_lies_in_its_square_and_has_grid_points(size: tuple[int, int], side: int, step: int) -> None:
    place = fit_place(size, side)
    assert max(place.height, place.width) == side and min(place.height, place.width) >= 1
    for start, length, cut in zip(
        (place.top, place.left), (place.height, place.width), on_grid(place, side, step), strict=True
    ):
        assert start == (side - length) // 2
        on_picture = [i for i in range(-(-side // step)) if start <= i * step < start + length]
        assert list(range(cut.start, cut.stop)) == on_picture or (not on_picture and cut.stop - cut.start == 1)
        assert cut.stop <= -(-side // step)


@settings(max_examples=60, deadline=None)
@given(
    old=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    new=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_nearest_takes_the_cell_under_each_centre(old: tuple[int, int], new: tuple[int, int]) -> None:
    classes = np.arange(old[0] * old[1]).reshape(old)
    assert np.array_equal(nearest(torch.from_numpy(classes), new).numpy(), resized_by_nearest(classes, new))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "windows", "side": 64, "window_stride": 65}, r"evaluate\.window_stride 65 .* at most 64"),
        ({"scales": (1.0, -0.5)}, r"evaluate\.scales holds -0\.5: write resize factors above 0"),
        ({"scales": (0.0,)}, r"evaluate\.scales holds 0"),
    ],
)
def test_settings_that_contradict_each_other_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_protocol(EvaluateConfig.model_validate(options))


def test_a_window_stride_beyond_the_side_is_fine_where_there_are_no_windows() -> None:
    check_protocol(EvaluateConfig(protocol="fit", side=64, window_stride=256))
