"""Networks and losses without numbers, on the device ``meta``: every backbone, head and loss, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.config.backbones import is_timm
from engine.config.schema import ModelConfig, ProxyConfig
from engine.mixmatch.graph import MatchGraph
from engine.mixmatch.loss import contrast_loss, triplet_loss
from engine.models import BUILDERS, DILATED, HEADS, build_backbone, build_head
from engine.proxies import build_proxy
from engine.proxies.info_nce import info_nce
from engine.stages.pixel_losses import pixel_loss

META = torch.device("meta")
CLASSES, BATCH, SIDE, PIXELS = 5, 4, 64, 7
ENCODERS = ("timm/test_convnext", "timm/test_vit", "timm/test_efficientnet", "timm/vit_small_patch14_reg4_dinov2")
BACKBONES = [(name, False) for name in (*BUILDERS, *ENCODERS)] + [
    (name, True) for name in (*DILATED, "timm/test_resnet")
]


class Autocast(torch.autocast):
    """PyTorch knows none for this device; the engine only switches it off."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "meta" else device_type, *args, **kwargs)


@pytest.fixture(autouse=True)
def autocast_knows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", Autocast)


def config(backbone: str, dilated: bool, **keys: Any) -> ModelConfig:
    sizes = {"width": 1.0 if is_timm(backbone) else 0.125, "head_channels": 8, "fc_channels": 8, "extra_channels": 8}
    return ModelConfig.model_validate({"backbone": backbone, "dilated": dilated, **sizes, **keys})


def integers(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64, device=META)


def assert_gradients(module: nn.Module, loss: Tensor) -> None:
    """A scalar in float32, and a gradient of its own shape and type for every parameter, all on the device."""
    assert (loss.shape, loss.dtype, loss.device) == ((), torch.float32, META)
    loss.backward()
    for name, parameter in module.named_parameters():
        grad = parameter.grad
        assert grad is not None and (grad.shape, grad.dtype, grad.device) == (parameter.shape, parameter.dtype, META), (
            name
        )


@pytest.mark.parametrize("channels", ["rgb", "gray"])
@pytest.mark.parametrize(("backbone", "dilated"), BACKBONES)
def test_backbone_has_the_shapes_that_it_says(backbone: str, dilated: bool, channels: str) -> None:
    network = build_backbone(config(backbone, dilated, input=channels)).to(META)
    x = torch.empty((BATCH, network.in_channels, SIDE, SIDE), device=META)
    layers, last = network.features(x)
    assert last.shape[:2] == (BATCH, network.feature_channels) and last.dtype == torch.float32
    assert abs(last.shape[2] - SIDE / network.feature_scale) <= 2
    assert [features.shape[1] for features, _ in layers] == list(network.hyper_channels)
    assert [scale for _, scale in layers] == list(network.hyper_scales)
    embedded = network.embed(x)
    assert embedded.ndim == 2 and len(embedded) == BATCH and embedded.device == META


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("backbone", "dilated"), BACKBONES)
def test_every_head_on_every_backbone_learns(backbone: str, dilated: bool, head: str) -> None:
    keys = config(backbone, dilated, head=head)
    if head == "hypercolumn" and (dilated or "patch14" in backbone):
        pytest.skip("hypercolumns need maps of doubling scale")
    network = build_head(build_backbone(keys), CLASSES, keys).to(META).train()
    x = torch.empty((BATCH, 3, SIDE, SIDE), device=META)
    if network.sparse:
        logits, target = network(x, integers(BATCH, PIXELS), integers(BATCH, PIXELS)), integers(BATCH, PIXELS)
        assert logits.shape == (BATCH, PIXELS, CLASSES)
    else:
        logits, target = network(x), integers(BATCH, SIDE * SIDE)
        assert logits.shape == (BATCH, CLASSES, SIDE, SIDE)
        logits = logits.flatten(2).transpose(1, 2)
    assert (logits.dtype, logits.device) == (torch.float32, META)
    assert_gradients(network, pixel_loss(logits, target))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("head", HEADS)
def test_every_head_predicts_every_pixel(head: str, stride: int) -> None:
    keys = config("tiny_vgg", False, head=head)
    network = build_head(build_backbone(keys), CLASSES, keys).to(META).eval()
    scores = network.dense_logits(torch.empty((BATCH, 3, 50, 70), device=META), stride)
    assert (scores.shape, scores.dtype, scores.device) == ((BATCH, CLASSES, 50, 70), torch.float32, META)


def graph(count: int) -> MatchGraph:
    edges = (integers(count) for _ in range(3))
    return MatchGraph(*edges, torch.ones(count, dtype=torch.bool, device=META), integers(count))


def memory(embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nine remembered embeddings, their labels, and one of them for each node."""
    return torch.empty((9, embeddings.shape[1]), device=META), integers(9), integers(len(embeddings))


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "triplet": lambda x: triplet_loss(x, graph(len(x))),
    "triplet of the release": lambda x: triplet_loss(x, graph(len(x)), normalizer="reference"),
    "info_nce": lambda x: contrast_loss(x, integers(len(x)), graph(len(x))),
    "info_nce with a memory": lambda x: contrast_loss(x, integers(len(x)), graph(len(x)), memory=memory(x)),
    "moco": lambda x: info_nce(x, x.detach(), torch.empty((9, x.shape[1]), device=META), 0.2)[0],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_embeddings(name: str, dtype: torch.dtype) -> None:
    if name == "moco" and dtype == torch.bfloat16:
        pytest.skip("its vectors are float32 always")
    embeddings = torch.empty((6, 10), dtype=dtype, device=META, requires_grad=True)
    loss = LOSSES[name](embeddings)
    assert (loss.shape, loss.dtype, loss.device) == ((), torch.float32, META)
    loss.backward()
    assert embeddings.grad is not None
    assert (embeddings.grad.shape, embeddings.grad.dtype, embeddings.grad.device) == ((6, 10), dtype, META)


@pytest.mark.parametrize("kind", ["colorization", "jigsaw", "rotation", "classification", "moco", "densecl"])
@pytest.mark.parametrize("backbone", [*BUILDERS, *ENCODERS])
def test_every_proxy_task_on_every_backbone_learns(kind: str, backbone: str) -> None:
    sizes = {"queue": 8, "projection": 6, "head_channels": 8, "permutations": 5, "tile": 32, "pixels": 4}
    keys = ProxyConfig.model_validate({"kind": kind, "images": "x", **sizes})
    task = build_proxy(keys, build_backbone(config(backbone, False)), torch.Generator(), 3).to(META).train()
    images = torch.zeros((BATCH, 3, 96, 96), dtype=torch.uint8, device=META)
    generator = torch.Generator()
    loss, metrics = task(task.prepare(images, generator), generator, integers(BATCH))
    assert all(metric.shape == () and metric.device == META for metric in metrics.values())
    trained = getattr(task, "query", task)
    assert_gradients(trained, loss)
    task.after_step()
