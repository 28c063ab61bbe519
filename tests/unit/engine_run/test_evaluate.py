"""The evaluate stage: its events, its files, protocols in a run, and ensembles with the networks of other runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from PIL import Image

from engine import determinism
from engine.checkpoint import load_module
from engine.config import Recipe
from engine.data import cityscapes
from engine.data.pipeline import normalise
from engine.data.registry import build_data
from engine.errors import RecipeError
from engine.models import build_backbone
from engine.models.heads import HypercolumnSegmenter
from engine.stages.palette import overlay, palette_of, to_palette_image, voc_palette

Make = Callable[..., Recipe]
SEGMENT = {"proxy": None, "match": None}


class Runner(Protocol):
    run_dir: Path

    def train(self, recipe: Recipe, stop: Any = ...) -> str: ...
    def events(self, attempt: int | None = None) -> list[dict[str, Any]]: ...
    def kind(self, kind: str, stage: str | None = None) -> list[dict[str, Any]]: ...


def recount(runner: Runner, folder: str = "predictions") -> list[list[int]]:
    """The confusion matrix, pixel by pixel, of the files in a run's prediction folder."""
    classes = len(runner.kind("run_started")[0]["values"]["classes"])
    counts = [[0] * classes for _ in range(classes)]
    for path in sorted((runner.run_dir / folder).glob("*.png")):
        guess, truth = (np.asarray(Image.open(p)) for p in (path, path.parent / "truth" / path.name))
        assert guess.shape == truth.shape
        for g, t in zip(guess.flatten().tolist(), truth.flatten().tolist(), strict=True):
            if t != 255:
                counts[t][g] += 1
    return counts


def network(runner: Runner, recipe: Recipe, classes: int) -> HypercolumnSegmenter:
    """The segmentation network of a finished run."""
    model = HypercolumnSegmenter(
        build_backbone(recipe.model, determinism.generator(0, "any")),
        classes,
        recipe.model,
        determinism.generator(0, ""),
    )
    load_module(runner.run_dir / "checkpoints/segment/final", model)
    return model.eval()


# ---- events --------------------------------------------------------------------------------------------------------


def test_evaluate_events_carry_the_step_that_is_done(runner: Runner, make_recipe: Make) -> None:
    runner.train(make_recipe(**SEGMENT))
    told = [e for e in runner.events() if e["stage"] == "evaluate" and e["kind"] in ("confusion", "image", "metrics")]
    assert {e["kind"] for e in told} == {"confusion", "image", "metrics"}
    assert {(e["step"], e["global_step"]) for e in told} == {(1, 7)}
    on_the_way = list(runner.kind("confusion", "segment"))
    assert [(e["step"], e["global_step"]) for e in on_the_way] == [(3, 3), (6, 6)]


def test_evaluate_metrics_are_percentages_of_the_recounted_matrix(runner: Runner, make_recipe: Make) -> None:
    runner.train(make_recipe(**SEGMENT))
    counts = np.array(recount(runner), dtype=float)
    hits, truth, guessed = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    iou = [h / (t + g - h) for h, t, g in zip(hits, truth, guessed, strict=True) if t + g > 0]
    values = runner.kind("metrics", "evaluate")[-1]["values"]
    assert values["miou"] == pytest.approx(100 * sum(iou) / len(iou))
    assert values["pixel_accuracy"] == pytest.approx(100 * hits.sum() / counts.sum())
    assert values["mean_accuracy"] == pytest.approx(100 * np.mean(hits[truth > 0] / truth[truth > 0]))
    share = truth / counts.sum()
    weighted = sum(s * h / (t + g - h) for s, h, t, g in zip(share, hits, truth, guessed, strict=True) if t > 0)
    assert values["frequency_weighted_iou"] == pytest.approx(100 * weighted)
    meta = json.loads((runner.run_dir / "checkpoints/evaluate/final/meta.json").read_text())
    assert meta["miou"] == values["miou"] and meta["mean_accuracy"] == values["mean_accuracy"]


@pytest.mark.parametrize("protocol", ["fit", "windows"])
def test_evaluate_by_a_protocol_counts_what_it_saves(runner: Runner, make_recipe: Make, protocol: str) -> None:
    settings = {"protocol": protocol, "side": 24, "window_stride": 16, "stride": 2, "batch_size": 2, "flip": True}
    runner.train(make_recipe(**SEGMENT, evaluate=settings, data__width=40))
    event = runner.kind("confusion", "evaluate")[0]["values"]
    assert (event["protocol"], event["networks"], event["images"]) == (protocol, 1, 3)
    assert event["matrix"] == recount(runner)
    with Image.open(next((runner.run_dir / "predictions").glob("*.png"))) as picture:
        assert picture.size == (40, 32)


