"""The loop: what is reported when, stages that hand on their weights, and every way a run can end early."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from engine.config import Recipe
from engine.errors import CheckpointError, DataError, EngineError
from engine.metrics import ConfusionMatrix
from engine.models import build_backbone
from engine.stages import segment
from engine.stages.pixel_losses import pixel_loss
from engine.stages.segment import sample_pixels
from engine.stages.training import Updater
from engine.watch import StepClock

Make = Callable[..., Recipe]


class Runner(Protocol):
    run_dir: Path

    def train(self, recipe: Recipe, stop: Any = ...) -> str: ...
    def events(self, attempt: int | None = None) -> list[dict[str, Any]]: ...
    def kind(self, kind: str, stage: str | None = None) -> list[dict[str, Any]]: ...
    def losses(self) -> dict[tuple[str, int], float]: ...
    def weights(self, stage: str) -> bytes: ...


def steps(events: list[dict[str, Any]]) -> list[int]:
    return [event["step"] for event in events]


# ---- what is reported ----------------------------------------------------------------------------------------------


def test_train_all_stages_reports_them_in_order(runner: Runner, make_recipe: Make) -> None:
    assert runner.train(make_recipe()) == "succeeded"
    order = ["proxy", "match", "segment", "evaluate"]
    assert [e["stage"] for e in runner.kind("stage_started")] == order
    assert [e["stage"] for e in runner.kind("stage_finished")] == order
    assert [e["seq"] for e in runner.events()] == list(range(1, len(runner.events()) + 1))
    started = runner.kind("run_started")[0]["values"]
    assert started["stages"] == [["proxy", 3], ["match", 4], ["segment", 6], ["evaluate", 1]]
    assert started["resumed_stage"] == "" and len(started["classes"]) > 1
    last = runner.kind("metrics")[-1]
    assert (last["stage"], last["step"], last["global_step"]) == ("evaluate", 1, 14)


def test_train_metrics_hold_loss_rate_and_speed(runner: Runner, make_recipe: Make) -> None:
    runner.train(make_recipe(proxy=None, match=None))
    values = runner.kind("metrics", "segment")[0]["values"]
    assert {"loss", "lr", "seconds_per_step", "images_per_second"} <= values.keys()
    assert values["images_per_second"] == pytest.approx(2 / values["seconds_per_step"], rel=1e-3)


def test_train_metrics_hold_counted_operations_and_the_share_of_the_data(runner: Runner, make_recipe: Make) -> None:
    runner.train(make_recipe(proxy=None))
    for stage in ("match", "segment"):
        found = [e["values"] for e in runner.kind("metrics", stage) if "seconds_per_step" in e["values"]]
        assert all(0 < values["data_share"] < 1 for values in found)
        flops = [1e12 * values["tflops"] * values["seconds_per_step"] for values in found]
        assert flops == pytest.approx([flops[0]] * len(flops), rel=2e-3), "every step does the same work"
        assert "mfu" not in found[0], "what a CPU could do at most is not known"
    assert not {"tflops", "mfu", "data_share"} & runner.kind("metrics", "evaluate")[-1]["values"].keys()


def test_step_clock_counts_the_operations_of_a_product_and_relates_them_to_the_peak() -> None:
    clock = StepClock(images_per_step=1, peak=1e12)
    left, right = torch.ones(8, 16), torch.ones(16, 4)
    clock.start()
    assert torch.equal(clock.count(lambda: left @ right), left @ right)
    clock.stop()
    assert clock.flops == 2 * 8 * 16 * 4
    rates = clock.rates()
    assert rates["mfu"] == pytest.approx(100 * clock.flops / rates["seconds_per_step"] / 1e12, rel=2e-3)


def test_train_first_loss_of_a_zero_classifier_is_ln_of_the_classes(runner: Runner, make_recipe: Make) -> None:
    runner.train(make_recipe(proxy=None, match=None, segment__steps=1))
    classes = len(runner.kind("run_started")[0]["values"]["classes"])
    first = runner.losses()[("segment", 1)]
    assert first == pytest.approx(float(torch.log(torch.tensor(float(classes)))), rel=1e-5)


@pytest.mark.parametrize(("every", "logged"), [(1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3, 4]), (10, [4])])
def test_train_logs_at_the_interval_and_at_the_last_step(
    runner: Runner, make_recipe: Make, every: int, logged: list[int]
) -> None:
    runner.train(make_recipe(proxy=None, segment=None, evaluate=None, runtime__log_every=every))
    assert steps(runner.kind("metrics", "match")) == logged


@pytest.mark.parametrize(("every", "done"), [(0, []), (1, [1, 2, 3, 4, 5, 6]), (3, [3, 6]), (4, [4]), (7, [])])
def test_train_evaluates_exactly_at_multiples_of_eval_every(
    runner: Runner, make_recipe: Make, every: int, done: list[int]
) -> None:
    runner.train(make_recipe(proxy=None, match=None, segment__eval_every=every, runtime__log_every=100))
    assert steps(runner.kind("confusion", "segment")) == done
    assert steps([e for e in runner.kind("metrics", "segment") if "miou" in e["values"]]) == done
    assert len(runner.kind("confusion", "evaluate")) == 1


def test_train_graph_and_projection_events_come_at_their_intervals(runner: Runner, make_recipe: Make) -> None:
    recipe = make_recipe(proxy=None, segment=None, evaluate=None, match__steps=17, runtime__graph_every=5)
    runner.train(recipe)
    assert steps(runner.kind("graph")) == [5, 10, 15, 17]
    assert steps(runner.kind("projection")) == [1, 2, 4, 6, 8, 10, 12, 14, 16]
    graph, projection = runner.kind("graph")[0]["values"], runner.kind("projection")[0]["values"]
    assert graph["nodes"] == 12 == sum(graph["nodes_per_class"].values())
    assert len(projection["x"]) == len(projection["y"]) == len(projection["label"]) == 12


def test_train_projection_tells_the_edges_of_its_graph(runner: Runner, make_recipe: Make) -> None:
    runner.train(make_recipe(proxy=None, segment=None, evaluate=None, match__steps=6, match__patches_per_image=8))
    for event in runner.kind("projection"):
        values = event["values"]
        labels, order = values["label"], values["order"]
        assert sorted(order) == list(range(len(labels)))
        place = {node: number for number, node in enumerate(order)}
        for node, (positive, negative) in enumerate(zip(values["positive"], values["negative"], strict=True)):
            own = [other for other, label in enumerate(labels) if label == labels[node]]
            first = min(own, key=lambda other: place[other])
            assert labels[positive] == labels[node]
            assert (positive == node) == (len(own) == 1)
            assert node == first or place[positive] < place[node], "a tie to a node that was placed before"
            assert labels[negative] != labels[node] if len(own) < len(labels) else negative == -1


def test_train_tells_how_many_images_make_a_step_and_an_epoch(runner: Runner, make_recipe: Make) -> None:
    runner.train(make_recipe(match__graphs=2, segment__accumulate=3))
    told = {e["stage"]: e["values"] for e in runner.kind("stage_data")}
    assert told == {
        "proxy": {"images_per_step": 2, "images_per_epoch": 5},
        "match": {"images_per_step": 6, "images_per_epoch": 5},
        "segment": {"images_per_step": 6, "images_per_epoch": 5},
    }


def weight_file(recipe: Recipe, path: Path, part: str = "") -> tuple[Path, dict[str, torch.Tensor]]:
    """Weights for the recipe's backbone, none of them random; of those whose names begin with ``part``."""
    state = build_backbone(recipe.model).state_dict()
    tensors = {name: torch.full_like(value, 0.25) for name, value in state.items() if value.is_floating_point()}
    save_file({name: value for name, value in tensors.items() if name.startswith(part)}, path)
    return path, tensors


