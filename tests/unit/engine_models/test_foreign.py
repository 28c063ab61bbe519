"""Weight files of others, made here name by name and byte by byte, and what becomes of them."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.__main__ import main
from engine.config.schema import ModelConfig
from engine.errors import CheckpointError
from engine.models import build_backbone
from engine.models.caffemodel import read_caffemodel
from tests.unit.engine_run.conftest import Runner, tiny_recipe

WIDTH = 0.0625


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def backbone_of(name: str, weights: Path, **changes: Any) -> torch.nn.Module:
    return build_backbone(ModelConfig(backbone=name, width=WIDTH, weights=str(weights), **changes), generator(1))


def random_like(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    source = generator(7)
    return {
        name: torch.rand(value.shape, generator=source) if value.is_floating_point() else value
        for name, value in tensors.items()
    }


def torchvision_vgg(normalised: bool) -> dict[str, Tensor]:
    """The names and order of torchvision's vgg16_bn and vgg16, at our width."""
    plan, tensors, index, channels = (
        [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512],
        {},
        0,
        3,
    )
    source = generator(3)
    for width in plan:
        if not width:
            index += 1
            continue
        outputs = max(4, round(width * WIDTH))
        tensors[f"features.{index}.weight"] = torch.rand(outputs, channels, 3, 3, generator=source) - 0.5
        tensors[f"features.{index}.bias"] = torch.rand(outputs, generator=source)
        index += 1
        if normalised:
            for part in ("weight", "bias", "running_mean", "running_var"):
                tensors[f"features.{index}.{part}"] = torch.rand(outputs, generator=source) + 0.5
            tensors[f"features.{index}.num_batches_tracked"] = torch.tensor(9)
            index += 1
        index += 1  # ReLU
        channels = outputs
    tensors["classifier.0.weight"] = torch.zeros(4, 4)
    return tensors


def naive_torchvision_vgg(tensors: dict[str, Tensor], x: Tensor, normalised: bool) -> Tensor:
    index = 0
    for count in (2, 2, 3, 3, 3):
        for _ in range(count):
            x = torch.conv2d(x, tensors[f"features.{index}.weight"], tensors[f"features.{index}.bias"], padding=1)
            index += 1
            if normalised:
                p = {k: tensors[f"features.{index}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")}
                x = torch.batch_norm(
                    x, p["weight"], p["bias"], p["running_mean"], p["running_var"], False, 0.1, 1e-5, False
                )
                index += 1
            x = x.relu()
            index += 1
        x = torch.max_pool2d(x, 2)
        index += 1
    return x


@pytest.mark.parametrize("normalised", [True, False])
def test_torchvision_vgg_computes_what_it_computed_there(tmp_path: Path, normalised: bool) -> None:
    tensors = torchvision_vgg(normalised)
    torch.save(tensors, tmp_path / "vgg.pth")
    backbone = backbone_of("vgg16", tmp_path / "vgg.pth").eval()
    x = torch.rand(2, 3, 64, 64, generator=generator(4))
    expected = naive_torchvision_vgg(tensors, x, normalised)
    assert float(expected.abs().max()) > 0
    # Without normalisation ours still divides by sqrt(1 + eps).
    torch.testing.assert_close(backbone(x), expected, rtol=2e-3, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        ("state_dict", "module.encoder_q."),  # MoCo
        ("state_dict", ""),  # DenseCL's extracted backbone
        ("teacher", "module.backbone."),  # DINO
        (None, "backbone."),
    ],
)
def test_self_supervised_resnets_fill_every_key(tmp_path: Path, wrap: str | None, prefix: str) -> None:
    own = random_like(build_backbone(ModelConfig(backbone="resnet50", width=WIDTH), generator()).state_dict())
    theirs = {f"{prefix}{name}": value for name, value in own.items()}
    theirs[f"{prefix}fc.0.weight"] = torch.zeros(3, 3)
    theirs["queue"] = torch.zeros(3, 3)
    torch.save({wrap: theirs, "epoch": 3} if wrap else theirs, tmp_path / "net.pth")
    found = backbone_of("resnet50", tmp_path / "net.pth").state_dict()
    assert all(torch.equal(found[name], value) for name, value in own.items())


