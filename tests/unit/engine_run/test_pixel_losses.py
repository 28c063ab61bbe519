"""Losses of fine-tuning against loops over pixels, their edges, and that processes share them out exactly."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from engine.config.determining import stage_names, work_name
from engine.config.schema import SegmentConfig
from engine.errors import EngineError, RecipeError
from engine.stages.class_weights import balanced
from engine.stages.pixel_losses import LOSSES, PixelLoss, pixel_loss
from mmtui.services.forecast import _work
from tests.unit.engine_run.conftest import Runner, tiny_recipe
from tests.unit.engine_run.processes import Ranks
from tests.unit.engine_run.test_distributed import SHARED, events, losses, weights
from tests.unit.engine_run.test_memory import limit_memory
from tests.unit.engine_run.test_resume import assert_equal_runs, at
from tests.unit.engine_run.test_sharing import FROZEN, torchrun

VOID = 255
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


# ---- by hand ---------------------------------------------------------------------------------------------------------


def shares(scores: Floats) -> Floats:
    """Softmax of one pixel."""
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def labelled(logits: Floats, target: Ints) -> list[tuple[Floats, int]]:
    """(probabilities, class) of every pixel that has one."""
    flat = zip(logits.reshape(-1, logits.shape[-1]), target.reshape(-1), strict=True)
    return [(shares(scores), int(label)) for scores, label in flat if label != VOID]


def smoothed(p: Floats, label: int, weight: Floats, smoothing: float) -> float:
    """Cross-entropy with the target (1 - s) of its class and s / K of every class, each with its class's weight."""
    spread = [smoothing / len(p) + (1 - smoothing) * (k == label) for k in range(len(p))]
    return -sum(float(w) * s * math.log(q) for w, s, q in zip(weight, spread, p, strict=True))


def by_hand(config: SegmentConfig, logits: Floats, target: Ints, weight: Floats) -> float:
    pixels, s = labelled(logits, target), config.label_smoothing
    if not pixels:
        return 0.0
    if config.loss == "dice":
        return dice_by_hand(pixels, weight)
    if config.loss == "ohem":
        pixels = hard_pixels(pixels, config.ohem_keep, config.ohem_threshold)
    total = 0.0
    for p, label in pixels:
        factor = (1 - p[label]) ** config.focal_gamma if config.loss == "focal" else 1.0
        total += factor * smoothed(p, label, weight, s)
    return total / sum(float(weight[label]) for _, label in pixels)


def dice_by_hand(pixels: list[tuple[Floats, int]], weight: Floats) -> float:
    """Of the whole batch; a class without a pixel has a loss of 0 (segmentation_models.pytorch)."""
    missed = []
    for k in range(len(weight)):
        both = sum(float(p[k]) for p, label in pixels if label == k)
        everything = sum(float(p[k]) + (label == k) for p, label in pixels)
        present = any(label == k for _, label in pixels)
        missed.append((1 - 2 * both / everything) if present else 0.0)
    return sum(float(w) * loss for w, loss in zip(weight, missed, strict=True)) / float(weight.sum())


def hard_pixels(pixels: list[tuple[Floats, int]], keep: float, threshold: float) -> list[tuple[Floats, int]]:
    ranked = sorted(pixels, key=lambda pixel: pixel[0][pixel[1]])
    count = max(1, math.ceil(len(pixels) * keep))
    return [pixel for number, pixel in enumerate(ranked) if number < count or pixel[0][pixel[1]] <= threshold]


CASES: list[dict[str, Any]] = [
    {"loss": "ce"},
    {"loss": "ce", "label_smoothing": 0.1},
    {"loss": "focal"},
    {"loss": "focal", "focal_gamma": 0.5, "label_smoothing": 0.2},
    {"loss": "focal", "focal_gamma": 0.0},
    {"loss": "dice"},
    {"loss": "ohem"},
    {"loss": "ohem", "ohem_threshold": 0.1, "ohem_keep": 0.3, "label_smoothing": 0.1},
    {"loss": "ohem", "ohem_threshold": 0.05, "ohem_keep": 0.0},
    {"loss": "ohem", "ohem_keep": 1.0},
]
WEIGHTS: list[list[float] | None] = [None, [0.5, 2.0, 1.0, 7.0]]