def test_train_tells_once_what_the_weight_file_has_filled(runner: Runner, make_recipe: Make, tmp_path: Path) -> None:
    plain = make_recipe(proxy=None, match__steps=2, segment__steps=2)
    path, tensors = weight_file(plain, tmp_path / "w.safetensors")
    runner.train(make_recipe(proxy=None, match__steps=2, segment__steps=2, model__weights=str(path)))
    (event,) = runner.kind("weights")
    assert event["stage"] == "match"
    assert event["values"] == {
        "file": str(path),
        "partial": False,
        "loaded": len(tensors),
        "left_out": 0,
        "missing": 0,
        "unexpected": 0,
        "mismatched": 0,
        "first": {"loaded": sorted(tensors)[:4]},
        "notes": [],
    }
    assert runner.kind("warning") == []


def test_train_on_a_part_of_the_weights_is_warned_of(
    runner: Runner, another_runner: Runner, make_recipe: Make, tmp_path: Path
) -> None:
    keys: dict[str, Any] = {"proxy": None, "match": None, "segment__steps": 2}
    path, tensors = weight_file(make_recipe(**keys), tmp_path / "w.safetensors", "stages.1.")
    runner.train(make_recipe(**keys, model__weights=str(path), model__weights_partial=True))
    (event,) = runner.kind("weights")
    lacking = [name for name in sorted(tensors) if not name.startswith("stages.1.")]
    assert (event["values"]["partial"], event["values"]["missing"]) == (True, len(lacking))
    assert event["values"]["first"]["missing"] == lacking[:4]
    (warning,) = runner.kind("warning")
    assert f"{path} fills 5 of {len(tensors)}" in warning["values"]["text"]
    assert lacking[0] in warning["values"]["text"]
    with pytest.raises(CheckpointError, match=r"model\.weights_partial"):
        another_runner.train(make_recipe(**keys, model__weights=str(path)))