def test_files_that_fill_a_part_are_refused_unless_told(tmp_path: Path) -> None:
    own = build_backbone(ModelConfig(backbone="resnet18", width=WIDTH), generator()).state_dict()
    part = {name: value + 1 for name, value in own.items() if name.startswith("layer1.") and value.is_floating_point()}
    save_file(part, tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match=r"missing bn1\.bias.*and \d+ more"):
        backbone_of("resnet18", tmp_path / "part.safetensors")
    found = backbone_of("resnet18", tmp_path / "part.safetensors", weights_partial=True).state_dict()
    fresh = build_backbone(ModelConfig(backbone="resnet18", width=WIDTH), generator(1)).state_dict()
    for name, value in found.items():
        assert torch.equal(value, part.get(name, fresh[name])), name
    save_file({"nothing": torch.zeros(1)}, tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="unexpected nothing"):
        backbone_of("resnet18", tmp_path / "none.safetensors", weights_partial=True)


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (open, ("/tmp/mmtui-evil", "w"))


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"w": Evil()}))
    with pytest.raises(CheckpointError, match="cannot be read as plain tensors"):
        backbone_of("resnet18", tmp_path / "evil.pth")
    assert not Path("/tmp/mmtui-evil").exists()


# --- Caffe: the wire format written out, as protobuf's own documentation describes it.


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, payload: bytes | int) -> bytes:
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def blob(values: Tensor, old: bool) -> bytes:
    data = field(5, struct.pack(f"<{values.numel()}f", *values.flatten().tolist()))
    if old:
        sides = [1] * (4 - values.ndim) + list(values.shape)
        return b"".join(field(number, side) for number, side in zip((1, 2, 3, 4), sides, strict=True)) + data
    return data + field(7, field(1, b"".join(varint(side) for side in values.shape)))


def layer(name: str, kind: str, blobs: list[Tensor], old: bool = False) -> bytes:
    if old:
        body = field(4, name.encode()) + field(5, 4) + b"".join(field(6, blob(values, True)) for values in blobs)
        return field(2, body)
    body = field(1, name.encode()) + field(2, kind.encode()) + field(10, 1)
    return field(100, body + b"".join(field(7, blob(values, False)) for values in blobs))


def caffe_alexnet(old: bool = False) -> tuple[bytes, dict[str, Tensor]]:
    """A file with AlexNet's layers, and what should come of it."""
    own = random_like(build_backbone(ModelConfig(backbone="alexnet", width=WIDTH), generator()).state_dict())
    content = field(1, b"AlexNet")
    for number in range(5):
        weight = own[f"convs.{number}.weight"]
        stored = weight.flip(1) if number == 0 else weight
        content += layer(f"conv{number + 1}", "Convolution", [stored, own[f"convs.{number}.bias"]], old)
        factor = torch.tensor([2.0])
        own[f"norms.{number}.weight_sum"] = factor[0]
        sums = [own[f"norms.{number}.{part}"] * 2 for part in ("running_mean", "running_var")]
        content += layer(f"bn{number + 1}", "BatchNorm", [*sums, factor], old)
    content += layer("fc6", "InnerProduct", [torch.zeros(4, 3), torch.zeros(4)], old)
    return content, own


@pytest.mark.parametrize("old", [False, True])
def test_caffemodel_of_alexnet_fills_every_key(tmp_path: Path, old: bool) -> None:
    content, own = caffe_alexnet(old)
    (tmp_path / "net.caffemodel").write_bytes(content)
    found = backbone_of("alexnet", tmp_path / "net.caffemodel").state_dict()
    assert found.keys() == own.keys()
    for name, value in own.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7, msg=name)