def batch(seed: int, classes: int = 4, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    """Scores (3, 11, K) and classes (3, 11), a third of them void; not every class is there."""
    made = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(3, 11, classes, generator=made, dtype=torch.float64)
    target = torch.randint(0, classes - 1, (3, 11), generator=made)
    target[torch.rand(3, 11, generator=made) < 0.3] = VOID
    return logits, target


def made(case: dict[str, Any], weight: Sequence[float] | None = None, dtype: torch.dtype = torch.float64) -> PixelLoss:
    config = SegmentConfig.model_validate(case)
    return LOSSES[config.loss](config, None if weight is None else torch.tensor(weight, dtype=dtype))


@pytest.mark.parametrize("weight", WEIGHTS, ids=["alike", "weighed"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_is_that_of_a_loop_over_the_pixels(case: dict[str, Any], weight: list[float] | None) -> None:
    loss = made(case, weight)
    for seed in range(5):
        logits, target = batch(seed)
        found = float(loss(logits, target, loss.total(target)))
        expected = by_hand(loss.config, logits.numpy(), target.numpy(), np.array(weight or [1.0] * 4))
        assert found == pytest.approx(expected, rel=1e-9), seed


@pytest.mark.parametrize("case", CASES, ids=str)
def test_parts_of_a_batch_add_up_where_the_loss_is_of_each_pixel(case: dict[str, Any]) -> None:
    loss = made(case, WEIGHTS[1])
    logits, target = batch(1)
    total = loss.total(target)
    parts = sum(float(loss(logits[rows], target[rows], total)) for rows in (slice(0, 1), slice(1, 3)))
    if case["loss"] in ("ce", "focal"):
        assert parts == pytest.approx(float(loss(logits, target, total)), rel=1e-9)
    else:  # of each portion, as batch statistics are; weighed by its images
        alone = [float(loss(logits[r], target[r], loss.total(target[r]))) for r in (slice(0, 1), slice(1, 3))]
        assert parts == pytest.approx((alone[0] + 2 * alone[1]) / 3, rel=1e-6)


def test_cross_entropy_is_pytorchs_and_the_plain_one_that_of_before_to_the_bit() -> None:
    logits, target = batch(3)
    logits = logits.float()
    weight = torch.tensor(WEIGHTS[1])
    theirs = torch.nn.CrossEntropyLoss(weight, ignore_index=VOID, label_smoothing=0.1)
    expected = float(theirs(logits.flatten(0, 1), target.flatten()))
    loss = made({"loss": "ce", "label_smoothing": 0.1}, WEIGHTS[1], torch.float32)
    assert float(loss(logits, target, loss.total(target))) == pytest.approx(expected, rel=1e-6)
    plain = made({})
    before = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=VOID, reduction="sum")
    before = before / (target != VOID).sum().clamp(min=1)
    assert torch.equal(plain(logits, target, plain.total(target)), before)
    assert torch.equal(pixel_loss(logits, target), before)


def test_focal_of_two_classes_is_the_one_of_a_sigmoid() -> None:
    """torchvision's ``sigmoid_focal_loss`` without alpha: a softmax over (0, z) has the probability sigmoid(z)."""
    z = torch.linspace(-6, 6, 40, dtype=torch.float64)
    truth = (torch.arange(40) % 3 == 0).double()
    p = torch.sigmoid(z)
    crossed = F.binary_cross_entropy_with_logits(z, truth, reduction="none")
    right = p * truth + (1 - p) * (1 - truth)
    expected = float((crossed * (1 - right) ** 2).mean())
    loss = made({"loss": "focal", "focal_gamma": 2.0})
    logits, target = torch.stack([torch.zeros_like(z), z], dim=1)[None], truth.long()[None]
    assert float(loss(logits, target, loss.total(target))) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("weight", WEIGHTS, ids=["alike", "weighed"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_is_that_of_small_differences(case: dict[str, Any], weight: list[float] | None) -> None:
    loss = made(case, weight)
    logits, target = batch(2)
    total = loss.total(target)
    assert torch.autograd.gradcheck(lambda scores: loss(scores, target, total), logits.requires_grad_())


# ---- edges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", WEIGHTS, ids=["alike", "weighed"])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("what", ["void", "certain", "wrong", "one class", "one pixel", "zero"])
def test_loss_and_gradients_are_finite_at_every_edge(what: str, case: dict[str, Any], weight: Any) -> None:
    loss = made(case, weight, torch.float32)
    logits, target = batch(4)
    logits = logits.float()
    if what == "void":
        target = torch.full_like(target, VOID)
    elif what in ("certain", "wrong"):
        right = target.clamp(max=3) if what == "certain" else (target.clamp(max=3) + 1) % 4
        logits = 1e4 * F.one_hot(right, 4).float()
    elif what == "one class":
        target = torch.zeros_like(target)
    elif what == "one pixel":
        target = torch.full_like(target, VOID)
        target[1, 3] = 2
    else:
        logits = torch.zeros_like(logits)
    logits.requires_grad_()
    found = loss(logits, target, loss.total(target))
    found.backward()
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all()) and math.isfinite(float(found.detach()))
    assert bool((logits.grad[target == VOID] == 0).all()), "what is void teaches nothing"
    found = found.detach()
    if what == "void":
        assert float(found) == 0
    if what == "certain" and not case.get("label_smoothing"):
        assert float(found) == pytest.approx(0, abs=1e-6) or case["loss"] == "dice"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_void_pixels_change_nothing_whatever_is_predicted_there(case: dict[str, Any]) -> None:
    loss = made(case, WEIGHTS[1])
    logits, target = batch(5)
    other = torch.where((target == VOID)[:, :, None], 50 * torch.randn_like(logits), logits)
    first, second = (loss(scores, target, loss.total(target)) for scores in (logits, other))
    assert torch.equal(first, second)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_waits_for_no_gpu(case: dict[str, Any]) -> None:
    """On the meta device nothing has a value: whatever asks for one, or for a shape that depends on one, fails."""
    with torch.device("meta"):
        weight = torch.ones(4)
        logits, target = torch.zeros(2, 6, 4, requires_grad=True), torch.zeros(2, 6, dtype=torch.int64)
    for given in (None, weight):
        config = SegmentConfig.model_validate(case)
        loss = LOSSES[config.loss](config, given)
        found = loss(logits, target, loss.total(target))
        assert found.shape == () and found.device.type == "meta" and found.dtype == torch.float32
        found.backward()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_teaches_a_table_of_scores_its_classes(name: str) -> None:
    loss = made({"loss": name})
    _, target = batch(6)
    logits = torch.zeros(3, 11, 4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.2)
    for _ in range(150):
        optimiser.zero_grad()
        loss(logits, target, loss.total(target)).backward()
        optimiser.step()
    there = target != VOID
    assert torch.equal(logits.detach().argmax(dim=2)[there], target[there])


# ---- the recipe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"loss": "dice", "label_smoothing": 0.1}, "segment.label_smoothing 0.1 is not for segment.loss dice: write 0"),
        ({"class_weights": {"car": 0}}, "segment.class_weights.car is 0: write a number above 0"),
        ({"class_weights": {"car": -1}}, "segment.class_weights.car is -1: write a number above 0"),
        ({"class_weights": {"car": 1e7}}, "at most 1,000,000"),
        (
            {"class_weights": {"car": 2}, "class_weighting": "balanced"},
            "balanced makes the weights itself: leave segment.class_weights out",
        ),
        ({"loss": "lovasz"}, "'ce', 'focal', 'dice' or 'ohem'"),
        ({"label_smoothing": 1.0}, "less than 1"),
        ({"ohem_keep": 1.5}, "less than or equal to 1"),
        ({"focal_gamma": -1}, "greater than or equal to 0"),
    ],
)
def test_recipe_that_cannot_be_meant_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        tiny_recipe(**{f"segment__{key}": value for key, value in changes.items()})


def test_weight_of_a_class_that_is_none_is_refused_before_training(runner: Runner) -> None:
    recipe = tiny_recipe(proxy=None, segment__class_weights={"giraffe": 2.0})
    with pytest.raises(RecipeError, match=r"segment\.class_weights names 'giraffe', which is no class .*: write names"):
        runner.train(recipe)
    assert not (runner.run_dir / "checkpoints").exists()


def test_names_and_times_of_before_stay_what_they_were() -> None:
    plain = tiny_recipe(runtime__device="cpu")
    assert stage_names(plain) == {"proxy": "5c4b6b8dfac3371d", "match": "355e95ca1ce3744d"}
    assert work_name(plain) == "714b309d92fff34a"
    assert work_name(tiny_recipe(runtime__device="cpu", segment__class_weights={"a": 2.0})) == work_name(plain)
    assert work_name(tiny_recipe(runtime__device="cpu", segment__loss="dice")) != work_name(plain)
    now = plain.model_dump(mode="json")
    then = json.loads(json.dumps(now))
    for key in ("loss", "focal_gamma", "ohem_threshold", "ohem_keep", "label_smoothing", "class_weights"):
        del then["segment"][key]
    del then["segment"]["class_weighting"]
    assert _work(then, "segment") == _work(now, "segment")
    other = tiny_recipe(runtime__device="cpu", segment__loss="ohem").model_dump(mode="json")
    assert _work(other, "segment") != _work(now, "segment")


def test_balanced_weights_let_every_class_count_alike() -> None:
    pixels = (10, 0, 30, 60)
    found = balanced(pixels)
    assert found == pytest.approx([100 / 30, 0.0, 100 / 90, 100 / 180])
    counted = [weight * count for weight, count in zip(found, pixels, strict=True)]
    assert counted == pytest.approx([100 / 3, 0, 100 / 3, 100 / 3]), "what scikit-learn calls balanced"


# ---- runs ------------------------------------------------------------------------------------------------------------


def small(**changes: Any) -> dict[str, Any]:
    return {"proxy": None, "match": None, **{f"segment__{key}": value for key, value in changes.items()}}


def test_run_tells_the_weights_of_its_classes(runner: Runner, another_runner: Runner) -> None:
    assert runner.train(tiny_recipe(**small(class_weighting="balanced", steps=2))) == "succeeded"
    (event,) = runner.kind("class_weights")
    told = event["values"]
    from engine.data.shapes import class_names
    from engine.events import SilentWriter
    from engine.stages import Context

    recipe = tiny_recipe()
    context = Context(recipe, runner.run_dir, torch.device("cpu"), SilentWriter(), lambda: False)
    labels = context.data("train").labels.numpy()
    counts = [int((labels == number).sum()) for number in range(9)]
    assert told["classes"] == list(class_names(recipe.data)) and told["pixels"] == counts
    present = sum(count > 0 for count in counts)
    expected = [sum(counts) / (present * count) if count else 0.0 for count in counts]
    assert told["weights"] == pytest.approx(expected)
    name = told["classes"][1]
    assert another_runner.train(tiny_recipe(**small(class_weights={name: 3.0}, steps=2))) == "succeeded"
    (event,) = another_runner.kind("class_weights")
    assert event["values"]["weights"] == [1, 3, 1, 1, 1, 1, 1, 1, 1] and "pixels" not in event["values"]


def test_run_without_weights_tells_none(runner: Runner) -> None:
    runner.train(tiny_recipe(**small(steps=1)))
    assert runner.kind("class_weights") == []


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("head", ["hypercolumn", "fcn"])
@pytest.mark.parametrize("loss", ["focal", "dice", "ohem"])
def test_run_with_another_loss_trains_and_goes_on_exactly(
    runner: Runner, another_runner: Runner, loss: str, head: str, precision: str
) -> None:
    smoothing = 0.0 if loss == "dice" else 0.1
    keys = small(loss=loss, class_weighting="balanced", label_smoothing=smoothing)
    recipe = tiny_recipe(**keys, model__head=head, runtime__precision=precision)
    assert another_runner.train(recipe) == "succeeded"
    assert runner.train(recipe, stop=at("segment", 3)) == "stopped"
    assert runner.train(recipe) == "succeeded"
    assert_equal_runs(runner, another_runner, ["segment"])
    assert all(math.isfinite(loss) for loss in runner.losses().values())


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_batch_in_portions_is_the_whole_where_the_loss_is_of_each_pixel(
    runner: Runner, another_runner: Runner, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """Without batch statistics; else the portions have losses of their own, and ``exact`` does not take that."""
    frozen: dict[str, Any] = {"model__backbone": "alexnet_torchvision", "model__dropout": 0.0, "evaluate": None}
    keys = small(loss=loss, batch_size=8, steps=3) | frozen | {"runtime__halve_on_oom": "exact"}
    assert runner.train(tiny_recipe(**keys)) == "succeeded"
    limit_memory(monkeypatch, "segment", 4)
    if loss in ("dice", "ohem"):
        with pytest.raises(EngineError, match=r"runtime\.halve_on_oom=always"):
            another_runner.train(tiny_recipe(**keys))
        keys["runtime__halve_on_oom"] = "always"
        assert Runner(runner.run_dir.parent / "third").train(tiny_recipe(**keys)) == "succeeded"
        (warning,) = Runner(runner.run_dir.parent / "third").kind("warning")
        assert warning["values"]["text"].endswith("in 2 portions from here on, each with a loss of its own")
        return
    assert another_runner.train(tiny_recipe(**keys)) == "succeeded"
    assert list(another_runner.losses().values()) == pytest.approx(list(runner.losses().values()), rel=1e-4)


@torchrun
@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2], ids=["parts of batches", "whole batches"])
@pytest.mark.parametrize("loss", ["focal", "dice", "ohem"])
def test_two_processes_compute_the_loss_of_one(tmp_path: Path, loss: str, accumulate: int) -> None:
    smoothing = 0.0 if loss == "dice" else 0.1
    keys = small(loss=loss, class_weighting="balanced", label_smoothing=smoothing, batch_size=4)
    how = {"runtime__exchange": "retry" if loss == "ohem" else "ddp", "segment__ohem_threshold": 0.05}
    recipe = tiny_recipe(**{**SHARED, **keys, **how, "segment__accumulate": accumulate, "data__train": 7})
    for processes in (1, 2):
        code, told = Ranks(recipe, tmp_path / str(processes), processes, FROZEN).finish()
        assert code == 0, told
    one, two = (losses(tmp_path / str(processes), "segment") for processes in (1, 2))
    assert len(one) == len(two) == 6 and two == pytest.approx(one, rel=1e-4)
    told_by = [events(tmp_path / str(processes), "class_weights") for processes in (1, 2)]
    assert [len(found) for found in told_by] == [1, 1] and told_by[0][0]["values"] == told_by[1][0]["values"]
    first, second = (weights(tmp_path / str(processes), "segment") for processes in (1, 2))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=2e-3, atol=2e-5, msg=name)


