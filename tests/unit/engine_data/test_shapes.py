"""The procedural data set: reproducible, fast, and not solvable by colour."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config.schema import ModelConfig, ShapesData
from engine.data import shapes
from engine.data.check import summarise
from engine.data.dataset import SegmentationData
from engine.data.listings import CLASS_NAMES
from engine.data.pipeline import epoch_indices, normalise, sample_crops
from engine.data.registry import BUILDERS, build_data
from engine.errors import DataError
from engine.models import build_backbone
from engine.models.heads import HypercolumnSegmenter
from tests.work import python_steps

SMALL = ShapesData(height=48, width=64, train=6, val=4)


def test_build_shapes_twice_gives_the_same_bytes() -> None:
    first, second = build_data(SMALL, "train"), build_data(SMALL, "train")
    assert torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels)
    assert first.images.shape == (6, 3, 48, 64) and first.sizes.tolist() == [[48, 64]] * 6
    assert first.names[2] == "train_00002" and first.unlabelled is None


def test_build_shapes_image_depends_on_seed_split_and_index_alone() -> None:
    data = build_data(SMALL, "train")
    longer = build_data(SMALL.model_copy(update={"train": 9, "val": 1}), "train")
    assert torch.equal(data.images, longer.images[:6])
    other = build_data(SMALL.model_copy(update={"data_seed": 1}), "train")
    pictures = [*data.images, *other.images, *build_data(SMALL, "val").images]
    assert len({picture.numpy().tobytes() for picture in pictures}) == len(pictures)


def test_build_shapes_unlabelled_images_are_further_training_images() -> None:
    config = SMALL.model_copy(update={"unlabelled": 5})
    calls: list[tuple[str, int, int]] = []
    data = build_data(config, "train", None, lambda *call: calls.append(call))
    assert data.unlabelled is not None and data.unlabelled.shape == (5, 3, 48, 64)
    assert calls[-1] == ("drawing train images", 11, 11)
    both = torch.cat([data.images, data.unlabelled])
    assert len({picture.numpy().tobytes() for picture in both}) == 11
    assert build_data(config, "val").unlabelled is None


@pytest.mark.parametrize("index", range(8))
def test_draw_takes_no_step_of_python_for_each_row_or_pixel(index: int) -> None:
    def steps(side: int) -> int:
        config = ShapesData(height=side, width=side)
        return python_steps(lambda: shapes.draw(config, "train", index))

    assert steps(192) < steps(96) + 96


def test_build_shapes_over_budget_names_images_and_size() -> None:
    with pytest.raises(DataError, match=r"6 images of 48x64.*data.train"):
        build_data(SMALL, "train", 4 * 6 * 48 * 64 - 1)
    build_data(SMALL, "train", 4 * 6 * 48 * 64)


def test_draw_every_class_occurs_and_background_dominates() -> None:
    report = summarise(ShapesData(train=48, val=16))
    pixels = np.array(report.splits["train"].pixels)
    assert report.classes[0] == "background" and len(pixels) == len(shapes.CLASSES) == 9
    share = pixels / pixels.sum()
    assert 0.4 < share[0] < 0.8 and share[1:].min() > 0.01
    assert report.problems == [] and report.warnings == []


@pytest.mark.parametrize("width", [1, 3])
def test_draw_void_border_covers_exactly_the_pixels_near_another_label(width: int) -> None:
    config = ShapesData(height=40, width=52, void_width=width)
    bare = shapes.draw(config.model_copy(update={"void_width": 0}), "train", 3)[1]
    bordered = shapes.draw(config, "train", 3)[1]
    assert 255 not in bare
    for y in range(40):
        for x in range(52):
            near = bare[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
            assert bordered[y, x] == (255 if (near != bare[y, x]).any() else bare[y, x])


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 200), (130, 33)])
def test_draw_unusual_sizes_work(height: int, width: int) -> None:
    picture, labels = shapes.draw(ShapesData(height=height, width=width, objects=(20, 20)), "val", 0)
    assert picture.shape == (height, width, 3) and labels.shape == (height, width)


def test_draw_object_count_follows_the_setting() -> None:
    empty = shapes.draw(ShapesData(objects=(0, 0)), "train", 0)[1]
    crowded = shapes.draw(ShapesData(objects=(30, 30)), "train", 0)[1]
    assert not empty.any()
    assert (crowded != 0).mean() > 0.6


def test_pairs_share_one_colour_distribution_and_others_do_not() -> None:
    data = build_data(ShapesData(train=150, void_width=2), "train")
    pixels = data.images.permute(0, 2, 3, 1).double() / 255
    means = torch.stack([pixels[data.labels == c].mean(dim=0) for c in range(9)])
    distances = torch.cdist(means, means)
    for one, two in shapes.PAIRS:
        strangers = [c for c in range(1, 9) if c not in (one, two)]
        assert float(distances[one, two]) < 0.5 * float(distances[one, strangers].min())


def mean_iou(prediction: Tensor, labels: Tensor) -> float:
    known = labels != 255
    matrix = torch.bincount(labels[known].long() * 9 + prediction[known].long(), minlength=81).view(9, 9).double()
    return float((matrix.diag() / (matrix.sum(0) + matrix.sum(1) - matrix.diag())).nanmean())


def best_linear_colour_classifier(train: SegmentationData, val: SegmentationData, balanced: bool) -> float:
    """mIoU of a multinomial logistic regression on raw RGB, fitted to convergence."""

    def pixels(data: SegmentationData) -> tuple[Tensor, Tensor]:
        colours = data.images.permute(0, 2, 3, 1).reshape(-1, 3).float() / 64 - 2
        return colours[data.labels.flatten() != 255], data.labels[data.labels != 255].long()

    colours, labels = pixels(train)
    some = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:40_000]
    colours, labels = colours[some], labels[some]
    weights = len(labels) / torch.bincount(labels, minlength=9).float() if balanced else None
    linear = nn.Linear(3, 9)
    optimiser = torch.optim.LBFGS(linear.parameters(), max_iter=60)

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(linear(colours), labels, weight=weights)
        value.backward()
        return value

    optimiser.step(loss)
    colours, labels = pixels(val)
    return mean_iou(linear(colours).argmax(dim=1), labels)


def briefly_trained_network(train: SegmentationData, val: SegmentationData, steps: int) -> float:
    config = ModelConfig(backbone="tiny_vgg", head_channels=96, fc_channels=0, extra_channels=0)
    net = HypercolumnSegmenter(build_backbone(config), 9, config)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    source = torch.Generator().manual_seed(0)
    image = torch.arange(8)[:, None]
    for step in range(steps):
        images, labels = sample_crops(train, epoch_indices(0, step, 8, len(train)), 96, source)
        ys, xs = (torch.randint(0, 96, (8, 128), generator=source) for _ in range(2))
        scores = net.sample_logits(normalise(images, "rgb"), ys, xs)
        optimiser.zero_grad()
        F.cross_entropy(scores.flatten(0, 1), labels[image, ys, xs].flatten(), ignore_index=255).backward()
        optimiser.step()
    return mean_iou(net.eval().dense_logits(normalise(val.images, "rgb"), 2).argmax(dim=1), val.labels)


@pytest.mark.slow
def test_colours_alone_do_not_solve_shapes_but_a_tiny_network_does() -> None:
    torch.manual_seed(0)
    train, val = build_data(ShapesData(), "train"), build_data(ShapesData(), "val")
    linear = max(best_linear_colour_classifier(train, val, balanced) for balanced in (False, True))
    network = briefly_trained_network(train, val, steps=120)
    assert linear < 0.25
    assert network > 0.4 and network > 2 * linear


def test_registry_knows_every_kind_of_the_schema() -> None:
    assert set(BUILDERS) == set(CLASS_NAMES) == {"shapes", "folder", "voc", "cityscapes"}
