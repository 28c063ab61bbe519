"""Weights for encoders of timm: state dicts of timm, DINO, DINOv2, MAE, MoCo v3, Lightning; and timm's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from engine.config import Recipe, dump_recipe, load_recipe
from engine.config.schema import ModelConfig
from engine.errors import CheckpointError
from engine.models import build_backbone
from engine.models.export import export_backbone
from engine.models.timm_library import timm
from engine.models.weights import LoadReport
from engine.stage_cache import stage_inputs
from tests.unit.engine_run.conftest import Runner, tiny_recipe

ROOT = Path(__file__).parents[3]
State = dict[str, Tensor]


def random_state(name: str, **keys: Any) -> State:
    """A state dict of timm's network, with random numbers everywhere."""
    torch.manual_seed(11)
    found: State = timm().create_model(name, **keys).state_dict()
    return {key: torch.randn(value.shape) if value.is_floating_point() else value for key, value in found.items()}


def loaded(name: str, file: Path, **keys: Any) -> tuple[State, LoadReport]:
    reports: list[LoadReport] = []
    config = ModelConfig(backbone=f"timm/{name}", weights=str(file), **keys)
    return build_backbone(config, torch.Generator().manual_seed(0), reports.append).state_dict(), reports[0]


def saved(content: Any, tmp_path: Path) -> Path:
    file = tmp_path / "weights.pth"
    torch.save(content, file)
    return file


def assert_loaded(found: State, theirs: State, *, but: tuple[str, ...] = ()) -> None:
    for key, value in found.items():
        if key.removeprefix("net.") not in but:
            assert torch.equal(value, theirs[key.removeprefix("net.")]), key


HEADED = {
    "plain": lambda state: state,
    "DINO": lambda state: {
        "student": {f"module.backbone.{key}": value + 1 for key, value in state.items()},
        "teacher": {f"backbone.{key}": value for key, value in state.items()} | {"head.mlp.0.weight": torch.ones(3)},
    },
    "MAE": lambda state: {
        "model": {**state, "mask_token": torch.ones(1, 1, 9), "decoder_blocks.0.norm1.weight": torch.ones(5)}
    },
    "MoCo v3": lambda state: {
        "state_dict": {f"module.base_encoder.{key}": value for key, value in state.items()}
        | {f"module.momentum_encoder.{key}": value + 1 for key, value in state.items()}
        | {"module.predictor.0.weight": torch.ones(3, 3)}
    },
    "Lightning": lambda state: {
        "state_dict": {f"model.encoder.{key}": value for key, value in state.items()},
        "epoch": 3,
    },
}


@pytest.mark.parametrize("kind", HEADED)
@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
def test_state_dict_fills_the_encoder_whatever_is_around_it(name: str, kind: str, tmp_path: Path) -> None:
    state = random_state(name)
    wrap: Callable[[State], Any] = HEADED[kind]
    found, report = loaded(name, saved(wrap(state), tmp_path))
    assert report.complete
    assert_loaded(found, state)
    told = " ".join((*report.left_out, *report.notes))
    left = {"DINO": "head.mlp.0.weight", "MAE": "mask_token", "MoCo v3": "module.predictor.0.weight"}
    assert left.get(kind, "") in told
    assert any("head" in key or "classifier" in key for key in report.left_out), "the classifier is told"


RESNETS = {
    "MoCo v2": lambda state: {
        "state_dict": {f"module.encoder_q.{key}": value for key, value in state.items()}
        | {f"module.encoder_k.{key}": value + 1 for key, value in state.items()}
        | {"module.queue": torch.ones(4, 4)}
    },
    "SwAV": lambda state: (
        {f"module.{key}": value for key, value in state.items()} | {"module.prototypes.weight": torch.ones(3, 2)}
    ),
    "children by number": lambda state: {
        re.sub(r"^\w+", lambda found: NUMBERS.get(found[0], found[0]), key): value for key, value in state.items()
    },
}
NUMBERS = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


@pytest.mark.parametrize("kind", RESNETS)
def test_resnet_of_timm_takes_what_ours_takes(kind: str, tmp_path: Path) -> None:
    state = random_state("resnet18")
    wrap: Callable[[State], Any] = RESNETS[kind]
    found, report = loaded("resnet18", saved(wrap(state), tmp_path))
    assert report.complete
    assert_loaded(found, state)


