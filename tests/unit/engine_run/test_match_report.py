"""What the match stage tells of its graphs: of all of a step, over all steps, and after a resume as without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config.schema import Recipe
from engine.errors import RecipeError
from engine.events import SilentWriter
from engine.stages import Context
from engine.stages.match import MatchStage
from tests.unit.engine_run.conftest import Runner

Make = Callable[..., Recipe]
ALONE: dict[str, Any] = {"proxy": None, "segment": None, "evaluate": None}
RARE: dict[str, Any] = {
    **ALONE,
    "match__graphs": 3,
    "match__images": 1,
    "match__patches_per_image": 2,
    "match__steps": 30,
    "runtime__graph_every": 1,
    "runtime__log_every": 50,
}
"""Few nodes a step, so that most classes are missing most of the time."""


def stage_of(recipe: Recipe, folder: Path) -> MatchStage:
    context = Context(recipe, folder, torch.device("cpu"), SilentWriter(), lambda: False)
    assert recipe.match is not None
    return MatchStage(context, recipe.match)


def naive_starved(recipe: Recipe, folder: Path, patience: int = 20) -> dict[int, dict[str, int]]:
    """By step, the classes that no patch of any batch had for so long; patches are drawn again one by one."""
    stage = stage_of(recipe, folder)
    last, found = dict.fromkeys(range(stage.data.num_classes), 0), {}
    for step in range(stage.total_steps):
        for draw in range(step * stage.config.graphs, (step + 1) * stage.config.graphs):
            for label in stage._mix_now(draw)[0].label.tolist():
                last[label] = step + 1
        done = step + 1
        found[done] = {str(c): done - seen for c, seen in last.items() if done - seen >= patience}
    return found


def starved(run: Runner) -> dict[int, dict[str, int]]:
    return {event["step"]: event["values"]["starved"] for event in run.kind("graph")}


@pytest.mark.parametrize("scope", ["local", "global"])
def test_graph_events_are_of_all_graphs_of_a_step(runner: Runner, make_recipe: Make, scope: str) -> None:
    recipe = make_recipe(
        **ALONE,
        match__graphs=4,
        match__images=2,
        match__graph_scope=scope,
        match__steps=2,
    )
    runner.train(recipe)
    (event,) = runner.kind("graph")
    values = event["values"]
    assert values["nodes"] == 32 == sum(values["nodes_per_class"].values())
    assert values["graphs"] == (4 if scope == "local" else 1)
    assert set(values["components_per_class"].values()) == {1}
    stage = stage_of(recipe, runner.run_dir.parent / "again")
    drawn = [stage._mix_now(draw)[0] for draw in range(4, 8)]
    sizes = torch.cat([patches.size for patches in drawn]).tolist()
    assert values["patch_size_mean"] == pytest.approx(sum(sizes) / 32, abs=0.01)
    assert (values["patch_size_min"], values["patch_size_max"]) == (min(sizes), max(sizes))
    assert values["overlap_rejections"] == sum(int(patches.overlap_rejections) for patches in drawn)


def test_purity_is_measured_where_it_is_told_and_nowhere_else(runner: Runner, make_recipe: Make) -> None:
    recipe = make_recipe(**ALONE, match__graphs=2, match__steps=7, runtime__graph_every=3)
    runner.train(recipe)
    told = {event["step"]: event["values"]["purity_mean"] for event in runner.kind("graph")}
    assert list(told) == [3, 6, 7] and min(told.values()) > 0
    stage = stage_of(recipe, runner.run_dir.parent / "again")
    for step in range(1, 8):
        shares = [stage._mix_now(draw)[0].purity for draw in (2 * step - 2, 2 * step - 1)]
        if step in told:
            assert told[step] == pytest.approx(float(torch.cat(shares).mean()), abs=1e-4)
        else:
            assert [share.ndim for share in shares] == [0, 0], "reading windows costs time at every step"


def test_starved_counts_the_nodes_of_every_graph_of_every_step(
    runner: Runner, make_recipe: Make, tmp_path: Path
) -> None:
    recipe = make_recipe(**RARE)
    runner.train(recipe)
    expected = naive_starved(recipe, tmp_path / "again")
    assert starved(runner) == expected
    assert any(expected.values()), "some class is starved at some time"


def test_starved_after_a_resume_is_what_the_undisturbed_run_tells(
    runner: Runner, another_runner: Runner, make_recipe: Make
) -> None:
    recipe = make_recipe(**RARE)
    runner.train(recipe)
    at_step = lambda events: events[-1]["stage"] == "match" and events[-1]["step"] >= 25  # noqa: E731
    assert another_runner.train(recipe, stop=at_step) == "stopped"
    assert another_runner.train(recipe) == "succeeded"
    assert starved(another_runner) == starved(runner)
    assert any(told for step, told in starved(runner).items() if step > 25)


def test_background_that_is_no_class_of_a_folder_is_refused_before_anything_is_trained(
    runner: Runner, make_recipe: Make, tmp_path: Path
) -> None:
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    recipe = make_recipe(data={"kind": "folder", "root": str(tmp_path)}, match__background=2)
    with pytest.raises(RecipeError, match=r"match\.background 2 is no class of the data set, which has 0 to 1"):
        runner.train(recipe)
    assert not runner.kind("metrics")


# ---- graphs without nodes ------------------------------------------------------------------------------------------


@pytest.fixture
def void_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training images without a single labelled pixel."""
    read = Context.data

    def unlabelled(self: Context, split: Any) -> Any:
        data = read(self, split)
        return replace(data, labels=torch.full_like(data.labels, 255)) if split == "train" else data

    monkeypatch.setattr(Context, "data", unlabelled)
    # Such a split is refused. Crops without a label occur in others, too: in large images, labelled here and there.
    monkeypatch.setattr("engine.loop.look_at_labels", lambda *_, **__: None)