def test_stage_after_the_first_does_not_read_the_weight_file(runner: Runner, make_recipe: Make, tmp_path: Path) -> None:
    """The backbone is that of the stage before: a file that has gone meanwhile is of no account."""
    keys: dict[str, Any] = {"proxy": None, "match__steps": 2, "segment__steps": 2}
    path, _ = weight_file(make_recipe(**keys), tmp_path / "w.safetensors")
    recipe = make_recipe(**keys, model__weights=str(path))
    assert runner.train(recipe, stop=lambda events: events[-1]["kind"] == "stage_finished") == "stopped"
    path.unlink()
    assert runner.train(recipe) == "succeeded"
    assert len(runner.kind("weights")) == 1


SINGLE: list[tuple[dict[str, Any], bool]] = [
    ({"backbone": "resnet18", "width": 0.0625, "head": "aspp", "dilated": True}, True),
    ({"backbone": "alexnet_torchvision", "width": 0.0625, "head": "fcn"}, False),
    ({"backbone": "alexnet", "width": 0.0625, "head": "fcn"}, False),
    ({"backbone": "alexnet_torchvision", "width": 0.0625, "head": "fcn32"}, True),
    ({"backbone": "tiny_vgg", "width": 0.25, "head": "hypercolumn"}, True),
]


@pytest.mark.parametrize(("model", "fine"), SINGLE)
def test_train_on_single_images_whose_maps_are_single_cells_is_refused_before_it_begins(
    runner: Runner, make_recipe: Make, model: dict[str, Any], fine: bool
) -> None:
    """Batch normalisation has nothing to normalise by where a channel has one value."""
    keys = {"segment__batch_size": 1, "segment__crop": 32, "segment__steps": 2, "segment__eval_every": 0}
    model = {**model, "head_channels": 8, "fc_channels": 8, "extra_channels": 0}
    settings = {"proxy": None, "match": None, "evaluate": None, "model": model, **keys}
    if fine:
        assert runner.train(make_recipe(**settings)) == "succeeded"
        return
    with pytest.raises(ValidationError, match=r"segment\.batch_size 1 .* segment\.crop 32"):
        make_recipe(**settings)
    settings["segment__batch_size"] = 2
    assert runner.train(make_recipe(**settings)) == "succeeded"


def test_train_image_events_name_small_png_files_that_exist(runner: Runner, make_recipe: Make) -> None:
    runner.train(make_recipe(proxy=None, match=None, evaluate__show_images=2))
    last = {e["values"]["index"]: e["values"] for e in runner.kind("image", "evaluate")}
    assert sorted(last) == [0, 1]
    for kind in ("image", "truth", "prediction"):
        with Image.open(runner.run_dir / last[1][kind]) as picture:
            assert picture.size == (32, 32)