def test_caffemodel_of_the_releases_vgg_fills_every_key(tmp_path: Path) -> None:
    config = ModelConfig(backbone="vgg16", width=WIDTH, input="gray")
    own = random_like(build_backbone(config, generator()).state_dict())
    content = b""
    for name in [key.removesuffix(".conv.weight") for key in own if key.endswith("conv.weight")]:
        content += layer(f"conv_{name}", "Convolution", [own[f"{name}.conv.weight"]])
        parts = [own[f"{name}.bn.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
        content += layer(f"bn_{name}", "BN", [value.view(1, -1, 1, 1) for value in parts])
    (tmp_path / "net.caffemodel").write_bytes(content)
    found = backbone_of("vgg16", tmp_path / "net.caffemodel", input="gray").state_dict()
    assert all(torch.equal(found[name], value) for name, value in own.items())


def test_caffemodel_cut_anywhere_is_refused_in_one_sentence(tmp_path: Path) -> None:
    content, _ = caffe_alexnet()
    path = tmp_path / "cut.caffemodel"
    for end in range(1, len(content), 997):
        path.write_bytes(content[:end])
        with pytest.raises(CheckpointError):
            backbone_of("alexnet", path)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_caffemodel_of_random_bytes_never_does_anything_but_refuse(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.mktemp("caffe") / "x.caffemodel"
    path.write_bytes(content)
    try:
        assert read_caffemodel(path)
    except CheckpointError as error:
        assert str(path) in str(error)


# --- Out of a run, and back.


def test_export_and_back_gives_the_same_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runner = Runner(tmp_path / "run")
    recipe = tiny_recipe(proxy=None, match=None, segment__steps=2, segment__eval_every=0)
    runner.train(recipe)
    out = tmp_path / "net.safetensors"
    assert main(["weights", "export", "--run-dir", str(runner.run_dir), "--out", str(out)]) == 0
    card = json.loads(Path(f"{out}.json").read_text())
    assert (card["backbone"], card["stage"], card["classes"][0]) == ("tiny_vgg", "segment", "background")
    final = load_file(runner.run_dir / "checkpoints" / "segment" / "final" / "model.safetensors")
    found = build_backbone(recipe.model.model_copy(update={"weights": str(out)})).state_dict()
    assert all(torch.equal(value, final[f"backbone.{name}"]) for name, value in found.items())
    capsys.readouterr()
    assert main(["weights", "inspect", str(out), "--backbone", "vgg16"]) == 1
    assert "36 missing" in capsys.readouterr().out


def test_export_of_the_segmenter_computes_the_same_scores(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "run")
    runner.train(tiny_recipe(proxy=None, match=None, segment__steps=2, segment__eval_every=0))
    out = tmp_path / "net.pt2"
    words = ["weights", "export", "--run-dir", str(runner.run_dir), "--out", str(out), "--format", "torch-export"]
    assert main([*words, "--side", "32"]) == 0
    program = torch.export.load(out).module()
    from engine.checkpoint import load_module
    from engine.config.schema import Recipe
    from engine.models import build_head

    folder = runner.run_dir / "checkpoints" / "segment" / "final"
    meta = json.loads((folder / "meta.json").read_text())
    config = Recipe.model_validate(meta["recipe"]).model
    net = build_head(build_backbone(config), len(meta["classes"]), config)
    load_module(folder, net)
    x = torch.rand(1, 3, 32, 32, generator=generator())
    torch.testing.assert_close(program(x), net.eval().dense_logits(x), rtol=1e-4, atol=1e-5)


def test_export_of_an_unfinished_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("safetensors", "torch-export"):
        words = ["weights", "export", "--run-dir", str(tmp_path), "--out", str(tmp_path / "x"), "--format", kind]
        assert main(words) == 1
        assert "to export yet" in capsys.readouterr().err
