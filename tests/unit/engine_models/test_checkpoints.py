"""Whole checkpoints of self-supervised training and of trainers, made here with the names that each of them writes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from engine.config.schema import ModelConfig
from engine.errors import CheckpointError
from engine.models import build_backbone
from engine.models.weights import LoadReport, load_weights

WIDTH = 0.0625
Tensors = dict[str, Tensor]


def network(name: str = "resnet18", seed: int = 0) -> Tensors:
    """A backbone's tensors by its own names, all different, also from those of another seed."""
    source = torch.Generator().manual_seed(seed)
    made = build_backbone(ModelConfig(backbone=name, width=WIDTH), source).state_dict()
    return {
        key: torch.rand(value.shape, generator=source) if value.is_floating_point() else torch.tensor(seed + 5)
        for key, value in made.items()
    }


def at(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def some(*names: str) -> Tensors:
    return {name: torch.ones(3, 2) for name in names}


OPTIMIZER = {"state": {0: {"momentum_buffer": torch.zeros(4)}}, "param_groups": [{"lr": 0.03, "params": [0]}]}
Q, K = network(), network(seed=1)
CHECKPOINTS: dict[str, tuple[Callable[[], Any], str, str, int]] = {
    # what is saved, the prefix that is taken, that of a second network, how many other tensors are left over
    "MoCo v2": (
        lambda: {
            "epoch": 200,
            "arch": "resnet50",
            "state_dict": at("module.encoder_q.", Q | some("fc.0.weight", "fc.2.weight"))
            | at("module.encoder_k.", K | some("fc.0.weight", "fc.2.weight"))
            | some("module.queue", "module.queue_ptr"),
            "optimizer": OPTIMIZER,
        },
        "module.encoder_q.",
        "module.encoder_k.",
        4,
    ),
    "MoCo v3": (
        lambda: {
            "state_dict": at("module.base_encoder.", Q | some("fc.0.weight"))
            | at("module.momentum_encoder.", K | some("fc.0.weight"))
            | some("module.predictor.0.weight"),
            "scaler": {"scale": 65536.0},
        },
        "module.base_encoder.",
        "module.momentum_encoder.",
        2,
    ),
    "SwAV": (
        lambda: at("module.", Q | some("projection_head.0.weight", "projection_head.1.bias", "prototypes.weight")),
        "module.",
        "",
        3,
    ),
    "Barlow Twins": (
        lambda: {
            "epoch": 1000,
            "model": at("module.backbone.", Q) | some("module.projector.0.weight", "module.bn.running_mean"),
            "optimizer": OPTIMIZER,
        },
        "module.backbone.",
        "",
        2,
    ),
    "PixPro": (
        lambda: {
            "opt": argparse.Namespace(lr=1.0, arch="resnet50"),
            "model": at("module.encoder.", Q)
            | at("module.encoder_k.", K)
            | some("module.projector.linear1.weight", "module.projector_k.linear1.weight", "module.value.weight"),
            "epoch": 100,
        },
        "module.encoder.",
        "module.encoder_k.",
        3,
    ),
    "torch.compile": (lambda: at("_orig_mod.", Q | some("fc.weight")), "_orig_mod.", "", 1),
    "torch.compile under DDP": (lambda: {"model": at("module._orig_mod.net.", Q)}, "module._orig_mod.net.", "", 0),
    "Lightning": (
        lambda: {
            "state_dict": at("model.backbone.", Q) | some("model.head.weight", "criterion.weight"),
            "hyper_parameters": {"lr": 0.1},
            "pytorch-lightning_version": "2.5.0",
            "optimizer_states": [OPTIMIZER],
            "callbacks": {},
        },
        "model.backbone.",
        "",
        2,
    ),
    "Lightning, a callback with a score": (
        lambda: {
            "callbacks": {"EarlyStopping": {"best_score": torch.tensor(0.5)}},
            "state_dict": at("model.net.", Q),
        },
        "state_dict.model.net.",
        "",
        1,
    ),
    "BYOL": (
        lambda: {
            "online_network_state_dict": at("encoder.", Q) | some("projection.net.0.weight"),
            "target_network_state_dict": at("encoder.", K) | some("projection.net.0.weight"),
            "optimizer_state_dict": OPTIMIZER,
        },
        "online_network_state_dict.encoder.",
        "target_network_state_dict.encoder.",
        2,
    ),
    "BYOL in one module": (
        lambda: at("online_encoder.net.", Q) | at("target_encoder.net.", K) | some("online_predictor.0.weight"),
        "online_encoder.net.",
        "target_encoder.net.",
        1,
    ),
    "BYOL by numbers": (lambda: at("target.", numbered(K)) | at("online.", numbered(Q)), "online.", "target.", 0),
    "DINO": (
        lambda: {
            "student": at("module.backbone.", K) | some("module.head.mlp.0.weight"),
            "teacher": at("backbone.", Q) | some("head.mlp.0.weight"),
            "optimizer": OPTIMIZER,
            "args": argparse.Namespace(arch="resnet50"),
        },
        "teacher.backbone.",
        "student.module.backbone.",
        2,
    ),
    "timm": (lambda: Q | some("fc.weight", "fc.bias"), "", "", 2),
    "timm's trainer": (
        lambda: {"state_dict": Q | some("fc.weight"), "state_dict_ema": K | some("fc.weight"), "arch": "resnet18"},
        "state_dict.",
        "state_dict_ema.",
        1,
    ),
    "torchvision's trainer": (
        lambda: {"model": Q | some("fc.weight"), "model_ema": at("module.", K), "optimizer": OPTIMIZER},
        "model.",
        "model_ema.module.",
        1,
    ),
    "teacher beside a network without a prefix": (lambda: K | at("teacher.", Q), "teacher.", "", len(K)),
    "a wrapper's own words": (lambda: {"optimized_model": at("module.", Q), "optimizers": OPTIMIZER}, "module.", "", 0),
    "solo-learn": (
        lambda: {"state_dict": at("momentum_backbone.", K) | at("backbone.", Q) | some("classifier.weight")},
        "backbone.",
        "momentum_backbone.",
        1,
    ),
}  # fmt: skip


def numbered(tensors: Tensors) -> Tensors:
    """By the places that torchvision's parts have in nn.Sequential(*net.children()): ReLU and pool are 2 and 3."""
    places = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    split = {name: name.split(".", 1) for name in tensors}
    return {f"{places[first]}.{rest}": tensors[name] for name, (first, rest) in split.items()}


def load(path: Path, name: str = "resnet18", **changes: Any) -> tuple[Tensors, LoadReport]:
    backbone = build_backbone(ModelConfig(backbone=name, width=WIDTH), torch.Generator().manual_seed(99))
    report = load_weights(backbone, name, path, **changes)
    return backbone.state_dict(), report


def assert_equal(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoint_gives_the_network_that_the_field_takes_and_tells_the_rest(tmp_path: Path, kind: str) -> None:
    made, prefix, second, over = CHECKPOINTS[kind]
    torch.save(made(), tmp_path / "full.pth")
    found, report = load(tmp_path / "full.pth")
    assert_equal(found, Q)
    notes = " / ".join(report.notes)
    averaged = [name for name in report.left_out if second and name.startswith(second)]
    if second:
        assert f"{prefix}* was taken" in notes and f"{second}* left out ({len(averaged)} tensors)" in notes
        assert len(averaged) >= len(Q)
    assert len(report.left_out) == over + len(averaged)
    if kind == "teacher beside a network without a prefix":
        assert f"teacher.* was taken, names without a prefix left out ({len(K)} tensors)" in notes
    else:
        assert (f"{over} other tensor" in notes) == bool(over)


@pytest.mark.parametrize("kind", [kind for kind, (_, _, second, _) in CHECKPOINTS.items() if second])
def test_network_that_the_field_takes_is_not_replaced_by_the_other_where_it_lacks_something(
    tmp_path: Path, kind: str
) -> None:
    made, prefix, _, _ = CHECKPOINTS[kind]
    content = made()
    lost = remove(content, prefix, "layer2.0.conv1.weight") or remove(content, prefix, "5.0.conv1.weight")
    assert lost
    torch.save(content, tmp_path / "full.pth")
    with pytest.raises(CheckpointError, match=r"missing layer2\.0\.conv1\.weight"):
        load(tmp_path / "full.pth")


def remove(content: Any, prefix: str, name: str) -> bool:
    """Take a tensor out of a checkpoint, by its place in it."""
    for key, value in content.items():
        if key == f"{prefix}{name}":
            del content[key]
            return True
        inner = prefix.removeprefix(f"{key}.") if prefix.startswith(f"{key}.") else prefix
        if (
            isinstance(value, dict)
            and (key in ("state_dict", "model") or inner != prefix)
            and remove(value, inner, name)
        ):
            return True
    return False


def test_tensor_that_is_missing_is_named_with_the_nearest_names_of_the_file(tmp_path: Path) -> None:
    tensors = at("module.encoder_q.", Q) | some("module.queue")
    tensors["module.encoder_q.layer3.1.bn2.beta"] = tensors.pop("module.encoder_q.layer3.1.bn2.bias")
    torch.save({"state_dict": tensors}, tmp_path / "renamed.pth")
    with pytest.raises(CheckpointError, match=r"missing layer3\.1\.bn2\.bias \(nearest.*layer3\.1\.bn2\.beta") as told:
        load(tmp_path / "renamed.pth")
    assert "model.weights_partial=true" in str(told.value)
    save_file({"blocks.0.attn.qkv.weight": torch.ones(1)}, tmp_path / "vit.safetensors")
    with pytest.raises(CheckpointError, match=r"missing bn1\.bias.*nearest.*blocks\.0\.attn"):
        load(tmp_path / "vit.safetensors")


@pytest.mark.parametrize(
    "extra", ["layer1.0.se.fc1.weight", "layer4.2.conv1.weight", "conv1.bias", "layer2.0.bn3.weight"]
)
def test_parts_between_ours_make_it_another_network(tmp_path: Path, extra: str) -> None:
    """All of ours is filled, and the file's network computes something else."""
    torch.save({"state_dict": at("module.", Q | some(extra))}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=f"unexpected {extra}"):
        load(tmp_path / "other.pth")


def test_networks_of_other_widths_in_the_same_file_are_told_apart_by_their_shapes(tmp_path: Path) -> None:
    wide = build_backbone(ModelConfig(backbone="resnet18", width=0.25)).state_dict()
    tensors = at("teacher.", dict(wide)) | at("student.", Q)
    torch.save(tensors, tmp_path / "distilled.pth")
    assert_equal(load(tmp_path / "distilled.pth")[0], Q)


def test_network_of_another_width_is_told_by_its_shapes_and_not_looked_for_elsewhere(tmp_path: Path) -> None:
    """Of half the width, layer2.0.bn1 would fit where bn1 is wanted."""
    torch.save(Q, tmp_path / "thin.pth")
    wide = build_backbone(ModelConfig(backbone="resnet18", width=2 * WIDTH))
    with pytest.raises(CheckpointError, match=r"mismatched bn1\.bias \(4,\) for \(8,\)") as told:
        load_weights(wide, "resnet18", tmp_path / "thin.pth")
    assert "missing" not in str(told.value)


def test_network_that_the_field_takes_is_asked_for_where_much_of_it_is_gone(tmp_path: Path) -> None:
    part = {name: value for name, value in Q.items() if not name.startswith("layer4")}
    torch.save(at("encoder_q.", part) | at("encoder_k.", K), tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match=r"missing layer4\.0\.bn1\.bias"):
        load(tmp_path / "cut.pth")


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_networks_of_other_precision_are_compared(tmp_path: Path, kind: torch.dtype) -> None:
    other = {name: value.to(kind) if value.is_floating_point() else value for name, value in K.items()}
    torch.save(at("one.", Q) | at("two.", other), tmp_path / "two.pth")
    with pytest.raises(CheckpointError, match=r"two networks \(one\.conv1\.weight and two\.conv1\.weight\)"):
        load(tmp_path / "two.pth")


def test_names_of_very_many_parts_are_passed_over(tmp_path: Path) -> None:
    """Each of its ends was a name to look for: 10**12 characters."""
    save_file(at("module.", Q) | some(f"{'a.' * 10**6}b", "c" * 10**6), tmp_path / "long.safetensors")
    assert_equal(load(tmp_path / "long.safetensors")[0], Q)
    save_file({name: value for name, value in at("module.", Q).items() if "bn1" not in name}
              | some(f"{'a.' * 10**6}b", "c" * 10**6), tmp_path / "long.safetensors")  # fmt: skip
    with pytest.raises(CheckpointError, match=r"missing bn1\.bias"):
        load(tmp_path / "long.safetensors")


def test_one_network_that_is_stored_twice_is_one(tmp_path: Path) -> None:
    torch.save(at("backbone.", Q) | at("encoder.0.", Q), tmp_path / "twice.pth")
    assert_equal(load(tmp_path / "twice.pth")[0], Q)


def test_averaged_network_that_is_alone_is_taken(tmp_path: Path) -> None:
    torch.save(at("module.momentum_encoder.", Q) | some("module.queue"), tmp_path / "k.pth")
    assert_equal(load(tmp_path / "k.pth")[0], Q)


PARTS = st.sampled_from(
    (
        *("module", "_orig_mod", "encoder_q", "encoder_k", "momentum_encoder", "queue", "fc", "head", "backbone", "bn"),
        *("layer1", "conv1", "bn1", "features", "0", "stages", "convs", "model", "student", "optimizer"),
    )
) | st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=5)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(PARTS, max_size=5), st.sampled_from(["resnet18", "tiny_vgg", "alexnet", "alexnet_torchvision"]))
def test_any_chain_of_prefixes_gives_back_equal_weights(
    tmp_path_factory: pytest.TempPathFactory, chain: list[str], name: str
) -> None:
    own = network(name)
    path = tmp_path_factory.mktemp("chain") / "net.safetensors"
    prefix = "".join(f"{part}." for part in chain)
    save_file(at(prefix, own) | some("other.weight"), path)
    found, report = load(path, name)
    assert_equal(found, own)
    assert report.left_out == ("other.weight",)