def test_evaluate_matrix_equals_a_recount_of_the_saved_predictions(runner: Runner, make_recipe: Make) -> None:
    runner.train(make_recipe(proxy=None, match=None))
    event = runner.kind("confusion", "evaluate")[0]["values"]
    folder = runner.run_dir / event["predictions"]
    names = sorted(path.name for path in folder.glob("*.png"))
    assert len(names) == event["images"] == 3
    counts = ConfusionMatrix(len(event["classes"]))
    for name in names:
        guess, truth = Image.open(folder / name), Image.open(folder / "truth" / name)
        for g, t in zip(guess.get_flattened_data(), truth.get_flattened_data(), strict=True):
            assert isinstance(g, int) and isinstance(t, int)
            if t != 255:
                counts.matrix[t, g] += 1
    assert counts.matrix.tolist() == event["matrix"]
    miou = runner.kind("metrics", "evaluate")[0]["values"]["miou"]
    assert miou == pytest.approx(100 * counts.mean_iou())


def test_train_without_saved_predictions_writes_none(runner: Runner, make_recipe: Make) -> None:
    runner.train(make_recipe(proxy=None, match=None, evaluate__save_predictions=False))
    assert runner.kind("confusion", "evaluate")[0]["values"]["predictions"] == ""
    assert not (runner.run_dir / "predictions").exists()


def test_train_progress_lines_tell_stage_step_loss_and_time_left(runner: Runner, make_recipe: Make) -> None:
    from engine.events import EventWriter
    from engine.loop import train

    lines: list[str] = []
    writer = EventWriter.open_for_attempt(runner.run_dir, 1)
    train(make_recipe(proxy=None, evaluate=None), runner.run_dir, writer, 1, lambda: False, lines.append)
    assert lines[0].startswith("match 1/4  loss ") and " eta " in lines[0]
    assert lines[-1].startswith("segment 6/6  loss ") and "eta" not in lines[-1]


# ---- what is computed ----------------------------------------------------------------------------------------------


def test_train_stage_starts_from_the_output_of_the_one_before(runner: Runner, make_recipe: Make) -> None:
    frozen = {"optim": {"lr": 1e-30}}
    recipe = make_recipe(match={**make_recipe().match.model_dump(), **frozen}, segment=None, evaluate=None)  # type: ignore[union-attr]
    runner.train(recipe)
    proxy = load_file(runner.run_dir / "checkpoints/proxy/final/model.safetensors")
    match = load_file(runner.run_dir / "checkpoints/match/final/model.safetensors")
    weights = [key for key in match if key.endswith("conv.weight")]
    assert weights
    for key in weights:
        assert torch.equal(proxy[key], match[key])


def test_train_runs_that_differ_in_their_stages_start_from_equal_weights(
    runner: Runner, another_runner: Runner, make_recipe: Make
) -> None:
    runner.train(make_recipe(match=None, segment=None, evaluate=None, proxy__optim={"lr": 1e-30}))
    another_runner.train(make_recipe(proxy=None, segment=None, evaluate=None, match__optim={"lr": 1e-30}))
    first = load_file(runner.run_dir / "checkpoints/proxy/final/model.safetensors")
    second = load_file(another_runner.run_dir / "checkpoints/match/final/model.safetensors")
    for key in [key for key in second if key.endswith("conv.weight")]:
        assert torch.equal(first[key], second[key])


def test_train_evaluating_on_the_way_does_not_change_the_losses(
    runner: Runner, another_runner: Runner, make_recipe: Make
) -> None:
    runner.train(make_recipe(proxy=None, match=None, segment__eval_every=0))
    another_runner.train(make_recipe(proxy=None, match=None, segment__eval_every=1))
    assert runner.losses() == another_runner.losses()
    assert runner.weights("segment") == another_runner.weights("segment")


Place = tuple[int, int, int, bool]
"""Of a crop: image, top, left, mirrored."""


def find_crop(crop: torch.Tensor, images: torch.Tensor) -> Place:
    """Where a crop (3, s, s) comes from, by comparison with every window of every image, as it is and mirrored."""
    side, found = crop.shape[2], []
    for mirrored in (False, True):
        wanted = crop.flip(2) if mirrored else crop
        windows = images.unfold(2, side, 1).unfold(3, side, 1)
        same = (windows == wanted[:, None, None]).flatten(4).all(4).all(1)
        found += [(image, top, left, mirrored) for image, top, left in same.nonzero().tolist()]
    (place,) = found
    return place


Portion = tuple[torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]


