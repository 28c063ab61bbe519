"""Every shipped recipe resolves, has the stages that its name promises, and the small ones do two steps of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import pytest

from engine.config import Recipe, dump_recipe, load_recipe

FOLDER = Path(__file__).resolve().parents[3] / "recipes"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SMALL = [name for name in NAMES if name.startswith("shapes_")]
TWO_STEPS = ("data.train=12", "data.val=2", "segment.steps=2", "segment.eval_every=0", "runtime.threads=1")


class Runner(Protocol):
    run_dir: Path

    def train(self, recipe: Recipe, stop: Any = ...) -> str: ...
    def kind(self, kind: str, stage: str | None = None) -> list[dict[str, Any]]: ...


def two_steps(recipe: Recipe) -> list[str]:
    """Overrides that leave two steps of each stage that the recipe has."""
    return [f"{stage}.steps=2" for stage, _ in recipe.stages() if stage != "evaluate"]


@pytest.mark.parametrize("name", NAMES)
def test_recipe_resolves_and_describes_itself(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, (), [FOLDER])
    assert recipe.name == name and recipe.description
    stages = [stage for stage, _ in recipe.stages()]
    assert ("match" in stages) == ("mixmatch" in name or name == "shapes_smoke")
    assert stages[-2:] == ["segment", "evaluate"]
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "again.yaml") == recipe


@pytest.mark.parametrize(
    ("base", "tuned"),
    [
        ("shapes_baseline", "shapes_mixmatch"),
        ("shapes_baseline", "shapes_colorization_mixmatch"),
        ("camvid_tiny_baseline", "camvid_tiny_mixmatch"),
        ("camvid_baseline", "camvid_mixmatch"),
    ],
)
def test_recipe_pairs_differ_only_in_the_stages_before_fine_tuning(base: str, tuned: str) -> None:
    one, other = (load_recipe(name, (), [FOLDER]) for name in (base, tuned))
    # Images without labels are for proxy tasks alone.
    data = other.data.model_copy(update={"unlabelled": 0}) if other.data.kind == "shapes" else other.data
    assert (one.seed, one.data, one.model, one.segment) == (other.seed, data, other.model, other.segment)
    assert one.evaluate == other.evaluate and one.match is None and other.match is not None


@pytest.mark.parametrize("name", SMALL)
def test_small_recipe_does_two_steps_of_each_stage(runner: Runner, name: str) -> None:
    plain = load_recipe(name, (), [FOLDER])
    recipe = load_recipe(name, [*TWO_STEPS, *two_steps(plain)], [FOLDER])
    assert runner.train(recipe) == "succeeded"
    assert [e["stage"] for e in runner.kind("stage_finished")] == [stage for stage, _ in plain.stages()]


@pytest.mark.needs_data
@pytest.mark.parametrize("name", ["camvid_tiny_baseline", "camvid_tiny_mixmatch"])
def test_camvid_tiny_recipe_does_two_steps_of_each_stage(runner: Runner, shared_data: Path, name: str) -> None:
    root = shared_data / "camvid"
    if not root.is_dir():
        pytest.skip(f"no CamVid at {root}")
    plain = load_recipe(name, (), [FOLDER])
    some = [f"data.root={root}", "data.max_train=12", "data.max_val=2", "segment.eval_every=0", "runtime.threads=1"]
    assert runner.train(load_recipe(name, [*some, *two_steps(plain)], [FOLDER])) == "succeeded"
    assert len(runner.kind("run_started")[0]["values"]["classes"]) == 11
