"""``segment.keep_best`` and ``segment.patience``: what is compared, what is kept, and when a stage ends early."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from engine import checkpoint
from engine.config.best import best_folder, best_step, class_problem, metric_problem
from engine.config.determining import determining, stage_names, work_name
from engine.config.smoke import smoke_overrides
from engine.data.registry import build_data
from engine.errors import CheckpointError, RecipeError
from engine.metrics import ConfusionMatrix
from engine.models import build_backbone, build_head
from engine.probe import probe
from engine.stages.best import BestSoFar, value_of
from engine.stages.validation_loss import ValidationLoss
from tests.unit.engine_run.conftest import Runner, tiny_recipe

ALONE: dict[str, Any] = {"proxy": None, "match": None, "evaluate__show_images": 0}
WORD = "class:background"


def by(metric: str, patience: int = 0, **more: Any) -> Any:
    keys = {"segment__steps": 10, "segment__eval_every": 2, "segment__keep_best": metric}
    return tiny_recipe(**{**ALONE, **keys, "segment__patience": patience, **more})


def follow(best: BestSoFar, values: list[float]) -> list[int]:
    """At which evaluations, counted from 1, it was the best so far."""
    return [number for number, value in enumerate(values, 1) if best.note(number, value)]


# ---- comparing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "values", "better"),
    [
        ("miou", [1.0, 3.0, 2.0, 3.0, 4.0], [1, 2, 5]),
        ("class:car", [5.0, 4.0, 5.0], [1]),
        ("loss", [3.0, 3.0, 2.0, 2.5, 1.0], [1, 3, 5]),
        ("miou", [math.nan, 0.0, math.inf, 0.0, 1.0], [2, 5]),
        ("loss", [math.inf, 2.0, -math.inf, math.nan, 1.0], [2, 5]),
    ],
)
def test_best_goes_in_its_metrics_direction_keeps_the_earlier_of_equals_and_takes_no_nan(
    metric: str, values: list[float], better: list[int]
) -> None:
    best = BestSoFar(metric, 0)
    assert follow(best, values) == better
    assert (best.step, best.value) == (better[-1], values[better[-1] - 1])
    assert best.since == len(values) - better[-1] and not best.enough


def test_patience_counts_evaluations_without_improvement_of_which_nan_is_one() -> None:
    best = BestSoFar("miou", 2)
    seen = []
    for number, value in enumerate([1.0, 0.5, 2.0, math.nan, 2.0], 1):
        best.note(number, value)
        seen.append(best.enough)
    assert seen == [False, False, False, False, True]
    never = BestSoFar("miou", 2)
    assert follow(never, [math.nan, math.nan]) == [] and never.enough and never.told() == {}


def test_state_goes_through_json_to_the_bit() -> None:
    best = BestSoFar("loss", 3)
    follow(best, [0.1 + 0.2, 1.0])
    other = BestSoFar("loss", 3)
    other.recall(json.loads(json.dumps(best.state())))
    assert (other.step, other.value, other.since) == (1, 0.1 + 0.2, 1)
    none = BestSoFar("loss", 3)
    none.note(1, math.nan)
    other = BestSoFar("loss", 3)
    other.recall(json.loads(json.dumps(none.state())))
    assert (other.step, other.since) == (None, 1)


def test_value_is_that_of_a_count_by_hand() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 255]))
    names = ("sky", "road: wet", "car")
    assert value_of("class:sky", matrix, names, math.nan) == pytest.approx(100 / 2)
    assert value_of("class:road: wet", matrix, names, math.nan) == pytest.approx(100 / 2)
    assert math.isnan(value_of("class:car", matrix, names, math.nan)), "neither in truth nor in prediction"
    assert value_of("miou", matrix, names, math.nan) == pytest.approx(50)
    assert value_of("loss", matrix, names, 0.25) == 0.25


# ---- the loss of the split -------------------------------------------------------------------------------------------


def pixel_by_pixel(scores: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
    """Sum of -log p over labelled pixels, in float64 and one by one, and their number."""
    total, count = 0.0, 0
    for image, row, column in np.ndindex(labels.shape):
        own = int(labels[image, row, column])
        if own == 255:
            continue
        several = scores[image, :, row, column].astype(np.float64)
        total -= several[own] - math.log(np.exp(several - several.max()).sum()) - several.max()
        count += 1
    return total, count


def test_validation_loss_is_that_of_a_loop_over_pixels_with_void_ones() -> None:
    made = np.random.default_rng(3)
    loss = ValidationLoss(5)
    total, count = 0.0, 0
    for numbers, (height, width), void in (([0, 1], (4, 5), 0.3), ([3], (2, 3), 0.0), ([2, 4], (3, 3), 1.0)):
        scores = made.normal(scale=4, size=(len(numbers), 3, height, width)).astype(np.float32)
        labels = made.integers(0, 3, size=(len(numbers), height, width)).astype(np.uint8)
        labels[made.random(labels.shape) < void] = 255
        loss.add(numbers, torch.from_numpy(scores), torch.from_numpy(labels))
        more = pixel_by_pixel(scores, labels)
        total, count = total + more[0], count + more[1]
    assert loss.mean() == pytest.approx(total / count, rel=1e-6)


def test_validation_loss_of_no_pixel_or_of_no_number_is_none() -> None:
    assert math.isnan(ValidationLoss(2).mean())
    loss = ValidationLoss(1)
    loss.add([0], torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2), 255, dtype=torch.uint8))
    assert math.isnan(loss.mean())
    loss = ValidationLoss(2)
    loss.add([0, 1], torch.tensor([0.0, math.nan])[:, None, None, None].expand(2, 2, 1, 1), torch.zeros(2, 1, 1))
    assert math.isnan(loss.mean())


def test_void_pixels_with_wild_scores_do_not_count() -> None:
    loss = ValidationLoss(1)
    scores = torch.tensor([[[[0.0, math.inf]], [[0.0, 0.0]]]])
    loss.add([0], scores, torch.tensor([[[1, 255]]], dtype=torch.uint8))
    assert loss.mean() == pytest.approx(math.log(2))


def network_of(run: Runner, folder: Path, prefix: str = "") -> torch.nn.Module:
    """The network of a checkpoint, filled by hand."""
    recipe = tiny_recipe(**ALONE)
    model = build_head(build_backbone(recipe.model), 9, recipe.model)
    tensors = load_file(folder / "model.safetensors")
    model.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    return model.eval()


def test_logged_validation_loss_is_that_of_the_kept_network_on_every_labelled_pixel(runner: Runner) -> None:
    recipe = by("loss", runtime__keep_every=2, segment__loss="focal", segment__label_smoothing=0.1)
    assert runner.train(recipe) == "succeeded"
    data = build_data(recipe.data, "val")
    assert (data.labels == 255).any(), "void pixels are among them"
    told = {e["step"]: e["values"]["val_loss"] for e in runner.kind("metrics") if "val_loss" in e["values"]}
    assert list(told) == [2, 4, 6, 8, 10]
    for step in (2, 10):
        model = network_of(runner, runner.run_dir / "checkpoints" / "segment" / f"step_{step:08d}")
        pixels = data.images.float() / 255
        mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        with torch.no_grad():
            scores = model.dense_logits((pixels - mean) / deviation).numpy()  # type: ignore[operator]
        total, count = pixel_by_pixel(scores, data.labels.numpy())
        assert told[step] == pytest.approx(total / count, rel=1e-4)


# ---- runs ------------------------------------------------------------------------------------------------------------


def measured(run: Runner, metric: str) -> dict[int, float]:
    """{step: value} by the events alone."""
    if metric in ("miou", "loss"):
        name = {"loss": "val_loss"}.get(metric, metric)
        return {e["step"]: e["values"][name] for e in run.kind("metrics", "segment") if name in e["values"]}
    found = {}
    for event in run.kind("confusion", "segment"):
        counts = np.array(event["values"]["matrix"], dtype=float)
        index = event["values"]["classes"].index(metric.removeprefix("class:"))
        union = counts[index].sum() + counts[:, index].sum() - counts[index, index]
        found[event["step"]] = 100 * counts[index, index] / union if union else math.nan
    return found


@pytest.mark.parametrize("metric", ["miou", "loss", WORD])
@pytest.mark.parametrize("auxiliary", [0.0, 0.4])
def test_run_keeps_the_whole_state_of_its_best_evaluation(
    runner: Runner, another_runner: Runner, metric: str, auxiliary: float
) -> None:
    """The twin keeps every checkpoint for good, and knows nothing of a best one."""
    keys = {"segment__ema": 0.5, "segment__auxiliary_head": auxiliary, "model__head": "fcn"}
    assert runner.train(by(metric, **keys, runtime__keep_checkpoints=1)) == "succeeded"
    assert another_runner.train(by(metric, **keys, segment__keep_best=None, runtime__keep_every=2)) == "succeeded"
    assert runner.losses() == another_runner.losses() and runner.weights("segment") == another_runner.weights("segment")
    values = measured(runner, metric)
    sign = -1 if metric == "loss" else 1
    step = max((s for s in values if math.isfinite(values[s])), key=lambda s: (sign * values[s], -s))
    folder = runner.run_dir / "checkpoints" / "segment"
    assert sorted(entry.name for entry in folder.iterdir()) == ["best", "final"]
    assert best_folder(runner.run_dir) == folder / "best" and checkpoint.damage(folder / "best") == ""
    twin = another_runner.run_dir / "checkpoints" / "segment" / f"step_{step:08d}"
    for name in ("model.safetensors", "optim.pt"):
        assert (folder / "best" / name).read_bytes() == (twin / name).read_bytes()
    meta = checkpoint.read_meta(folder / "final")
    assert meta["best"] == {"metric": metric, "step": step, "value": values[step]}
    last = runner.kind("best")[-1]
    assert last["values"] == {**meta["best"], "weights": "ema"} and last["step"] == step


def test_best_and_what_the_checkpoint_before_calls_so_outlive_all_others(runner: Runner) -> None:
    """Should the newest be damaged, the one before it counts, and its best must still be there."""
    module = torch.nn.Linear(2, 2)
    optimiser = torch.optim.SGD(module.parameters(), lr=1)

    def save(step: int, best: int) -> list[int]:
        told = {"remembered": {"best": {"metric": "miou", "step": best, "value": 1.0, "since": 0}}}
        checkpoint.save_step(runner.run_dir, "segment", step, module, optimiser, told, keep=2)
        return [one.step for one in checkpoint.step_checkpoints(runner.run_dir, "segment")]

    seen = [save(step, best) for step, best in ((10, 10), (20, 10), (30, 10), (40, 10), (50, 50), (60, 50), (70, 50))]
    assert seen == [[10], [10, 20], [10, 20, 30], [10, 30, 40], [10, 40, 50], [50, 60], [50, 60, 70]]


def test_last_step_is_evaluated_where_it_is_no_multiple(runner: Runner) -> None:
    assert runner.train(by("miou", segment__steps=7, segment__eval_every=3)) == "succeeded"
    assert [e["step"] for e in runner.kind("confusion", "segment")] == [3, 6, 7]


def test_stage_without_a_number_keeps_none_and_says_so(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.stages.segment.value_of", lambda *_: math.nan)
    assert runner.train(by("miou", patience=2)) == "succeeded"
    assert runner.kind("best") == []
    (early,) = runner.kind("early_stop")
    assert early["step"] == 4 and "value" not in early["values"]
    with pytest.raises(CheckpointError, match="has no best checkpoint: no evaluation of its own has given a number"):
        best_folder(runner.run_dir)


def test_early_stop_ends_the_stage_and_says_at_which_step_and_why(
    runner: Runner, another_runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([1.0, 3.0, 2.0, 3.0, 9.0])
    monkeypatch.setattr("engine.stages.segment.value_of", lambda *_: next(values))
    assert runner.train(by("miou", patience=2, runtime__keep_every=8)) == "succeeded"
    (early,) = runner.kind("early_stop")
    told = {"metric": "miou", "step": 4, "value": 3.0, "patience": 2, "total_steps": 10}
    assert (early["stage"], early["step"], early["values"]) == ("segment", 8, told)
    assert runner.kind("stage_finished", "segment")[0]["values"]["stopped_early"] == 8
    assert checkpoint.read_meta(runner.run_dir / "checkpoints/segment/final")["stopped_early"] == 8
    assert max(step for stage, step in runner.losses() if stage == "segment") == 8
    evaluated = runner.kind("confusion", "evaluate")
    assert len(evaluated) == 1 and evaluated[0]["global_step"] == 11, "steps of the run are those of the recipe"
    # The learning rate stays on the steps of the recipe, and what was trained is what a whole training has there.
    monkeypatch.undo()
    assert another_runner.train(by("miou", segment__keep_best=None, runtime__keep_every=8)) == "succeeded"
    mine, twin = ({e["step"]: e["values"]["lr"] for e in run.kind("metrics", "segment")} for run in
                  (runner, another_runner))  # fmt: skip
    assert mine == {step: twin[step] for step in mine}
    kept = load_file(another_runner.run_dir / "checkpoints/segment/step_00000008/model.safetensors")
    for name, value in load_file(runner.run_dir / "checkpoints/segment/final/model.safetensors").items():
        assert torch.equal(value, kept[name]), name


def test_patience_that_ends_with_the_stage_is_no_early_stop(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([1.0, 1.0, 1.0, 1.0, 1.0])
    monkeypatch.setattr("engine.stages.segment.value_of", lambda *_: next(values))
    assert runner.train(by("miou", patience=4)) == "succeeded"
    assert runner.kind("early_stop") == []
    assert "stopped_early" not in runner.kind("stage_finished", "segment")[0]["values"]


# ---- the recipe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"segment__keep_best": "iou"}, "'iou' is nothing to go by: write miou, loss, class:NAME"),
        ({"segment__keep_best": "class:"}, "'class:' is nothing to go by"),
        ({"segment__eval_every": 0}, r"segment\.eval_every is 0: write .* segment\.eval_every=1"),
        ({"evaluate": None}, "segment.keep_best miou compares evaluations: write an evaluate section"),
        ({"segment__keep_best": None, "segment__patience": 3}, "segment.patience 3 needs to know what is better"),
        ({"segment__keep_best": None, "evaluate__checkpoint": "best"}, "evaluate.checkpoint best: this recipe keeps"),
        ({"segment__keep_best": "loss", "evaluate__protocol": "fit"}, "write evaluate.protocol=plain"),
        ({"segment__keep_best": "loss", "evaluate__flip": True}, "write evaluate.protocol=plain"),
        ({"segment__keep_best": "loss", "evaluate__scales": [1.0, 2.0]}, "write evaluate.protocol=plain"),
    ],
)
def test_recipe_that_could_keep_none_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        by("miou", **changes)


def test_class_that_the_data_lack_is_refused_before_training(runner: Runner) -> None:
    with pytest.raises(
        RecipeError, match=r"segment\.keep_best class:tree names no class of the data set: write one of"
    ):
        runner.train(by("class:tree"))
    assert list(class_problem("class:cra", ["bus", "car"])) == [
        "segment.keep_best class:cra names no class of the data set: did you mean class:car?"
    ]
    assert list(class_problem("class:a", ["a"])) == list(class_problem("miou", ["a"])) == []
    assert metric_problem("class:with: colon") == ""


def test_names_of_work_stay_and_patience_makes_evaluations_count() -> None:
    plain = tiny_recipe(runtime__device="cpu")
    kept = tiny_recipe(runtime__device="cpu", segment__keep_best="miou", segment__patience=3)
    assert stage_names(kept) == stage_names(plain)
    same = tiny_recipe(runtime__device="cpu", segment__keep_best="miou", evaluate__checkpoint="best")
    assert work_name(kept) == work_name(same), "neither takes time or memory"
    assert "segment.eval_every" not in dict(determining(plain, "segment"))
    assert dict(determining(kept, "segment"))["segment.eval_every"] == 3


def test_recipe_without_the_patience_that_a_run_had_is_refused_by_that_name(runner: Runner) -> None:
    patient = by("miou", patience=9)
    assert runner.train(patient, stop=lambda events: events[-1]["step"] >= 3) == "stopped"
    with pytest.raises(CheckpointError, match=r"made with segment\.patience=9, the recipe now says 0"):
        runner.train(by("miou"))
    with pytest.raises(CheckpointError, match=r"made with segment\.eval_every=2, the recipe now says 5"):
        runner.train(by("miou", patience=9, segment__eval_every=5))
    assert runner.train(patient) == "succeeded"


def test_measurement_of_a_recipe_counts_the_loss_of_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    add = ValidationLoss.add

    def noted(loss: ValidationLoss, numbers: Any, *tensors: torch.Tensor) -> None:
        seen.append(len(numbers))
        add(loss, numbers, *tensors)

    monkeypatch.setattr(ValidationLoss, "add", noted)
    probe(by("loss"), torch.device("cpu"))
    assert seen
    seen.clear()
    probe(by("miou"), torch.device("cpu"))
    assert not seen


def test_smoke_run_of_such_a_recipe_keeps_one_too(runner: Runner) -> None:
    overrides = dict(text.split("=") for text in smoke_overrides(by("miou")))
    assert overrides["segment.eval_every"] == "1"
    assert dict(t.split("=") for t in smoke_overrides(tiny_recipe()))["segment.eval_every"] == "0"


def test_meta_files_of_others_name_no_best_step() -> None:
    for meta in ({}, {"best": 3}, {"best": {"step": "4"}}, {"remembered": []}, {"remembered": {"best": {}}}):
        assert best_step(meta) is None
