"""Colour targets against colorsys, the loss against a naive loop, and what the network may see."""

from __future__ import annotations

import colorsys
import math

import pytest
import torch

from engine.config.schema import ModelConfig, ProxyConfig
from engine.models import build_backbone
from engine.proxies import build_proxy
from engine.proxies.colorization import HUE_WEIGHT, Colorization, hue_and_chroma, to_bins

CONFIG = ProxyConfig(head_channels=24, pixels=40, hue_bins=8, chroma_bins=6)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(input: str = "rgb", config: ProxyConfig = CONFIG) -> Colorization:
    model = ModelConfig(backbone="tiny_vgg", width=0.5, input=input)
    return build_proxy(config, build_backbone(model, generator()), generator(1))


def pictures(batch: int = 2, side: int = 48) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 3, side, side), generator=generator(9), dtype=torch.uint8)


def test_hue_and_chroma_random_and_extreme_colours_equal_colorsys() -> None:
    colours = torch.randint(0, 256, (500, 3), generator=generator())
    corners = torch.cartesian_prod(*[torch.tensor([0, 128, 255])] * 3)
    values = torch.cat([colours, corners]).double() / 255
    hue, chroma = hue_and_chroma(values)
    for row, h, c in zip(values.tolist(), hue.tolist(), chroma.tolist(), strict=True):
        difference = abs(h - colorsys.rgb_to_hsv(*row)[0])
        assert min(difference, 1 - difference) < 1e-9
        assert 0 <= h < 1
        assert c == pytest.approx(max(row) - min(row), abs=1e-12)


def test_to_bins_edges_fall_into_first_and_last_bin() -> None:
    values = torch.tensor([0.0, 0.124, 0.125, 0.99, 1.0])
    assert to_bins(values, 8).tolist() == [0, 0, 1, 7, 7]


@pytest.mark.parametrize("input", ["rgb", "gray"])
def test_network_input_recoloured_image_of_equal_gray_is_the_same(input: str) -> None:
    proxy = build(input)
    rgb = pictures()
    rolled = rgb.roll(1, dims=1)
    assert not torch.equal(rgb, rolled)
    assert torch.allclose(proxy.network_input(rgb), proxy.network_input(rolled), atol=1e-6)
    assert proxy.network_input(rgb).shape[1] == proxy.backbone.in_channels


def test_loss_equals_naive_sum_over_pixels() -> None:
    proxy = build().eval()
    for output in (proxy.hue, proxy.chroma):
        torch.nn.init.normal_(output.weight, generator=generator(3))
    rgb = pictures()
    loss, metrics = proxy.loss(rgb, generator(5))
    ys, xs = proxy._pixels(rgb, generator(5))
    with torch.no_grad():
        hue_scores, chroma_scores = proxy.predict(rgb, ys, xs)
    hue_sum = chroma_sum = 0.0
    for b in range(2):
        for p in range(CONFIG.pixels):
            r, g, blue = (rgb[b, :, ys[b, p], xs[b, p]].double() / 255).tolist()
            chroma = max(r, g, blue) - min(r, g, blue)
            hue_bin = min(int(colorsys.rgb_to_hsv(r, g, blue)[0] * 8), 7)
            chroma_bin = min(int(chroma * 6), 5)
            hue_sum -= HUE_WEIGHT * chroma * float(hue_scores[b, p].log_softmax(0)[hue_bin])
            chroma_sum -= float(chroma_scores[b, p].log_softmax(0)[chroma_bin])
    count = 2 * CONFIG.pixels
    assert float(metrics["loss_hue"]) == pytest.approx(hue_sum / count, rel=1e-4)
    assert float(metrics["loss_chroma"]) == pytest.approx(chroma_sum / count, rel=1e-4)
    assert float(loss.detach()) == pytest.approx((hue_sum + chroma_sum) / count, rel=1e-4)


def test_loss_gray_images_leave_hue_out() -> None:
    rgb = pictures()[:, :1].expand(-1, 3, -1, -1)
    proxy = build()
    loss, metrics = proxy.loss(rgb, generator())
    assert float(metrics["loss_hue"]) == 0
    assert float(loss.detach()) == pytest.approx(math.log(CONFIG.chroma_bins), rel=1e-5)  # outputs start at zero


def test_loss_two_steps_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    proxy = build()
    optimiser = torch.optim.SGD(proxy.parameters(), lr=0.1)
    for step in range(2):
        optimiser.zero_grad()
        proxy.loss(pictures(), generator(step))[0].backward()
        optimiser.step()
    dead = [name for name, p in proxy.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_loss_same_generator_state_gives_same_pixels_and_loss() -> None:
    proxy = build().eval()
    torch.nn.init.normal_(proxy.hue.weight, generator=generator(3))
    values = [float(proxy.loss(pictures(), generator(seed))[0].detach()) for seed in (4, 4, 5)]
    assert values[0] == values[1] != values[2]


def test_pixels_keep_off_the_border() -> None:
    proxy = build(config=CONFIG.model_copy(update={"pixels": 4000}))
    for side, edge in ((48, 6), (256, 32), (512, 32)):
        ys, xs = proxy._pixels(torch.zeros(1, 3, side, side, dtype=torch.uint8), generator())
        for values in (ys, xs):
            assert (int(values.min()), int(values.max())) == (edge, side - edge - 1)


def test_training_on_coloured_brightness_learns_the_colour() -> None:
    torch.manual_seed(0)
    proxy = build()
    optimiser = torch.optim.SGD(proxy.parameters(), lr=0.05, momentum=0.9)
    dark_red, light_blue = torch.tensor([120, 0, 0]), torch.tensor([60, 120, 255])
    rgb = torch.where(torch.arange(48)[:, None] < 24, dark_red[:, None, None], light_blue[:, None, None])
    rgb = rgb.expand(2, 3, 48, 48).to(torch.uint8)
    losses = []
    for step in range(30):
        optimiser.zero_grad()
        loss, _ = proxy.loss(rgb, generator(step))
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