def test_evaluate_plain_predictions_are_those_of_the_network(runner: Runner, make_recipe: Make) -> None:
    recipe = make_recipe(**SEGMENT, evaluate__stride=2)
    runner.train(recipe)
    data = build_data(recipe.data, "val", 2**30)
    model = network(runner, recipe, data.num_classes)
    expected = model.dense_logits(normalise(data.images[:2], "rgb"), 2).argmax(dim=1)
    for name, classes in zip(data.names[:2], expected, strict=True):
        saved = np.asarray(Image.open(runner.run_dir / f"predictions/{name}.png"))
        assert np.array_equal(saved, classes.numpy())


# ---- files ---------------------------------------------------------------------------------------------------------


def test_evaluate_saves_index_pictures_with_a_palette(runner: Runner, make_recipe: Make) -> None:
    recipe = make_recipe(**SEGMENT)
    runner.train(recipe)
    data = build_data(recipe.data, "val", 2**30)
    for name, labels in zip(data.names, data.labels, strict=True):
        for path in (f"predictions/{name}.png", f"predictions/truth/{name}.png"):
            with Image.open(runner.run_dir / path) as picture:
                assert picture.mode == "P" and picture.getpalette() == voc_palette()[: len(picture.getpalette() or [])]
        with Image.open(runner.run_dir / f"predictions/truth/{name}.png") as picture:
            assert np.array_equal(np.asarray(picture), labels.numpy())
    left_over = list(runner.run_dir.rglob("*.writing"))
    assert left_over == []


def test_evaluate_overlays_are_the_mean_of_image_and_colours(runner: Runner, make_recipe: Make) -> None:
    recipe = make_recipe(**SEGMENT, evaluate__overlays=True, evaluate__save_predictions=False)
    runner.train(recipe)
    assert not (runner.run_dir / "predictions").exists()
    data = build_data(recipe.data, "val", 2**30)
    model = network(runner, recipe, data.num_classes)
    classes = model.dense_logits(normalise(data.images, "rgb")).argmax(dim=1)
    for index, name in enumerate(data.names):
        with Image.open(runner.run_dir / f"overlays/{name}.png") as picture:
            assert picture.mode == "RGB"
            shown = np.asarray(picture)
        for y, x in ((0, 0), (7, 19), (31, 31)):
            label = int(classes[index, y, x])
            for channel in range(3):
                pixel, colour = int(data.images[index, channel, y, x]), voc_palette()[3 * label + channel]
                assert shown[y, x, channel] in (int((pixel + colour) / 2), int((pixel + colour + 1) / 2))


def test_evaluate_on_the_way_keeps_no_predictions_and_no_overlays(runner: Runner, make_recipe: Make) -> None:
    recipe = make_recipe(**SEGMENT, evaluate__overlays=True)
    runner.train(recipe, stop=lambda events: events[-1]["stage"] == "segment" and events[-1]["step"] >= 5)
    assert len(runner.kind("confusion", "segment")) == 1 and len(runner.kind("image", "segment")) == 1
    assert not (runner.run_dir / "predictions").exists() and not (runner.run_dir / "overlays").exists()


def test_palette_of_cityscapes_is_its_table_and_void_is_black() -> None:
    palette = palette_of(cityscapes.CLASSES)
    by_name = {name: tuple(palette[3 * i : 3 * i + 3]) for i, name in enumerate(cityscapes.CLASSES)}
    assert len(palette) == 768 and palette[-3:] == [0, 0, 0]
    assert by_name["road"] == (128, 64, 128) and by_name["sky"] == (70, 130, 180) and by_name["car"] == (0, 0, 142)
    assert by_name["bicycle"] == (119, 11, 32) and len(set(by_name.values())) == 19


def test_palette_of_other_data_is_that_of_voc() -> None:
    palette = palette_of(("a", "b"))
    # The published colours: background, aeroplane, bicycle, ..., tv monitor, void.
    expected = {
        0: [0, 0, 0],
        1: [128, 0, 0],
        2: [0, 128, 0],
        15: [192, 128, 128],
        20: [0, 64, 128],
        255: [224, 224, 192],
    }
    assert {i: palette[3 * i : 3 * i + 3] for i in expected} == expected


def test_overlay_of_extreme_colours_neither_wraps_nor_loses_pixels() -> None:
    picture = np.array([[[255, 255, 255], [0, 0, 0]]], dtype=np.uint8)
    palette = [255] * 3 + [0] * 765
    assert np.asarray(overlay(picture, np.array([[0, 1]], dtype=np.uint8), palette)).tolist() == [
        [[255, 255, 255], [0, 0, 0]]
    ]
    index = np.array([[3, 250], [255, 0]], dtype=np.uint8)
    assert np.array_equal(np.asarray(to_palette_image(index, palette)), index)


# ---- ensembles -----------------------------------------------------------------------------------------------------