def watch_portions(
    monkeypatch: pytest.MonkeyPatch, note: Callable[[segment.SegmentStage, Portion, torch.Tensor], None]
) -> None:
    """Have ``note`` told of everything that the segment stage differentiates: what it is given, and its loss."""
    portion = segment.SegmentStage._portion

    def watched(stage: segment.SegmentStage, *given: Any) -> torch.Tensor:
        loss = portion(stage, *given)
        note(stage, given, loss)  # type: ignore[arg-type]
        return loss

    monkeypatch.setattr(segment.SegmentStage, "_portion", watched)


def test_train_accumulated_batches_are_different_images_of_one_step(
    runner: Runner, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three batches of two out of five images: an epoch ends within a step, and within a batch."""
    seen: list[tuple[list[Place], torch.Tensor]] = []
    losses: list[float] = []

    def note(stage: segment.SegmentStage, given: Portion, loss: torch.Tensor) -> None:
        images, where, target, _ = given
        found = [find_crop(crop, stage.data.images.cpu()) for crop in images.cpu()]
        for (image, top, left, mirrored), ys, xs, classes in zip(found, *where, target, strict=True):
            labels = stage.data.labels[image, top : top + 24, left : left + 24]
            labels = labels.flip(1) if mirrored else labels
            assert torch.equal(labels[ys, xs].long(), classes), "labels are cut as the image is"
        seen.append((found, torch.stack(where).cpu()))
        losses.append(float(loss.detach()))

    watch_portions(monkeypatch, note)
    runner.train(make_recipe(proxy=None, match=None, evaluate=None, segment__accumulate=3, segment__crop=24))
    assert [len(found) for found, _ in seen] == [2] * 18 and len(runner.losses()) == 6
    order = [place[0] for found, _ in seen for place in found]
    epochs = [order[first : first + 5] for first in range(0, 35, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs), "each image once before any comes again"
    assert len({tuple(epoch) for epoch in epochs}) > 1, "in an order of its own"
    for step in range(6):
        own = seen[3 * step : 3 * step + 3]
        assert len({tuple(place[1:] for place in found) for found, _ in own}) == 3, "cut at other places"
        assert len({tuple(pixels.flatten().tolist()) for _, pixels in own}) == 3, "read at other pixels"
        told = runner.losses()[("segment", step + 1)]
        assert told == pytest.approx(sum(losses[3 * step : 3 * step + 3]) / 3, rel=1e-5)
    values = runner.kind("metrics", "segment")[0]["values"]
    assert values["images_per_second"] == pytest.approx(6 / values["seconds_per_step"], rel=1e-3)


def test_train_accumulated_gradient_is_the_mean_of_those_of_its_batches(
    runner: Runner, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every pass's own loss, computed once more without the passes beside it."""
    apart: list[dict[str, torch.Tensor]] = []
    apply, compared = Updater.apply, []

    def note(stage: segment.SegmentStage, _: Portion, loss: torch.Tensor) -> None:
        parameters = dict(stage.module.named_parameters())
        gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
        apart.append({name: g for name, g in zip(parameters, gradients, strict=True) if g is not None})

    def checked(updater: Updater) -> None:
        for name, parameter in updater.module.named_parameters():
            expected = sum(own[name] for own in apart) / len(apart)
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6, msg=name)
        compared.append(len(apart))
        apart.clear()
        apply(updater)

    watch_portions(monkeypatch, note)
    monkeypatch.setattr(Updater, "apply", checked)
    changes: dict[str, Any] = {"segment__accumulate": 3, "segment__steps": 3, "model__dropout": 0.0}
    runner.train(make_recipe(proxy=None, match=None, evaluate=None, **changes))
    assert compared == [3, 3, 3]


def test_train_bf16_computes_finite_losses_that_differ_from_fp32(
    runner: Runner, another_runner: Runner, make_recipe: Make
) -> None:
    runner.train(make_recipe(evaluate=None, runtime__precision="bf16"))
    another_runner.train(make_recipe(evaluate=None))
    low, full = runner.losses(), another_runner.losses()
    assert low.keys() == full.keys() and low != full
    assert all(low[key] == pytest.approx(full[key], rel=0.2) for key in low)


def test_train_gray_input_passes_all_stages(runner: Runner, make_recipe: Make) -> None:
    assert runner.train(make_recipe(model__input="gray")) == "succeeded"


