"""What runs have kept stays readable, and is neither shared nor gone on with as what it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from engine.__main__ import main
from engine.config import Recipe, RecipeFileError, load_recipe
from engine.config.schema import stored_recipe
from engine.errors import CheckpointError
from engine.events import EventWriter, SilentWriter
from engine.loop import train
from engine.models.export import export_backbone
from engine.stages import Context, match, match_pictures
from engine.stages.match import MatchStage
from engine.watch import out_of_memory
from tests.unit.engine_run.conftest import Runner, tiny_recipe
from tests.unit.engine_run.test_memory import limit_memory
from tests.unit.engine_run.test_memory import recipe as wide_recipe
from tests.unit.engine_run.test_resume import at

OLD = {"segment": {"optim": {"milestones": [0.75, 0.75]}}}
"""A recipe that older versions took and this one refuses."""


def test_recipe_that_is_refused_today_is_read_where_a_run_has_kept_it(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="rising fractions"):
        Recipe.model_validate(OLD)
    assert stored_recipe(OLD).segment == stored_recipe(json.loads(stored_recipe(OLD).model_dump_json())).segment
    with pytest.raises(ValidationError):
        stored_recipe({"segment": {"steps": "many"}})
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(OLD))
    with pytest.raises(RecipeFileError):
        load_recipe(file)
    assert load_recipe(file, stored=True).name == "recipe"


def test_run_that_began_with_such_a_recipe_goes_on_and_none_begins_with_it(
    runner: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_recipe(proxy=None, match=None, evaluate=None, segment__steps=6)
    runner.train(recipe, stop=at("segment", 3))
    refused = recipe.model_dump(mode="json")
    refused["segment"]["optim"]["milestones"] = [0.75, 0.75]
    # As the older version would have written it.
    for meta in runner.run_dir.glob("checkpoints/*/*/meta.json"):
        meta.write_text(json.dumps({**json.loads(meta.read_text()), "recipe": refused}))
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(refused))
    assert main(["train", str(file), "--run-dir", str(runner.run_dir), "--quiet"]) == 0
    assert main(["train", str(file), "--run-dir", str(tmp_path / "new"), "--quiet"]) == 2
    another = ["--set", "segment.optim.milestones=[0.5, 0.5]"]
    assert main(["train", str(file), "--run-dir", str(runner.run_dir), "--quiet", *another]) == 2
    assert "rising fractions" in capsys.readouterr().err


def test_backbone_of_such_a_run_is_exported_and_no_recipe_at_all_is_one_sentence(runner: Runner) -> None:
    recipe = tiny_recipe(proxy=None, segment=None, evaluate=None)
    assert runner.train(recipe) == "succeeded"
    file = runner.run_dir / "checkpoints/match/final/meta.json"
    meta = json.loads(file.read_text())
    meta["recipe"]["match"]["optim"]["milestones"] = [0.75, 0.75]
    file.write_text(json.dumps(meta))
    assert export_backbone(runner.run_dir, runner.run_dir / "b.safetensors")["stage"] == "match"
    file.write_text(json.dumps({**meta, "recipe": {"match": 3}}))
    with pytest.raises(CheckpointError, match="no recipe that this version can read"):
        export_backbone(runner.run_dir, runner.run_dir / "c.safetensors")


def test_pictures_of_patches_are_cut_from_the_crops_that_were_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: dict[str, Any] = {"match__scale_jitter": (0.5, 2.0), "match__colour_jitter": 0.3}
    recipe = tiny_recipe(proxy=None, segment=None, evaluate=None, **keys)
    assert recipe.match is not None
    stage = MatchStage(Context(recipe, tmp_path, torch.device("cpu"), SilentWriter(), lambda: False), recipe.match)
    crops, plain = [], match.sample_crops
    monkeypatch.setattr(match, "sample_crops", lambda *a, **k: crops.append(plain(*a, **k)) or crops[-1])
    stage.step(0)
    assert len(crops) == 1
    assert torch.equal(match_pictures._crops(stage, 1), crops[0][0])


def test_stage_that_was_computed_in_portions_is_not_shared(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = wide_recipe(proxy=None, segment=None)
    cache = runner.run_dir.parent / "cache"

    def finish(folder: Path) -> list[str]:
        writer = EventWriter.open_for_attempt(folder, 1)
        assert train(recipe, folder, writer, 1, lambda: False, lambda _line: None, cache) == "succeeded"
        return sorted(json.loads(file.read_text())["stage"] for file in cache.glob("*/meta.json"))

    with monkeypatch.context() as patch:
        limit_memory(patch, "match", 8)
        assert finish(runner.run_dir) == []
    assert "not shared" in runner.kind("warning")[-1]["values"]["text"]
    assert finish(runner.run_dir.parent / "whole") == ["match"]


def test_going_on_with_another_opencv_warns(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe(proxy=None, segment=None, evaluate=None)
    assert runner.train(recipe, at("match", 1)) == "stopped"
    monkeypatch.setattr("engine.resume.opencv_version", lambda: "9.9.9")
    assert runner.train(recipe) == "succeeded"
    assert "now there is 9.9.9" in runner.kind("warning")[0]["values"]["text"]


def test_jigsaw_of_one_image_is_nine_tiles_to_normalise_over() -> None:
    proxy = {"kind": "jigsaw", "batch_size": 1, "crop": 32}
    Recipe.model_validate({"model": {"backbone": "resnet18"}, "evaluate": None, "proxy": proxy})
    with pytest.raises(ValidationError, match="one value a channel"):
        Recipe.model_validate(
            {"model": {"backbone": "resnet18"}, "evaluate": None, "proxy": {**proxy, "kind": "colorization"}}
        )


@pytest.mark.parametrize(
    ("error", "told"), [(torch.OutOfMemoryError("x"), True), (RuntimeError("can't allocate memory"), False)]
)
def test_halves_are_advised_where_they_are_computed(error: RuntimeError, told: bool) -> None:
    recipe = tiny_recipe(runtime__halve_on_oom="exact")
    advice = str(out_of_memory(error, recipe, "segment", torch.device("cpu")))
    assert "segment.batch_size" in advice and ("halve_on_oom" in advice) is told