@pytest.mark.usefixtures("void_images")
@pytest.mark.parametrize("scope", ["local", "global"])
def test_graphs_without_nodes_are_told_once_and_counted_and_the_run_goes_on(
    runner: Runner, another_runner: Runner, make_recipe: Make, scope: str
) -> None:
    recipe = make_recipe(proxy=None, evaluate=None, match__graphs=2, match__graph_scope=scope, segment__eval_every=0)
    assert runner.train(recipe) == "succeeded"
    each = 2 if scope == "local" else 1
    assert [event["values"]["empty_graphs"] for event in runner.kind("graph")] == [2 * each, 4 * each]
    assert [event["values"]["nodes"] for event in runner.kind("graph")] == [0, 0]
    warning, doubt = runner.kind("warning")
    assert f"{2 * each} match graphs had no nodes" in warning["values"]["text"] and warning["step"] == 2
    text = f"{4 * each} of {4 * each} match graphs held patches of one class alone, or none"
    assert text in doubt["values"]["text"] and doubt["step"] == 4 and doubt["values"]["about"] == "supervision"
    assert set(runner.losses().values()) == {0.0}, "segmentation has no pixel to learn from either"
    assert another_runner.train(recipe, stop=lambda events: events[-1]["step"] == 3) == "stopped"
    another_runner.train(recipe)
    assert len(another_runner.kind("warning")) == 2, "what was told is not told again"
    assert [event["values"]["empty_graphs"] for event in another_runner.kind("graph")] == [2 * each, 4 * each]


@pytest.mark.usefixtures("void_images")
@pytest.mark.parametrize("backbone", ["tiny_vgg", "alexnet", "resnet18"])
def test_a_step_without_nodes_changes_no_statistics(tmp_path: Path, make_recipe: Make, backbone: str) -> None:
    recipe = make_recipe(**ALONE, model__backbone=backbone, model__head="fcn", match__output_size=64)
    stage = stage_of(recipe, tmp_path)
    before = {name: value.clone() for name, value in stage.trained.named_buffers() if "num_batches" not in name}
    assert before and float(stage.step(0)["loss"]) == 0
    for name, value in before.items():
        assert torch.equal(stage.trained.get_buffer(name), value), name
    assert all(bool(value.isfinite().all()) for value in stage.trained.parameters())
