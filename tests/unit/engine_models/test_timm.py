"""timm's encoders as backbones: the numbers are timm's own, images may have any size, and names are looked up."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config import Recipe, backbones
from engine.config.schema import ModelConfig, OptimConfig, stored_recipe
from engine.data.pipeline import normalise
from engine.errors import RecipeError
from engine.models import build_backbone
from engine.models.resampling import DeviceFriendly, average
from engine.models.timm_backbone import TimmBackbone, timm_encoder
from engine.models.timm_library import timm
from engine.optim import build_optimiser
from engine.resume import find_position
from tests.unit.engine_run.conftest import Runner, tiny_recipe
from tests.unit.engine_run.test_resume import at

SMALL = ("test_convnext", "test_vit", "test_resnet", "test_efficientnet")
FAMILIES = (*SMALL, "swin_tiny_patch4_window7_224", "vit_small_patch16_dinov3", "vit_small_patch14_reg4_dinov2")


@pytest.fixture(autouse=True)
def loaded() -> None:
    """What a test imports of timm itself is then there, whatever torchvision was built for."""
    timm()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(name: str, **keys: Any) -> TimmBackbone:
    found = build_backbone(ModelConfig(backbone=f"timm/{name}", **keys), generator())
    assert isinstance(found, TimmBackbone)
    return found.eval()


def theirs(ours: TimmBackbone, name: str, **keys: Any) -> nn.Module:
    """timm's own network of the same weights, classifier and all."""
    net: nn.Module = timm().create_model(name, **keys).eval()
    missing, unexpected = net.load_state_dict(ours.net.state_dict(), strict=False)
    assert not unexpected and all(
        key.split(".")[0] in ("head", "fc", "classifier", "conv_head", "bn2") for key in missing
    )
    return net


def for_timm(net: nn.Module, x: Tensor) -> Tensor:
    """An input of ours as timm's network wants it, by way of the pixels that it stands for."""
    cfg = net.pretrained_cfg
    mean, std = (torch.tensor(cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))  # type: ignore[index]
    colour = x * torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1) + torch.tensor((0.485, 0.456, 0.406)).view(
        1, 3, 1, 1
    )
    return (colour - mean) / std


def pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=generator(7), dtype=torch.uint8)


# ---- the same numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_convnext", "test_resnet", "swin_tiny_patch4_window7_224"])
def test_maps_of_a_hierarchical_encoder_are_those_of_features_only(name: str) -> None:
    ours = built(name)
    size = {"strict_img_size": False} if "swin" in name else {}
    net = timm().create_model(name, features_only=True, **size).eval()
    own = {key.replace(".", "_"): value for key, value in ours.net.state_dict().items()}
    state = {key: own[key.replace(".", "_").removeprefix("model_")] for key in net.state_dict()}
    net.load_state_dict(state)
    x = torch.randn(2, 3, 96, 160, generator=generator())
    layers, last = ours.features(x)
    # features_only applies no normalisation, which belongs to the last map alone.
    expected = net(for_timm(ours.net, x))
    for (maps, scale), other in zip(layers[1:-1], expected[:-1], strict=True):
        assert maps.shape[2:] == (96 // scale, 160 // scale)
        maps_nchw = other.permute(0, 3, 1, 2) if other.shape[1] != maps.shape[1] else other
        torch.testing.assert_close(maps, maps_nchw, rtol=1e-4, atol=1e-5)
    assert torch.equal(last, layers[-1][0])


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet", "test_resnet", "swin_tiny_patch4_window7_224"])
def test_last_map_is_what_the_classifier_of_timm_reads(name: str) -> None:
    ours = built(name)
    size = {"strict_img_size": False} if "swin" in name else {}
    net = theirs(ours, name, **size)
    x = torch.randn(2, 3, 96, 128, generator=generator())
    expected = net.forward_features(for_timm(net, x))  # type: ignore[operator]
    if name == "test_efficientnet":  # its features have one convolution more, which belongs to the classifier
        expected = net.forward_intermediates(for_timm(net, x), intermediates_only=True)[-1]  # type: ignore[operator]
    expected = expected.permute(0, 3, 1, 2) if "swin" in name else expected
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch16_dinov3", "vit_small_patch14_reg4_dinov2"])
def test_last_map_of_a_vit_is_its_normalised_tokens(name: str) -> None:
    ours = built(name)
    net = theirs(ours, name, dynamic_img_size=True)
    side = 6 * ours.multiple
    x = torch.randn(2, 3, side, side + ours.multiple, generator=generator())
    tokens = net.forward_features(for_timm(net, x))  # type: ignore[operator]
    tokens = tokens[:, net.num_prefix_tokens :]  # type: ignore[index,misc]
    expected = tokens.transpose(1, 2).unflatten(2, (6, 7))
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-5)