@torchrun
@pytest.mark.slow
def test_process_that_lacks_memory_is_heard_where_a_loss_of_the_whole_batch_is_exchanged(tmp_path: Path) -> None:
    keys = small(loss="dice", batch_size=16, accumulate=1, steps=3) | {"runtime__exchange": "retry"}
    recipe = tiny_recipe(**{**SHARED, **keys, "data__train": 16})
    lacking = {"stages": {"segment": 4}, "ranks": [1], "where": "forward", "frozen": True}
    code, told = Ranks(recipe, tmp_path / "run", 2, json.dumps(lacking)).finish()
    assert code == 0, told
    ranks = [(tmp_path / "run" / f"rank_{rank}.txt").read_text() for rank in (0, 1)]
    assert ranks[0] == ranks[1] and all(line.split()[2] == "2" for line in ranks[0].splitlines())
    assert len(losses(tmp_path / "run", "segment")) == 3


def test_pixels_that_are_certain_do_not_fill_up_the_hard_ones() -> None:
    """Their -log p is 0 in float32: with all of them the mean would be that of all pixels."""
    target = torch.zeros((1, 1000), dtype=torch.int64)
    logits = torch.zeros((1, 1000, 2))
    logits[0, :, 0] = 200.0
    logits[0, :50] = torch.tensor([0.0, 3.0])
    for keep, expected in ((0.2, 50 * math.log(1 + math.exp(3)) / 200), (0.05, math.log(1 + math.exp(3)))):
        loss = LOSSES["ohem"](SegmentConfig(loss="ohem", ohem_keep=keep))
        found = loss(logits, target, loss.total(target))
        assert float(found) == pytest.approx(expected, rel=1e-5)