def test_pixel_loss_leaves_void_out_and_survives_all_void() -> None:
    logits = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]], requires_grad=True)
    one = pixel_loss(logits, torch.tensor([[0, 255]]))
    assert float(one.detach()) == pytest.approx(float(torch.log1p(torch.exp(torch.tensor(-2.0)))))
    none = pixel_loss(logits, torch.tensor([[255, 255]]))
    none.backward()
    assert float(none.detach()) == 0 and logits.grad is not None and float(logits.grad.abs().sum()) == 0


def test_sample_pixels_keep_the_margin_and_reach_both_ends() -> None:
    drawn = sample_pixels(torch.zeros(4, 16, 16), 400, 5, torch.Generator().manual_seed(0))
    assert drawn.shape == (4, 400) and (int(drawn.min()), int(drawn.max())) == (5, 10)
    whole = sample_pixels(torch.zeros(1, 3, 3), 100, 9, torch.Generator().manual_seed(0))
    assert whole.unique().tolist() == [1]


# ---- ends before the end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_every", [1, 100])
def test_train_loss_that_is_no_number_names_stage_and_step_and_saves_nothing(
    runner: Runner, make_recipe: Make, log_every: int
) -> None:
    recipe = make_recipe(
        proxy=None, match=None, segment__optim={"lr": 1e30}, runtime__log_every=log_every, runtime__checkpoint_every=1
    )
    with pytest.raises(EngineError, match=r"at step [23] of stage segment; lower segment\.optim\.lr"):
        runner.train(recipe)
    kept = sorted((runner.run_dir / "checkpoints/segment").glob("step_*"))
    assert len(kept) <= 2 and not (runner.run_dir / "checkpoints/segment/final").exists()
    for path in kept:
        assert int(path.name.split("_")[1]) < 3


def test_train_data_that_cannot_be_read_raise_a_data_error(runner: Runner, make_recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        runner.train(make_recipe(data={"kind": "folder", "root": str(tmp_path / "nowhere")}))


def test_train_data_larger_than_the_budget_are_refused(runner: Runner, make_recipe: Make) -> None:
    with pytest.raises(DataError, match="memory_budget_gib"):
        runner.train(make_recipe(runtime__memory_budget_gib=1e-9, runtime__data_cache="none"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_train_gpu_asked_for_where_there_is_none_says_what_to_set(runner: Runner, make_recipe: Make) -> None:
    with pytest.raises(EngineError, match=r"runtime\.device=auto or cpu"):
        runner.train(make_recipe(runtime__device="cuda"))


def test_train_out_of_memory_names_the_keys_to_lower() -> None:
    from engine.watch import out_of_memory

    recipe = Recipe.model_validate({"segment": {"steps": 1}})
    gpu = out_of_memory(torch.OutOfMemoryError("x"), recipe, "segment", torch.device("cuda"))
    nccl = torch.distributed.DistBackendError("NCCL error: ncclUnhandledCudaError\nCuda failure 2 'out of memory'")
    assert str(out_of_memory(nccl, recipe, "segment", torch.device("cuda"))) == str(gpu)
    timed_out = torch.distributed.DistBackendError("NCCL error: remote process exited")
    assert out_of_memory(timed_out, recipe, "segment", torch.device("cuda")) is None
    assert gpu is not None and "segment.batch_size" in str(gpu) and "precision=bf16" in str(gpu)
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 62, dtype=torch.uint8)
    cpu = out_of_memory(caught.value, recipe, "match", torch.device("cpu"))
    assert cpu is not None and str(cpu).startswith("this machine has too little memory") and "match.images" in str(cpu)
    assert out_of_memory(RuntimeError("else"), recipe, "match", torch.device("cpu")) is None


def test_checkpoint_event_names_the_folder_and_its_size(runner: Runner, make_recipe: Make) -> None:
    # The step checkpoints of a finished stage are gone; one stage is left unfinished.
    runner.train(
        make_recipe(proxy=None, runtime__checkpoint_every=2),
        stop=lambda events: events[-1]["stage"] == "match" and events[-1]["step"] >= 3,
    )
    values = runner.kind("checkpoint")[-1]["values"]
    folder = runner.run_dir / values["path"]
    assert values["path"] == "checkpoints/match/step_00000003"
    assert values["bytes"] == sum(file.stat().st_size for file in folder.iterdir())
    assert json.loads((folder / "meta.json").read_text())["recipe"]["name"] == "tiny"