def test_maps_of_a_vit_are_those_after_each_quarter_of_its_blocks() -> None:
    ours = built("vit_small_patch14_reg4_dinov2")
    assert ours.indices == (2, 5, 8, 11) and ours.hyper_scales == [1, 14, 14, 14, 14]
    x, made = torch.randn(1, 3, 42, 42, generator=generator()), []
    for number in ours.indices:
        ours.net.blocks[number].register_forward_hook(lambda _, __, output: made.append(output))  # type: ignore[index,union-attr,operator]
    layers, _ = ours.features(x)
    for (maps, _), output in zip(layers[1:], made, strict=True):
        tokens = ours.net.norm(output)[:, 5:]  # type: ignore[operator]
        torch.testing.assert_close(maps, tokens.transpose(1, 2).unflatten(2, (3, 3)))


@pytest.mark.parametrize("name", FAMILIES)
def test_sizes_that_are_no_multiple_are_padded_and_maps_cut(name: str) -> None:
    ours = built(name)
    x = torch.randn(2, 3, 97, 131, generator=generator())
    padded = torch.zeros(2, 3, -(-97 // ours.multiple) * ours.multiple, -(-131 // ours.multiple) * ours.multiple)
    padded[:, :, :97, :131] = x
    for (maps, scale), (whole, _) in zip(ours.features(x)[0], ours.features(padded)[0], strict=True):
        assert maps.shape[2:] == (-(-97 // scale), -(-131 // scale))
        assert torch.equal(maps, whole[:, :, : maps.shape[2], : maps.shape[3]])


@pytest.mark.parametrize(("mean", "std", "name"), [(0.5, 0.5, "vit_tiny_patch16_224"), (None, None, "test_convnext2")])
def test_encoder_reads_pixels_as_its_weights_were_made_for(mean: float | None, std: float | None, name: str) -> None:
    ours = built(name)
    cfg = ours.net.pretrained_cfg
    means, stds = (torch.tensor(cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))  # type: ignore[index]
    assert mean is None or (float(means[0, 0]), float(stds[0, 0])) == (mean, std)
    net = theirs(ours, name, **({"dynamic_img_size": True} if "vit" in name else {}))
    images = pixels(2, 3, 64, 96)
    expected = net.forward_features((images.float() / 255 - means) / stds)  # type: ignore[operator]
    found = ours(normalise(images, "rgb"))
    if "vit" in name:
        expected = expected[:, 1:].transpose(1, 2).unflatten(2, found.shape[2:])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert ours.input_values()["mean"] == list(cfg["mean"])  # type: ignore[index]


# ---- resampling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(3, 11), (7, 7), (20, 5)])
def test_products_resample_as_interpolate_does(size: tuple[int, int], mode: str, antialias: bool) -> None:
    maps = torch.randn(2, 4, 7, 9, generator=generator(), dtype=torch.float64, requires_grad=True)
    expected = F.interpolate(maps, size=size, mode=mode, antialias=antialias)
    with DeviceFriendly():
        found = F.interpolate(maps, size=size, mode=mode, antialias=antialias)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    weights = torch.randn(expected.shape, generator=generator(1), dtype=torch.float64)
    grads = [torch.autograd.grad((part * weights).sum(), maps)[0] for part in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(4, 4), (5, 10), (9, 7), (2, 3)])
def test_average_is_adaptive_pooling(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, *size, generator=generator())
    torch.testing.assert_close(average(maps, 4), F.adaptive_avg_pool2d(maps, 4))


@pytest.mark.parametrize(
    ("name", "side"), [("test_convnext", 128), ("vit_small_patch14_reg4_dinov2", 128), ("test_vit", 48)]
)
def test_node_feature_is_the_last_map_averaged_to_four_by_four(name: str, side: int) -> None:
    ours = built(name)
    x = torch.randn(2, 3, side, side, generator=generator())
    last = ours(x)
    expected = F.adaptive_avg_pool2d(last, 4) if last.shape[2] > 4 else last
    torch.testing.assert_close(ours.embed(x), expected.flatten(1))


# ---- random weights, layers ------------------------------------------------------------------------------------------


def test_random_weights_depend_on_the_generator_alone_and_leave_the_global_one_be() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = timm_encoder("timm/test_vit", 3, generator()).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    two, other = (timm_encoder("timm/test_vit", 3, generator(seed)).state_dict() for seed in (0, 1))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_hold_all_state_once_in_the_order_of_the_network(name: str) -> None:
    ours = built(name)
    keys = [key for layer in ours.layer_keys() for key in layer]
    assert len(keys) == len(set(keys)) and set(keys) == set(ours.state_dict())
    assert all(layer for layer in ours.layer_keys())


@pytest.mark.parametrize(
    "name", ["convnext_atto", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "efficientnet_lite0"]
)
def test_weight_decay_lets_alone_what_timms_own_groups_do(name: str) -> None:
    from timm.optim import param_groups_weight_decay

    ours = timm_encoder(f"timm/{name}", 3, generator())
    listed = getattr(ours.net, "no_weight_decay", set)()
    alone, decayed = param_groups_weight_decay(ours.net, 0.1, no_weight_decay_list=listed)
    groups = build_optimiser(ours, OptimConfig(optimiser="adamw", weight_decay=0.1)).param_groups
    found = {
        factor: {id(p) for g in groups if g["weight_decay"] == factor for p in g["params"]} for factor in (0.0, 0.1)
    }
    assert found == {0.0: {id(p) for p in alone["params"]}, 0.1: {id(p) for p in decayed["params"]}}


def test_layers_are_those_of_timms_layer_wise_decay() -> None:
    from timm.optim import param_groups_layer_decay

    ours = built("vit_small_patch14_reg4_dinov2")
    scales = {
        id(parameter): group["lr_scale"]
        for group in param_groups_layer_decay(ours.net, layer_decay=0.5)
        for parameter in group["params"]
    }
    layers = ours.layer_keys()
    own = dict(ours.named_parameters())
    for number, layer in enumerate(layers):
        for key in layer:
            assert scales[id(own[key])] == pytest.approx(0.5 ** (len(layers) - 1 - number))
    assert len(layers) == 13


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_gets_a_gradient_from_the_last_map(name: str) -> None:
    ours = built(name).train()
    ours(torch.randn(2, 3, 64, 64, generator=generator())).square().sum().backward()
    assert [key for key, parameter in ours.named_parameters() if parameter.grad is None] == []


def test_gray_images_and_dilation() -> None:
    gray = built("test_resnet", input="gray", dilated=True)
    maps, last = gray.features(torch.randn(1, 1, 64, 64))
    assert last.shape[2:] == (8, 8) and gray.hyper_channels[0] == 1 and [scale for _, scale in maps][-1] == 8


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cait_m36_384", "does not take images of 97 x 131 pixels"),
        ("inception_v3", "gives maps of other sizes than it says"),
        ("test_vit.nothing", "no such tag"),
    ],
)
def test_encoder_that_cannot_be_read_is_refused(name: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        built(name)


def test_encoder_without_a_dilated_form_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"model\.dilated: timm/test_vit has no dilated form"):
        built("test_vit", dilated=True)


def test_names_are_read_from_timms_files_as_timm_lists_them() -> None:
    assert backbones.timm_names() == set(timm().list_models())


def test_unknown_name_is_refused_with_near_ones_and_a_stored_recipe_is_not() -> None:
    with pytest.raises(ValidationError, match=r"timm has no convnext_tinny: .*timm/convnext_tiny"):
        ModelConfig(backbone="timm/convnext_tinny")
    assert stored_recipe({"model": {"backbone": "timm/was_there_once"}}).model.backbone == "timm/was_there_once"


@pytest.mark.parametrize("name", ["timm/", "timm/a b", "timm/../x", "vgg17", 5, None])
def test_what_is_no_name_at_all_is_refused(name: Any) -> None:
    with pytest.raises(ValidationError, match=r"is not allowed; write tiny_vgg \| .* \| timm/NAME"):
        ModelConfig(backbone=name)


@pytest.mark.parametrize(
    ("keys", "words"), [({"width": 0.5}, "model.width 0.5 is not for timm"), ({"input": "rgb255"}, "rgb255 is not for")]
)
def test_keys_that_are_not_for_timm_are_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Recipe.model_validate({"model": {"backbone": "timm/test_vit", **keys}, "segment": {}})


def test_without_timm_names_are_taken_as_they_are_and_training_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backbones.importlib.util, "find_spec", lambda name: None)
    backbones.timm_names.cache_clear()
    timm.cache_clear()
    try:
        assert ModelConfig(backbone="timm/anything").backbone == "timm/anything"
        with pytest.raises(
            RecipeError, match=r"needs timm and torchvision, which are not installed: pip install 'mmtui\[timm\]'"
        ):
            built("test_vit")
    finally:
        backbones.timm_names.cache_clear()