def test_dinov2_with_registers_fills_timms_as_timm_converts_it(tmp_path: Path) -> None:
    name = "vit_small_patch14_reg4_dinov2"
    own = random_state(name)
    file: State = {}
    for key, value in own.items():
        new = re.sub(r"^blocks\.(\d+)\.", lambda found: f"blocks.{int(found[1]) // 6}.{found[1]}.", key)
        file["register_tokens" if key == "reg_token" else new] = value
    file["pos_embed"] = torch.cat([torch.full((1, 1, 384), 0.25), own["pos_embed"]], dim=1)
    file["mask_token"] = torch.ones(1, 384)
    found, report = loaded(
        name, saved({"teacher": {f"backbone.{key}": value for key, value in file.items()}}, tmp_path)
    )
    assert report.complete
    assert_loaded(found, own, but=("cls_token",))
    assert torch.equal(found["net.cls_token"], own["cls_token"] + 0.25)
    notes = " ".join(report.notes)
    assert "names of DINOv2 were read as timm's" in notes and "was added to it" in notes and "mask_token" in notes


def test_position_embeddings_of_another_size_are_resampled_and_told(tmp_path: Path) -> None:
    state = random_state("test_vit", img_size=96)
    found, report = loaded("test_vit", saved({"model": state}, tmp_path))
    assert report.complete and "position embeddings were resampled from 6 x 6 to 10 x 10" in report.notes
    positions = state["pos_embed"]
    maps = positions[:, 1:].unflatten(1, (6, 6)).permute(0, 3, 1, 2)
    expected = F.interpolate(maps, size=(10, 10), mode="bicubic", antialias=True)
    torch.testing.assert_close(found["net.pos_embed"][:, 1:], expected.permute(0, 2, 3, 1).flatten(1, 2))
    assert torch.equal(found["net.pos_embed"][:, :1], positions[:, :1])
    assert_loaded(found, state, but=("pos_embed",))


