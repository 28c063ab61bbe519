"""An image is predicted as if it were alone: neither its neighbours in a batch nor what surrounds it change that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from engine.config.evaluation import EvaluateConfig
from engine.config.schema import ModelConfig
from engine.data.pipeline import normalise
from engine.models import Segmenter, build_backbone, build_head
from engine.models.heads import HypercolumnSegmenter
from engine.stages.protocols import Member, Predictor, Size

SIZES: list[Size] = [(40, 56), (56, 40), (33, 47), (56, 56), (10, 12), (40, 56)]
"""Heights and widths; one fills the canvas, one is too small for AlexNet, two are alike."""
CANVAS = (56, 56)
BATCHES = ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 3], [4, 3, 4], [0, 5])
NETWORKS: dict[str, dict[str, Any]] = {
    "hypercolumn": {"backbone": "tiny_vgg", "head": "hypercolumn", "extra_channels": 8},
    "fcn32": {"backbone": "alexnet", "head": "fcn32", "width": 0.125, "input": "gray"},
    "fcn": {"backbone": "resnet18", "head": "fcn", "width": 0.125},
    "aspp": {"backbone": "resnet18", "head": "aspp", "width": 0.125, "dilated": True},
}
TOLERANCES = {"exact": 1e-6, "fp32": 1e-4, "bf16": 0.1}
"""Of scores, relative to the largest one: sums over other numbers of images may be rounded otherwise."""
PROTOCOLS = {
    "plain": {"protocol": "plain", "stride": 2},
    "fit": {"protocol": "fit", "side": 48, "stride": 2},
    "windows": {"protocol": "windows", "side": 32, "window_stride": 16, "batch_size": 2},
}


def model_config(head: str) -> ModelConfig:
    return ModelConfig.model_validate({"head_channels": 16, "fc_channels": 16, "extra_channels": 0, **NETWORKS[head]})


@lru_cache
def network(head: str) -> Segmenter:
    """A random one in evaluation mode that gives every class to about as many pixels."""
    config, source = model_config(head), torch.Generator().manual_seed(4)
    model = build_head(build_backbone(config, source), 4, config, source)
    scorer = model.classifier if isinstance(model, HypercolumnSegmenter) else list(model.head.children())[-1]
    assert isinstance(scorer, nn.Linear | nn.Conv2d)
    nn.init.normal_(scorer.weight, generator=source)
    shown = normalise(torch.stack([picture(number, CANVAS) for number in range(8)]), config.input)
    pixels = torch.arange(CANVAS[0]).expand(len(shown), -1)
    with torch.no_grad():
        for _ in range(30):  # until the running statistics are those of such images
            model(shown, pixels, pixels) if isinstance(model, HypercolumnSegmenter) else model(shown)
        scores = model.eval().dense_logits(shown)
        assert scorer.bias is not None
        scorer.bias -= scores.mean(dim=(0, 2, 3))
    return model


@dataclass
class Watched:
    """A network that keeps what it was shown and what it answered: bytes of an input to its scores."""

    model: Segmenter
    double: bool
    seen: dict[bytes, Tensor] = field(default_factory=dict)

    def dense_logits(self, x: Tensor, stride: int = 1) -> Tensor:
        scores = self.model.dense_logits(x.double() if self.double else x, stride)
        for own, answer in zip(x, scores, strict=True):
            self.seen[str(tuple(own.shape)).encode() + own.numpy().tobytes()] = answer.float()
        return scores


def batch(numbers: Sequence[int], rubbish: int) -> tuple[Tensor, list[Size]]:
    """These images in the upper left corners of canvases of ``rubbish``."""
    sizes = [SIZES[number] for number in numbers]
    images = torch.full((len(numbers), 3, *CANVAS), rubbish, dtype=torch.uint8)
    for image, number, (height, width) in zip(images, numbers, sizes, strict=True):
        image[:, :height, :width] = picture(number, (height, width))
    return images, sizes


def picture(number: int, size: Size) -> Tensor:
    """Coarse patches of colour, uint8 (3, h, w): of noise, deep layers would see but one grey."""
    source = torch.Generator().manual_seed(number)
    colours = torch.randint(0, 256, (3, 5, 5), dtype=torch.uint8, generator=source)
    rows, columns = (torch.arange(side) // 14 for side in size)
    return colours[:, rows[:, None], columns]


def precise(precision: str) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")


def answers(
    watched: Watched, model: ModelConfig, config: EvaluateConfig, precision: str
) -> Iterator[tuple[int, Tensor]]:
    """Image and classes (h, w), from every batch."""
    predictor = Predictor([Member.of(watched, model)], config, lambda: precise(precision))
    for rubbish, numbers in enumerate(BATCHES):
        found = predictor.classes(*batch(numbers, 50 * rubbish))
        assert found.shape == (len(numbers), *CANVAS) and found.dtype == torch.int64
        for number, classes in zip(numbers, found, strict=True):
            height, width = SIZES[number]
            yield number, classes[:height, :width]


@pytest.mark.parametrize("precision", ["exact", "fp32", "bf16"])
@pytest.mark.parametrize(("scales", "flip"), [((1.0,), False), ((1.0, 0.75), True)])
@pytest.mark.parametrize("protocol", ["plain", "fit", "windows"])
@pytest.mark.parametrize("head", list(NETWORKS))
def test_image_beside_any_others_is_predicted_as_alone(
    head: str, protocol: str, scales: tuple[float, ...], flip: bool, precision: Literal["exact", "fp32", "bf16"]
) -> None:
    model = model_config(head)
    config = EvaluateConfig.model_validate({**PROTOCOLS[protocol], "scales": scales, "flip": flip})
    net = deepcopy(network(head)).double() if precision == "exact" else network(head)
    alone, beside = Watched(net, precision == "exact"), Watched(net, precision == "exact")
    lonely = Predictor([Member.of(alone, model)], config, lambda: precise(precision))
    expected = [lonely.classes(picture(number, size)[None], [size])[0] for number, size in enumerate(SIZES)]
    assert len(torch.cat([classes.flatten() for classes in expected]).unique()) > 1, "one answer would prove nothing"
    for number, classes in answers(beside, model, config, precision):
        assert precision != "exact" or torch.equal(classes, expected[number]), number
    assert beside.seen.keys() == alone.seen.keys(), "the network is shown the same, to the bit"
    for key, scores in alone.seen.items():
        error = (beside.seen[key] - scores).abs().max() / scores.abs().max()
        assert error <= TOLERANCES[precision]
