"""What lies outside of images is the same for a network that trains and for one that is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from engine.config.evaluation import EvaluateConfig
from engine.config.schema import Recipe
from engine.data.dataset import SegmentationData
from engine.data.pipeline import normalise
from engine.events import SilentWriter
from engine.stages import Context, build_stage
from engine.stages.protocols import Member, Predictor

Make = Callable[..., Recipe]
HALF_A_LEVEL = 0.5 / 255 / 0.224


class Watcher:
    """A network that keeps what it was shown."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def dense_logits(self, x: Tensor, stride: int = 1) -> Tensor:
        self.seen.append(x)
        return torch.zeros(len(x), 2, *x.shape[2:])


def white(size: tuple[int, int], canvas: tuple[int, int]) -> Tensor:
    image = torch.zeros(1, 3, *canvas, dtype=torch.uint8)
    image[:, :, : size[0], : size[1]] = 255
    return image


def surroundings(x: Tensor) -> Tensor:
    """The network input beside white pictures, (C, pixels)."""
    beside = x[:, 0] < float(normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8), "gray").max()) - 0.1
    return x.transpose(0, 1)[:, beside]


@pytest.mark.parametrize("input", ["rgb", "gray"])
def test_training_and_every_protocol_surround_images_with_the_same(
    tmp_path: Path, make_recipe: Make, monkeypatch: pytest.MonkeyPatch, input: Literal["rgb", "gray"]
) -> None:
    pictures = white((20, 24), (20, 24)).expand(5, -1, -1, -1).clone()
    labels = torch.zeros(5, 20, 24, dtype=torch.uint8)
    data = SegmentationData(pictures, labels, torch.tensor([[20, 24]] * 5), list("abcde"), ("x", "y"))
    monkeypatch.setattr(Context, "data", lambda *_: data)
    recipe = make_recipe(model__input=input, match__patch_size=(28, 32), match__output_size=32)
    wanted = torch.full((3 if input == "rgb" else 1,), 0.0 if input == "rgb" else -0.4488)
    found: dict[str, Tensor] = {}
    for name in ("segment", "match"):
        stage: Any = build_stage(Context(recipe, tmp_path, torch.device("cpu"), SilentWriter(), lambda: False), name)
        shown: list[Tensor] = []
        stage.network.register_forward_pre_hook(lambda _, inputs, shown=shown: shown.append(inputs[0].clone()))
        stage.step(0)
        found[name] = surroundings(shown[0])
    for protocol in ("fit", "windows", "plain"):
        for flip in (False, True):
            config = EvaluateConfig(protocol=protocol, side=32, window_stride=16, flip=flip)  # type: ignore[arg-type]
            watcher = Watcher()
            # ``plain`` surrounds nothing, unless the network can compute nothing so small.
            member = Member(watcher, input, smallest=29)
            Predictor([member], config).classes(white((20, 24), (30, 30)), [(20, 24)])
            found[f"{protocol} {flip}"] = surroundings(torch.cat(watcher.seen))
    for where, values in found.items():
        assert values.numel(), where
        if where != "match":  # patches are resized: at borders they mix
            torch.testing.assert_close(values, wanted[:, None].expand_as(values), rtol=0, atol=HALF_A_LEVEL, msg=where)
    lowest = found["match"].amin(dim=1)
    torch.testing.assert_close(lowest, wanted, rtol=0, atol=HALF_A_LEVEL)