def test_file_of_the_authors_of_convnext_is_converted_by_timm(tmp_path: Path) -> None:
    theirs = random_state("convnext_atto")
    file = {}
    for key, value in theirs.items():
        new = re.sub(r"^stem\.", "downsample_layers.0.", key)
        new = re.sub(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", new)
        new = re.sub(r"^stages\.(\d)\.blocks\.", r"stages.\1.", new)
        for ours, other in (("conv_dw", "dwconv"), ("mlp.fc1", "pwconv1"), ("mlp.fc2", "pwconv2"), ("head.fc", "head")):
            new = new.replace(ours, other)
        file[new.replace("head.norm", "norm")] = value.flatten(1) if "pwconv" in new and value.ndim == 4 else value
    found, report = loaded("convnext_atto", saved({"model": file}, tmp_path))
    assert report.complete and "names were converted by timm" in report.notes
    for key, value in found.items():
        assert torch.equal(value, theirs[key.removeprefix("net.")].view(value.shape)), key


def test_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = random_state("test_vit")
    state["blocks.1.attn.other"] = state.pop("blocks.1.attn.proj.weight")
    with pytest.raises(
        CheckpointError, match=r"missing net\.blocks\.1\.attn\.proj\.weight .*unexpected net\.blocks\.1\.attn\.other"
    ):
        loaded("test_vit", saved(state, tmp_path))
    found, report = loaded("test_vit", saved(state, tmp_path), weights_partial=True)
    assert report.missing == ("net.blocks.1.attn.proj.weight",)
    assert torch.equal(found["net.norm.weight"], state["norm.weight"])


def test_export_of_a_run_goes_into_timm_and_back(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "run")
    model = {"backbone": "timm/test_vit", "head": "linear"}
    assert runner.train(tiny_recipe(model=model, proxy=None, match=None)) == "succeeded"
    card = export_backbone(runner.run_dir, tmp_path / "out.safetensors")
    state = load_file(tmp_path / "out.safetensors")
    missing, unexpected = timm().create_model("test_vit").load_state_dict(state, strict=False)
    assert not unexpected and {key.split(".")[0] for key in missing} == {"head"}
    found, report = loaded("test_vit", tmp_path / "out.safetensors")
    assert report.complete
    assert_loaded(found, state)
    assert card["timm"] and card["input"]["mean"] == list(timm().create_model("test_vit").pretrained_cfg["mean"])


def test_inspect_tells_of_every_key_and_of_wrong_names(tmp_path: Path) -> None:
    file = saved(random_state("test_vit"), tmp_path)
    command = [sys.executable, "-m", "engine", "weights", "inspect", str(file), "--backbone"]
    fits = subprocess.run([*command, "timm/test_vit"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (fits.returncode, fits.stderr) == (0, "") and "head.weight" in fits.stdout
    wrong = subprocess.run([*command, "timm/test_vitt"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert wrong.returncode == 2 and "timm/test_vit" in wrong.stderr and "Traceback" not in wrong.stderr


# ---- timm's own ------------------------------------------------------------------------------------------------------


def hub(tmp_path: Path, state: State) -> Path:
    """A home of the hub's client that holds the weights of timm/test_vit."""
    snapshot = tmp_path / "hf" / "hub" / "models--timm--test_vit.r160_in1k" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    save_file({key: value.contiguous() for key, value in state.items()}, snapshot / "model.safetensors")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    return tmp_path / "hf"


def train(recipe: Recipe, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A trainer with another home of the hub, and a hub where nobody answers."""
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(recipe))
    env = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", **environment}
    command = [sys.executable, "-m", "engine", "train", "--recipe", str(file), "--run-dir", str(tmp_path / "run")]
    return subprocess.run(command, env=env, capture_output=True, text=True, cwd=ROOT, check=False)


OWN: dict[str, Any] = {
    "model": {"backbone": "timm/test_vit", "head": "linear", "weights": "timm", "freeze": "backbone"}
}


def test_timms_own_weights_are_taken_from_where_they_were_downloaded_to(tmp_path: Path) -> None:
    state = random_state("test_vit")
    recipe = tiny_recipe(**OWN, proxy=None, match=None)
    done = train(recipe, tmp_path, HF_HOME=str(hub(tmp_path, state)))
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "run" / "checkpoints" / "segment" / "final" / "model.safetensors")
    assert_loaded({key[9:]: value for key, value in found.items() if key.startswith("backbone.")}, state)
    (told,) = Runner(tmp_path / "run").kind("weights")
    assert told["values"]["file"] == "timm" and told["values"]["loaded"] == len(state) - 2


def test_without_a_net_one_sentence_says_so(tmp_path: Path) -> None:
    done = train(tiny_recipe(**OWN, proxy=None, match=None), tmp_path, HF_HOME=str(tmp_path / "empty"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "model.weights timm" in line]
    assert "the weights of test_vit cannot be downloaded (http://127.0.0.1:9 cannot be reached" in line


def test_network_without_weights_of_its_own_is_refused_with_one_that_has() -> None:
    with pytest.raises(CheckpointError, match=r"timm has no weights of vit_small_patch16_dinov3_qkvb\.nothing"):
        loaded_own("vit_small_patch16_dinov3_qkvb.nothing")
    with pytest.raises(CheckpointError, match="timm has no weights of resnet18d_nothing"):
        loaded_own("resnet18d_nothing")


def loaded_own(name: str) -> None:
    from engine.models.timm_weights import timm_weights_file

    timm_weights_file(f"timm/{name}")


def test_own_weights_count_in_the_key_of_a_shared_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    keys = []
    for number in (0, 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        state = {"norm.weight": torch.full((64,), float(number))}
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub(folder, state) / "hub"))
        keys.append(stage_inputs(tiny_recipe(**OWN), "match", "CPU"))
    assert keys[0]["weights"] != keys[1]["weights"] and keys[0]["libraries"][-1] == timm().__version__


def test_word_is_no_path_and_only_for_timm(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("model: {backbone: timm/test_vit, weights: timm}\nsegment: {}\n")
    assert load_recipe(file).model.weights == "timm"
    file.write_text("model: {backbone: timm/test_vit, weights: ./timm}\nsegment: {}\n")
    assert load_recipe(file).model.weights == str(Path.cwd() / "timm")
    with pytest.raises(ValidationError, match=r"model\.weights timm is for backbones of timm, not vgg16"):
        Recipe.model_validate({"model": {"weights": "timm"}, "segment": {}})


SWIN = "swin_tiny_patch4_window7_224"
OFFICIAL_SWIN = re.compile(r"^layers\.([123])\.downsample\.")
"""Its authors keep what makes a map smaller with the stage before, timm with the stage behind."""


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.encoder_q."])
def test_files_of_swins_authors_are_converted_whatever_stands_before_their_names(tmp_path: Path, prefix: str) -> None:
    theirs = random_state(SWIN)
    official = {
        prefix + OFFICIAL_SWIN.sub(lambda match: f"layers.{int(match[1]) - 1}.downsample.", key): value
        for key, value in theirs.items()
    }
    found, report = loaded(SWIN, saved({"model": official}, tmp_path))
    assert report.complete and "names were converted by timm" in report.notes
    assert_loaded(found, theirs)


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.encoder_q."])
def test_files_of_convnexts_authors_are_converted_whatever_stands_before_their_names(
    tmp_path: Path, prefix: str
) -> None:
    theirs = random_state("convnext_atto")
    renamed = (
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"^(stages\.\d)\.blocks\.", r"\1."),
        (r"\.conv_dw\.", ".dwconv."),
        (r"\.mlp\.fc1\.", ".pwconv1."),
        (r"\.mlp\.fc2\.", ".pwconv2."),
        (r"^head\.norm\.", "norm."),
        (r"^head\.fc\.", "head."),
    )
    official = {}
    for key, value in theirs.items():
        name = key
        for pattern, replacement in renamed:
            name = re.sub(pattern, replacement, name)
        # 1 x 1 convolutions of timm are linear layers there.
        flat = value.flatten(1) if value.ndim == 4 and ".pwconv" in name else value
        official[prefix + name] = flat
    found, report = loaded("convnext_atto", saved({"model": official}, tmp_path))
    assert report.complete
    assert_loaded(found, theirs)


@pytest.mark.parametrize("name", ["rexnet_100", "ghostnet_050"])
def test_state_of_a_network_of_which_much_was_cut_off_is_taken(tmp_path: Path, name: str) -> None:
    """The encoder ends where its last map is made; what the whole network has behind that is another part."""
    theirs = random_state(name)
    found, report = loaded(name, saved(theirs, tmp_path))
    assert report.complete and report.left_out
    assert_loaded(found, theirs)
    first = next(iter(theirs)).split(".")[0]
    broken = {**theirs, f"{first}.surplus": torch.zeros(3)}
    with pytest.raises(CheckpointError, match="unexpected"):
        loaded(name, saved(broken, tmp_path))


def test_weights_of_a_name_whose_tags_read_other_pixels_are_told_to(tmp_path: Path) -> None:
    """DINO's vision transformer reads pixels by ImageNet's mean, the default weights of that name by 0.5."""
    _, report = loaded("vit_small_patch16_224", saved(random_state("vit_small_patch16_224"), tmp_path))
    (note,) = [note for note in report.notes if "pixels are normalised" in note]
    assert "mean 0.5, 0.5, 0.5" in note and "timm/vit_small_patch16_224.dino" in note
    _, report = loaded("vit_small_patch16_224.dino", saved(random_state("vit_small_patch16_224"), tmp_path))
    assert not [note for note in report.notes if "pixels" in note]
    _, report = loaded("test_vit", saved(random_state("test_vit"), tmp_path))
    assert not [note for note in report.notes if "pixels" in note]


def test_our_own_file_is_refused_for_an_encoder_that_reads_other_pixels(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "run")
    recipe = tiny_recipe(
        proxy=None,
        match=None,
        evaluate=None,
        segment__steps=1,
        model={"backbone": "timm/vit_small_patch16_224.dino", "head": "linear"},
    )
    assert runner.train(recipe) == "succeeded"
    exported = tmp_path / "own.safetensors"
    export_backbone(runner.run_dir, exported)
    for file in (exported, runner.run_dir / "checkpoints/segment/final/model.safetensors"):
        assert loaded("vit_small_patch16_224.dino", file)[1].complete
        told = r"reads mean 0\.5, 0\.5, 0\.5 .*model\.backbone=timm/vit_small_patch16_224\.dino"
        with pytest.raises(CheckpointError, match=told):
            loaded("vit_small_patch16_224", file)
