"""Networks taken out of runs: files that compute what the run computes, and refusals in one sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.__main__ import main
from engine.checkpoint import load_module
from engine.config.schema import ModelConfig, Recipe
from engine.errors import RecipeError
from engine.models import Segmenter, build_backbone, build_head
from engine.models.export import traced
from engine.models.heads import HypercolumnSegmenter
from tests.process_state import file_size_limit
from tests.unit.engine_run.conftest import Runner, tiny_recipe


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    runner = Runner(tmp_path_factory.mktemp("trained") / "run")
    runner.train(tiny_recipe(proxy=None, match=None, segment__steps=2, segment__eval_every=0))
    return runner


def segmenter(backbone: str, head: str) -> Segmenter:
    """A small network whose scores are not zero."""
    keys = {"backbone": backbone, "head": head, "head_channels": 8, "fc_channels": 8, "extra_channels": 8}
    config = ModelConfig.model_validate({**keys, "width": 0.0625 if backbone != "tiny_vgg" else 0.25})
    net = build_head(build_backbone(config, generator()), 3, config, generator(1))
    for name, value in net.named_parameters():
        if value.detach().abs().sum() == 0:
            torch.nn.init.normal_(value, std=0.5, generator=generator(len(name)))
    return net.eval()


def test_exported_scores_are_those_of_an_evaluation_for_any_number_of_images() -> None:
    net = segmenter("tiny_vgg", "fcn")
    program = traced(net, 3, 40)
    for count in (1, 3):
        x = torch.randn(count, 3, 40, 40, generator=generator(count))
        # What tracing has left behind must not be what an evaluation then computes with.
        expected = net.dense_logits(x)
        assert type(expected) is torch.Tensor and float(expected.std()) > 0
        torch.testing.assert_close(program.module()(x), expected, rtol=1e-4, atol=1e-5)


def test_export_to_a_side_that_is_too_small_says_so() -> None:
    with pytest.raises(RecipeError, match=r"--side 1: .*write more"):
        traced(segmenter("alexnet", "fcn"), 3, 1)


# --- By the command line.


def test_export_and_back_gives_the_same_network(
    trained: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net.safetensors"
    assert main(["weights", "export", "--run-dir", str(trained.run_dir), "--out", str(out)]) == 0
    card = json.loads(Path(f"{out}.json").read_text())
    assert (card["backbone"], card["stage"], card["classes"][0]) == ("tiny_vgg", "segment", "background")
    final = load_file(trained.run_dir / "checkpoints" / "segment" / "final" / "model.safetensors")
    model = tiny_recipe().model
    found = build_backbone(model.model_copy(update={"weights": str(out)})).state_dict()
    assert all(torch.equal(value, final[f"backbone.{name}"]) for name, value in found.items())
    capsys.readouterr()
    assert main(["weights", "inspect", str(out), "--backbone", "vgg16"]) == 1
    assert "30 missing" in capsys.readouterr().out


def test_export_of_the_segmenter_computes_the_same_scores_and_lays_out_no_hypercolumns(
    trained: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "net.pt2"
    monkeypatch.setattr("engine.models.heads.HIDDEN_BYTES", 4 * 8 * 32 * 16)  # sixteen rows of hidden units
    words = ["weights", "export", "--run-dir", str(trained.run_dir), "--out", str(out), "--format", "torch-export"]
    assert main([*words, "--side", "32"]) == 0
    program = torch.export.load(out)
    folder = trained.run_dir / "checkpoints" / "segment" / "final"
    meta = json.loads((folder / "meta.json").read_text())
    config = Recipe.model_validate(meta["recipe"]).model
    net = build_head(build_backbone(config), len(meta["classes"]), config)
    load_module(folder, net)
    assert isinstance(net, HypercolumnSegmenter)
    for count in (1, 3):
        x = torch.rand(count, 3, 32, 32, generator=generator())
        torch.testing.assert_close(program.module()(x), net.eval().dense_logits(x), rtol=1e-4, atol=1e-5)
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "call_function"]
    largest = max(value[:1].numel() for value in values if isinstance(value, torch.Tensor) and value.ndim > 1)
    assert largest < 32 * 32 * net.column_channels / 8
    card = json.loads(Path(f"{out}.json").read_text())
    assert (card["format"], card["head"], card["side"]) == ("mmtui segmenter, schema 1", "hypercolumn", 32)
    assert card["classes"] == meta["classes"] and card["input"]["channels"] == "RGB"
    assert card["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pt2", "net.pt2.json"]


def test_export_of_an_unfinished_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("safetensors", "torch-export"):
        words = ["weights", "export", "--run-dir", str(tmp_path), "--out", str(tmp_path / "x"), "--format", kind]
        assert main(words) == 1
        assert "to export yet" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["safetensors", "torch-export"])
def test_export_to_where_nothing_can_be_written_is_told_in_one_sentence(
    trained: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    words = ["weights", "export", "--run-dir", str(trained.run_dir), "--format", kind, "--side", "32", "--out"]
    (tmp_path / "file").write_text("")
    for out, reason in (
        (tmp_path / "none" / "x", f"there is no folder {tmp_path / 'none'}"),
        (tmp_path / "file" / "x", f"there is no folder {tmp_path / 'file'}"),
        (tmp_path, "is a folder"),
    ):
        assert main([*words, str(out)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: --out {out}") and reason in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_export_to_a_full_disk_leaves_no_part_of_a_file(
    trained: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net"
    words = ["weights", "export", "--run-dir", str(trained.run_dir)]
    with file_size_limit(1000):
        assert main([*words, "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and str(out) in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changed", ["net", "net.json"])
def test_export_is_written_over_an_earlier_one_alone(
    trained: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: str
) -> None:
    out = tmp_path / "net"
    words = ["weights", "export", "--run-dir", str(trained.run_dir), "--out", str(out)]
    assert main(words) == 0 and main(words) == 0
    (tmp_path / changed).write_bytes(b"theirs")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert main(words) == 5
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"error: {tmp_path}/net") and "--force" in said.err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert main([*words, "--force"]) == 0 and len(load_file(out)) > 0
    assert json.loads(Path(f"{out}.json").read_text())["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()


def test_export_to_what_no_card_can_lie_beside_is_refused(
    trained: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for out, code in (("-", 2), ("/dev/null", 2), (str(tmp_path), 2), ("x" * 252, 1)):
        assert main(["weights", "export", "--run-dir", str(trained.run_dir), "--out", out]) == code
        assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("side", ["0", "-3"])
def test_export_to_no_side_is_refused(
    trained: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str], side: str
) -> None:
    words = ["weights", "export", "--run-dir", str(trained.run_dir), "--out", str(tmp_path / "x")]
    assert main([*words, "--format", "torch-export", "--side", side]) == 2
    assert f"error: --side {side}" in capsys.readouterr().err
