"""Weight files of others, made here name by name and byte by byte, and what becomes of them."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from engine.__main__ import main
from engine.config.schema import ModelConfig
from engine.errors import CheckpointError
from engine.models import build_backbone
from engine.models.caffemodel import read_caffemodel
from engine.models.weights import load_weights
from tests.unit.engine_models.caffe_files import field, layer

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


FULL_CHECKPOINTS = {
    "MoCo v2": ("module.encoder_q.", ["module.encoder_k."], ["module.queue", "module.queue_ptr"]),
    "MoCo v3": ("module.base_encoder.", ["module.momentum_encoder."], ["module.predictor.0.weight"]),
    "BYOL": ("online_encoder.net.", ["target_encoder.net."], ["online_predictor.net.0.weight"]),
    "DINO": ("teacher.backbone.", ["student.module.backbone."], ["teacher.head.mlp.0.weight", "student.head.x"]),
    "DenseCL": ("backbone.", ["encoder_q.0.", "encoder_k.0."], ["encoder_q.1.fc.weight", "encoder_k.1.x", "queue2"]),
    "OpenSelfSup": ("encoder_q.0.", ["encoder_k.0."], ["encoder_q.1.mlp.0.weight", "queue"]),
    "PixPro": ("module.encoder.", ["module.encoder_k."], ["module.projector_k.linear1.weight", "module.projector.x"]),
    "solo-learn": ("backbone.", ["momentum_backbone."], ["momentum_projector.0.weight", "classifier.weight"]),
    "Lightly": ("backbone.", ["backbone_momentum."], ["projection_head_momentum.layers.0.weight"]),
}


@pytest.mark.parametrize("kind", FULL_CHECKPOINTS)
@pytest.mark.parametrize("other_first", [False, True])
def test_full_checkpoints_give_the_trained_network_and_name_the_rest(
    tmp_path: Path, kind: str, other_first: bool
) -> None:
    prefix, others, heads = FULL_CHECKPOINTS[kind]
    own = random_like(build_backbone(ModelConfig(backbone="resnet18", width=WIDTH), generator()).state_dict())
    trained = {f"{prefix}{name}": value for name, value in own.items()}
    averaged = {f"{other}{name}": value + 1 for other in others for name, value in own.items()}
    rest = {name: torch.zeros(3, 3) for name in heads}
    tensors = {**averaged, **rest, **trained} if other_first else {**trained, **averaged, **rest}
    torch.save({"state_dict": tensors, "epoch": 7}, tmp_path / "full.pth")
    backbone = build_backbone(ModelConfig(backbone="resnet18", width=WIDTH), generator(1))
    report = load_weights(backbone, "resnet18", tmp_path / "full.pth")
    found = backbone.state_dict()
    assert all(torch.equal(found[name], value) for name, value in own.items())
    assert set(report.left_out) == {*averaged, *rest}


def test_two_networks_that_nothing_tells_apart_are_not_mixed(tmp_path: Path) -> None:
    own = random_like(build_backbone(ModelConfig(backbone="resnet18", width=WIDTH), generator()).state_dict())
    tensors = {f"{prefix}{name}": own[name] + n for n, prefix in enumerate(("module.", "net.")) for name in own}
    torch.save(tensors, tmp_path / "two.pth")
    with pytest.raises(CheckpointError, match=r"module\.conv1\.weight and net\.conv1\.weight"):
        backbone_of("resnet18", tmp_path / "two.pth")


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


PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>not here</body></html>\n"
SUFFIXES = (".pth", ".pt", ".safetensors", ".caffemodel", ".caffemodel.h5")
CUT_LETTER = b"x" * 511 + "\u00fc".encode()


@pytest.mark.parametrize(("content", "words"), [
    (PAGE, "is a page of HTML, which servers send in place of a file: download it again"),
    (b"  \n<HTML lang=en>", "is a page of HTML"), (b"<?xml version='1.0'?>", "is a text of XML"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n", "is a pointer of Git LFS"),
    (b"\x1f\x8b\x08rest", "is packed"), (b"", "is empty"), (b"name: \"net\"\nlayer {}\n", "is a text"),
    (CUT_LETTER + b"y", "is a text"), (b"\xff\xfe\xfd", ""),
])  # fmt: skip
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_weights_is_called_what_it_is(tmp_path: Path, suffix: str, content: bytes, words: str) -> None:
    pytest.importorskip("h5py")
    file = tmp_path / f"w{suffix}"
    file.write_bytes(content)
    assert words in refusal(file)


def refusal(file: Path) -> str:
    """The one sentence in which a file is refused; PyTorch's advice is not in it."""
    with pytest.raises(CheckpointError) as caught:
        backbone_of("resnet18", file)
    told = str(caught.value)
    assert told.startswith(str(file)) and "\n" not in told and "\x1b" not in told
    assert "weights_only" not in told and "Weights only" not in told and "miniz" not in told
    return told


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_folder_in_place_of_weights_is_called_one(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("h5py")
    (tmp_path / f"w{suffix}").mkdir()
    assert "is a folder" in refusal(tmp_path / f"w{suffix}")


def test_weights_under_another_name_are_told_theirs(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "w.pth")
    assert "is a safetensors file: end its name in .safetensors" in refusal(tmp_path / "w.pth")
    torch.save({"w": torch.zeros(2)}, tmp_path / "w.safetensors")
    assert "if torch.save wrote it, end its name in .pth" in refusal(tmp_path / "w.safetensors")


def test_refused_pickles_are_told_what_they_hold(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    assert "(it holds torch.nn.modules.linear.Linear, which is no plain tensor)" in refusal(tmp_path / "module.pth")
    (tmp_path / "list.pth").write_bytes(pickle.dumps([1, 2]))
    assert "(it is no file of torch.save, or damaged)" in refusal(tmp_path / "list.pth")
    torch.save({"w": torch.zeros(200)}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:500])
    assert "failed finding central directory): save its state_dict" in refusal(tmp_path / "cut.pth")
    assert not [one for one in recwarn if "pickle protocol" in str(one.message)]


# --- Caffe.


def caffe_alexnet(old: bool = False) -> tuple[bytes, dict[str, Tensor]]:
    """A file with AlexNet's layers for grey input, and what should come of it."""
    config = ModelConfig(backbone="alexnet", width=WIDTH, input="gray")
    own = random_like(build_backbone(config, generator()).state_dict())
    content = field(1, b"AlexNet")
    for number in range(5):
        parts = [own[f"convs.{number}.{part}"] for part in ("weight", "bias")]
        content += layer(f"conv{number + 1}", "Convolution", parts, old)
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
    found = backbone_of("alexnet", tmp_path / "net.caffemodel", input="gray").state_dict()
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
            backbone_of("alexnet", path, input="gray")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_caffemodel_of_random_bytes_never_does_anything_but_refuse(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.mktemp("caffe") / "x.caffemodel"
    path.write_bytes(content)
    try:
        assert read_caffemodel(path)
    except CheckpointError as error:
        assert str(path) in str(error)


# --- Looking into a file: the answer is what training would do.


def test_inspect_decides_as_training_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = build_backbone(ModelConfig(backbone="resnet18", width=WIDTH), generator()).state_dict()
    save_file(own, tmp_path / "all.safetensors")
    save_file({name: own[name] for name in own if name.startswith("layer1.")}, tmp_path / "part.safetensors")
    save_file({name: own[name] for name in own if not name.endswith("tracked")}, tmp_path / "old.safetensors")
    save_file({"nothing": torch.zeros(1)}, tmp_path / "none.safetensors")
    for name, partial in itertools.product(("all", "part", "old", "none"), (False, True)):
        file = tmp_path / f"{name}.safetensors"
        try:
            backbone_of("resnet18", file, weights_partial=partial)
            expected = 0
        except CheckpointError:
            expected = 1
        words = ["weights", "inspect", str(file), "--backbone", "resnet18", "--width", str(WIDTH)]
        assert main([*words, *["--partial"][: int(partial)]]) == expected, (name, partial)
        out, err = capsys.readouterr()
        assert "keys loaded" in out
        assert ("training would refuse" in err) == bool(expected)
        assert ("model.weights_partial=true" in err) == ((name, partial) == ("part", False))


def test_inspect_of_other_networks_answers_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = build_backbone(ModelConfig(backbone="resnet18", width=WIDTH), generator()).state_dict()
    file = tmp_path / "all.safetensors"
    save_file(own, file)
    words = ["weights", "inspect", str(file), "--width", str(WIDTH)]
    assert main([*words, "--backbone", "resnet18", "--dilated"]) == 0
    assert main([*words, "--backbone", "vgg16", "--dilated"]) == 2
    assert "no dilated form" in capsys.readouterr().err
    for width in ("0", "-1", "5", "nan"):
        assert main(["weights", "inspect", str(file), "--backbone", "resnet18", "--width", width]) == 2
        assert capsys.readouterr().err.startswith("error: --width")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("own", [False, True], ids=["torchvision's", "ours"])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float, own: bool) -> None:
    file = tmp_path / ("x.safetensors" if own else "x.pth")
    tensors = torchvision_vgg(False)
    if own:
        tensors = dict(build_backbone(ModelConfig(backbone="vgg16", width=WIDTH), generator(1)).state_dict())
    key = next(name for name, found in tensors.items() if found.dim() == 4)
    tensors[key].view(-1)[3] = value
    save_file(tensors, file) if own else torch.save(tensors, file)
    with pytest.raises(CheckpointError, match="NaN or infinite values in ") as told:
        backbone_of("vgg16", file)
    assert str(file) in str(told.value)