def test_ensemble_counts_the_mean_probabilities_of_both_networks(
    runner: Runner, another_runner: Runner, make_recipe: Make
) -> None:
    first = make_recipe(**SEGMENT, seed=1, model__input="gray", segment__eval_every=0)
    another_runner.train(first)
    recipe = make_recipe(**SEGMENT, evaluate__ensemble=[str(another_runner.run_dir)])
    runner.train(recipe)
    data = build_data(recipe.data, "val", 2**30)
    shares = torch.zeros(())
    for run, own in ((another_runner, first), (runner, recipe)):
        model = network(run, own, data.num_classes)
        shares = shares + model.dense_logits(normalise(data.images, own.model.input)).softmax(dim=1)
    for name, classes in zip(data.names, shares.argmax(dim=1), strict=True):
        saved = np.asarray(Image.open(runner.run_dir / f"predictions/{name}.png"))
        assert np.array_equal(saved, classes.numpy())
    event = runner.kind("confusion", "evaluate")[0]["values"]
    assert event["networks"] == 2 and event["matrix"] == recount(runner)
    assert [e["values"]["networks"] for e in runner.kind("confusion", "segment")] == [1, 1]


def test_ensemble_member_whose_start_weights_are_gone_still_counts(
    runner: Runner, another_runner: Runner, make_recipe: Make, tmp_path: Path
) -> None:
    another_runner.train(make_recipe(**SEGMENT, evaluate=None))
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes((another_runner.run_dir / "checkpoints/segment/final/model.safetensors").read_bytes())
    member = tmp_path / "member"
    Runner_ = type(another_runner)
    Runner_(member).train(make_recipe(**SEGMENT, evaluate=None, model__weights=str(weights)))  # type: ignore[call-arg]
    weights.unlink()
    runner.train(make_recipe(**SEGMENT, evaluate__ensemble=[str(member)]))
    assert runner.kind("confusion", "evaluate")[0]["values"]["networks"] == 2


def refused(runner: Runner, recipe: Recipe, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        runner.train(recipe)


def test_ensemble_of_a_folder_that_is_not_there_is_refused_before_any_training(
    runner: Runner, make_recipe: Make
) -> None:
    refused(runner, make_recipe(**SEGMENT, evaluate__ensemble=["/nowhere/run"]), "/nowhere/run, which is no folder")
    refused(runner, make_recipe(**SEGMENT, evaluate__ensemble=[""]), "names no run: write the directory of a run")
    assert runner.kind("metrics") == []


def test_ensemble_of_other_classes_is_refused_before_any_training(
    runner: Runner, another_runner: Runner, make_recipe: Make
) -> None:
    another_runner.train(make_recipe(**SEGMENT, evaluate=None))
    file = another_runner.run_dir / "checkpoints/segment/final/meta.json"
    meta = json.loads(file.read_text())
    file.write_text(json.dumps({**meta, "classes": ["sky", "sea"]}))
    recipe = make_recipe(**SEGMENT, evaluate__ensemble=[str(another_runner.run_dir)])
    refused(runner, recipe, "whose classes are sky, sea instead of background, .*: write runs with the same classes")
    file.write_text(json.dumps({**meta, "recipe": {"seed": "x"}}))
    refused(runner, recipe, "whose recipe cannot be read")
    assert runner.kind("metrics") == []


def test_ensemble_of_other_data_is_refused_but_another_number_of_images_is_not(
    runner: Runner, another_runner: Runner, make_recipe: Make
) -> None:
    another_runner.train(make_recipe(**SEGMENT, evaluate=None, data__train=4, data__val=1))
    ensemble = [str(another_runner.run_dir)]
    refused(
        runner,
        make_recipe(**SEGMENT, evaluate__ensemble=ensemble, data__height=48),
        r"whose data\.height is 32 instead of 48: write runs on the same data",
    )
    assert runner.kind("metrics") == []
    runner.train(make_recipe(**SEGMENT, evaluate__ensemble=ensemble))
    assert runner.kind("confusion", "evaluate")[0]["values"]["networks"] == 2


def test_ensemble_run_that_has_not_finished_may_do_so_until_the_evaluation(
    runner: Runner, another_runner: Runner, make_recipe: Make
) -> None:
    another_runner.run_dir.mkdir()
    recipe = make_recipe(**SEGMENT, evaluate__ensemble=[str(another_runner.run_dir)])
    refused(runner, recipe, "holds no finished segment stage")
    assert len(runner.kind("metrics", "segment")) == 6
    another_runner.train(make_recipe(**SEGMENT, evaluate=None))
    assert runner.train(recipe) == "succeeded"
    assert len(runner.kind("metrics", "segment")) == 6, "the training was not done again"


def test_protocol_that_contradicts_itself_is_refused_before_any_training(runner: Runner, make_recipe: Make) -> None:
    wrong = {"protocol": "windows", "side": 16, "window_stride": 32}
    refused(runner, make_recipe(**SEGMENT, evaluate=wrong), r"evaluate\.window_stride 32")
    assert runner.kind("metrics") == []