@settings(max_examples=40, deadline=None)
@given(st.lists(PARTS, max_size=3), st.lists(PARTS, max_size=3), st.booleans())
def test_query_and_key_network_are_told_apart_behind_any_chain(
    tmp_path_factory: pytest.TempPathFactory, before: list[str], behind: list[str], first: bool
) -> None:
    head, tail = ("".join(f"{part}." for part in parts) for parts in (before, behind))
    both = [at(f"{head}encoder_q.{tail}", Q), at(f"{head}encoder_k.{tail}", K)]
    path = tmp_path_factory.mktemp("chain") / "net.pth"
    torch.save(both[first] | both[not first], path)
    assert_equal(load(path)[0], Q)


@pytest.mark.parametrize("lost", ["features.1.running_mean", "features.0.weight", "features.4.weight"])
def test_torchvisions_vgg_that_lacks_something_is_refused_in_a_sentence(tmp_path: Path, lost: str) -> None:
    from tests.unit.engine_models.test_foreign import torchvision_vgg

    tensors = at("module.", torchvision_vgg(True))
    torch.save(tensors, tmp_path / "vgg.pth")
    load(tmp_path / "vgg.pth", "vgg16")
    del tensors[f"module.{lost}"]
    torch.save(tensors, tmp_path / "vgg.pth")
    with pytest.raises(CheckpointError, match=r"missing stages\.0\.\d\."):
        load(tmp_path / "vgg.pth", "vgg16")


def test_torchvisions_vgg_of_more_layers_is_another_network(tmp_path: Path) -> None:
    from tests.unit.engine_models.test_foreign import torchvision_vgg

    tensors = torchvision_vgg(True) | some("features.44.weight", "features.44.bias")
    torch.save(tensors, tmp_path / "vgg.pth")
    with pytest.raises(CheckpointError, match=r"unexpected features\.44\.bias"):
        load(tmp_path / "vgg.pth", "vgg16")


def test_checkpoint_that_holds_itself_is_read(tmp_path: Path) -> None:
    content: dict[str, Any] = {"state_dict": at("module.", Q)}
    content["again"] = content
    torch.save(content, tmp_path / "loop.pth")
    assert_equal(load(tmp_path / "loop.pth")[0], Q)