def test_queue_and_own_backbones_load_no_timm() -> None:
    script = (
        "import sys; from engine.config import Recipe; from engine.models import build_backbone;"
        "Recipe.model_validate({'model': {'backbone': 'timm/convnext_tiny'}, 'segment': {}});"
        "from engine.config.schema import ModelConfig; build_backbone(ModelConfig(backbone='tiny_vgg'));"
        "assert not {'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[3])


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_convnext", "test_vit"])
def test_proxy_match_and_segment_train_on_it(name: str, tmp_path: Path) -> None:
    runner = Runner(tmp_path / "run")
    recipe = tiny_recipe(model={"backbone": f"timm/{name}", "head": "fcn", "head_channels": 8})
    assert runner.train(recipe) == "succeeded"
    assert runner.kind("run_started")[0]["values"]["versions"]["timm"] == importlib.metadata.version("timm")
    losses = runner.losses()
    assert {stage for stage, _ in losses} == {"proxy", "match", "segment"}


def test_going_on_with_another_timm_is_told(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "run")
    recipe = tiny_recipe(model={"backbone": "timm/test_vit", "head": "linear"}, proxy=None, match=None)
    assert runner.train(recipe, at("segment", 2)) == "stopped"
    assert find_position(recipe, runner.run_dir).warnings == ()
    (file,) = (runner.run_dir / "checkpoints" / "segment").glob("step_*/meta.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "timm": "0.9.1"}))
    (text,) = find_position(recipe, runner.run_dir).warnings
    assert text.startswith("the checkpoint was made with timm 0.9.1, now there is 1.")


def test_nothing_is_dropped_at_random_in_training() -> None:
    """timm builds Swin with stochastic depth; portions of a batch that are computed again would be others."""
    drops = {type(part).__name__ for part in timm().create_model("swin_tiny_patch4_window7_224").modules()}
    assert "DropPath" in drops
    ours = built("swin_tiny_patch4_window7_224").train()
    x = torch.randn(2, 3, 64, 64, generator=generator())
    with torch.no_grad():
        assert torch.equal(ours(x), ours(x))


def test_encoder_whose_maps_have_other_sizes_than_it_says_is_refused() -> None:
    with pytest.raises(RecipeError, match="gives maps of other sizes than it says"):
        build_backbone(ModelConfig(backbone="timm/legacy_xception"))


def test_one_value_a_channel_is_a_sentence(tmp_path: Path) -> None:
    """Only the encoder knows that it normalises what it has pooled."""
    model = {"backbone": "timm/resnest14d", "head": "linear"}
    recipe = tiny_recipe(proxy=None, match=None, evaluate=None, model=model, segment__batch_size=1)
    with pytest.raises(RecipeError, match="stage segment: one value a channel is too little for batch normalisation"):
        Runner(tmp_path / "run").train(recipe)


def test_one_image_is_enough_where_nothing_is_normalised_over_a_batch(tmp_path: Path) -> None:
    model = {"backbone": "timm/test_vit", "head": "linear", "freeze": "backbone"}
    recipe = tiny_recipe(proxy=None, match=None, evaluate=None, model=model, segment__batch_size=1, segment__steps=1)
    assert Runner(tmp_path / "run").train(recipe) == "succeeded"
