"""Recipes of the paper against its tables and the settings of its release, typed in here a second time.

``docs/make_paper_recipes.py`` writes those recipes: what it has wrong, a comparison with it does not find.
"""

from __future__ import annotations

from functools import cache, reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from engine.config import Recipe, load_recipe
from engine.config.schema import OptimConfig
from engine.data import cityscapes, voc
from engine.optim import learning_rate

FOLDER = Path(__file__).resolve().parents[3] / "recipes"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem.startswith(("voc_", "cityscapes_")))


@cache
def shipped(name: str) -> Recipe:
    return load_recipe(name, (), [FOLDER])


# ---- published results ---------------------------------------------------------------------------------------------

# Table 1, mean IoU of VOC 2012 val: the rows that a recipe repeats.
TABLE_1 = {
    "voc_vgg16_imagenet_baseline": 64.2,
    "voc_vgg16_random_baseline": 35.0,
    "voc_vgg16_colorization_mixmatch": 64.5,
    "voc_alexnet_imagenet_baseline": 48.0,
    "voc_alexnet_random_baseline": 23.5,
    "voc_alexnet_colorization_baseline": 38.4,
    "voc_alexnet_colorization_triplets": 40.9,
    "voc_alexnet_colorization_mixmatch": 42.8,
    "voc_alexnet_random_mixmatch": 43.6,
}
# Table 2, IoU of each class of VOC 2012 val with VGG-16, and the mean, which counts the background as well.
TABLE_2_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
TABLE_2 = {
    "voc_vgg16_imagenet_baseline": (
        *(81.7, 37.4, 73.3, 55.8, 59.6, 82.4, 74.7, 82.4, 30.8, 60.3),
        *(46.1, 71.4, 65.3, 72.6, 76.7, 49.7, 70.6, 34.2, 72.7, 60.2),
        64.2,
    ),
    "voc_vgg16_colorization_baseline": (
        *(73.6, 28.5, 67.5, 55.5, 50.2, 78.3, 66.1, 78.3, 26.8, 60.8),
        *(50.6, 70.6, 64.9, 62.2, 73.5, 38.2, 66.8, 38.8, 68.1, 55.1),
        60.2,
    ),
    "voc_vgg16_colorization_mixmatch": (
        *(83.1, 37.0, 69.6, 56.1, 62.9, 84.4, 76.4, 82.8, 33.4, 61.5),
        *(44.7, 67.3, 68.5, 68.0, 78.5, 42.2, 72.7, 37.2, 75.7, 58.6),
        64.5,
    ),
    "voc_vgg16_ensemble": (
        *(84.5, 39.4, 76.3, 60.3, 64.6, 85.4, 77.7, 84.1, 35.6, 63.6),
        *(50.4, 70.6, 72.0, 73.6, 80.1, 50.2, 73.7, 37.6, 77.8, 66.6),
        67.4,
    ),
}
TABLE_2_MEANS = {
    "voc_vgg16_imagenet_baseline": 62.90,
    "voc_vgg16_colorization_baseline": 58.72,
    "voc_vgg16_colorization_mixmatch": 63.03,
    "voc_vgg16_ensemble": 66.20,
}
"""Of the twenty classes: a check of what was typed."""
# Table 3: by column, without and with mix-and-match.
TABLE_3 = {
    "voc_alexnet_random": (19.8, 43.6),
    "voc_alexnet_jigsaw": (36.5, 41.2),
    "voc_alexnet_colorization": (38.4, 42.8),
    "voc_vgg16_random": (35.0, 56.7),
    "voc_vgg16_colorization": (60.2, 64.5),
    "cityscapes_vgg16_random": (42.5, 49.1),
    "cityscapes_vgg16_colorization": (57.5, 66.4),
}
TABLE_3_IMAGENET = {"voc_alexnet": 48.0, "voc_vgg16": 64.2, "cityscapes_vgg16": 67.9}
TABLE_3_TEST_SET = {"voc_vgg16_colorization_mixmatch": 64.3, "cityscapes_vgg16_colorization_mixmatch": 65.6}
GRAPH_SIZES = {
    "voc_alexnet_colorization_graph100": 42.0,
    "voc_alexnet_colorization_graph200": 42.4,
    "voc_alexnet_colorization_graph400": 42.8,
}
TWICE = {"voc_alexnet_random_baseline"}
"""The tables disagree on it, 23.5 and 19.8; the recipe tells both."""


def published() -> dict[str, float]:
    """Mean IoU by recipe, from table 3 where it has a number, else from wherever one stands."""
    third = {f"{column}_baseline": before for column, (before, _) in TABLE_3.items()}
    third |= {f"{column}_mixmatch": after for column, (_, after) in TABLE_3.items()}
    third |= {f"{column}_imagenet_baseline": miou for column, miou in TABLE_3_IMAGENET.items()}
    return TABLE_1 | GRAPH_SIZES | {name: row[-1] for name, row in TABLE_2.items()} | third


def test_tables_typed_here_agree_with_each_other() -> None:
    known = published()
    assert {name for name, miou in TABLE_1.items() if known[name] != miou} == TWICE
    assert {name for name, row in TABLE_2.items() if known[name] != row[-1]} == set()
    for name, row in TABLE_2.items():
        assert len(row) == 21 and sum(row[:20]) / 20 == pytest.approx(TABLE_2_MEANS[name], abs=0.006)


@pytest.mark.parametrize("name", NAMES)
def test_paper_recipe_tells_the_published_results_and_no_others(name: str) -> None:
    told = shipped(name).reference
    assert told.miou == published().get(name)
    row = TABLE_2.get(name, ())
    assert told.per_class == (dict(zip(TABLE_2_CLASSES, row[:20], strict=True)) if row else {})
    assert set(told.per_class) <= set(voc.CLASSES), "names of the data, beside which a screen shows them"
    assert (told.miou is None) == (told.source == "")
    if name in TWICE:
        assert "23.5" in told.source
    if name in TABLE_3_TEST_SET:
        assert f"{TABLE_3_TEST_SET[name]} on the test set" in told.source


def test_paper_recipes_cover_every_published_result() -> None:
    assert set(published()) <= set(NAMES)


# ---- settings of the release ---------------------------------------------------------------------------------------

# PAPER 2.1: what holds in both tuning stages, and what in one of them, whatever the network.
OPTIMISER = {
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "lr": 0.01,
    "schedule": "step",
    "gamma": 0.1,
    "bias_lr_factor": 2.0,
    "warmup_steps": 0,
    "clip_norm": 0.0,
}
WITHOUT_JITTER = {"scale_jitter": (1.0, 1.0), "colour_jitter": 0.0}
MATCH: dict[str, Any] = {
    "steps": 8000,
    "crop": 512,
    "output_size": 128,
    "overlap": 0.6,
    "background_ratio": 0.1,
    "candidates": "order",
    "centres": "uniform",
    "loss": "triplet",
    "margin": 2.1,
    "normalizer": "paper",
    "memory": 0,
    "graph_scope": "local",
    **WITHOUT_JITTER,
}
SEGMENT: dict[str, Any] = {"steps": 42_000, "crop": 512, "reset_layers": 0, **WITHOUT_JITTER}
# Images of a graph are left out: the ablation tells the nodes of a graph alone.
MATCH_OF = {"alexnet": {"graphs": 1, "patches_per_image": 10}, "vgg16": {"graphs": 4, "patches_per_image": 9}}
NODES = {"alexnet": 400, "vgg16": 144}
SEGMENT_OF: dict[str, dict[str, Any]] = {
    "alexnet": {"batch_size": 16, "accumulate": 4},
    "vgg16": {"batch_size": 6, "accumulate": 8, "pixels": 256, "pixel_margin": 96},
}
EFFECTIVE_BATCH = {"alexnet": 64, "vgg16": 48}
PATCHES_OF: dict[str, dict[str, Any]] = {"voc": {"patch_size": (64, 256)}, "cityscapes": {"patch_size": (128, 128)}}
# PAPER 2.2 and 2.3.
MODEL_OF: dict[str, dict[str, Any]] = {
    "alexnet": {"width": 1.0, "head": "fcn32", "fc_channels": 4096, "extra_channels": 0, "dropout": 0.5},
    "vgg16": {
        "width": 1.0,
        "head": "hypercolumn",
        "fc_channels": 4096,
        "extra_channels": 1024,
        "head_channels": 1024,
        "dropout": 0.5,
    },
}
# PAPER 2.5.
EVALUATE: dict[str, Any] = {"side": 512, "scales": (1.0,), "flip": False}
EVALUATE_OF: dict[str, dict[str, Any]] = {
    "voc": {"protocol": "fit"},
    "cityscapes": {"protocol": "windows", "window_stride": 256},
}
GRID_OF = {"alexnet": 1, "vgg16": 2}
DATA: dict[str, Any] = {"scale": 1.0, "max_train": None, "max_val": None}
DATA_OF: dict[str, dict[str, Any]] = {
    "voc": {
        "train_list": "ImageSets/Segmentation/train_aug.txt",
        "masks": "SegmentationClassAug",
        "val_list": "ImageSets/Segmentation/val.txt",
        "val_masks": "SegmentationClass",
    },
    "cityscapes": {"train_split": "train", "val_split": "val"},
}
CLASSES = {"voc": (21, voc.CLASSES), "cityscapes": (19, cityscapes.CLASSES)}


def parts(name: str) -> tuple[str, str, str, str]:
    """Data set, network, pre-training and tuning of a recipe."""
    if name == "voc_vgg16_ensemble":
        return "voc", "vgg16", "colorization", "mixmatch"
    data, network, start, tuning = name.split("_")
    return data, network, start, tuning


def wanted(name: str) -> dict[str, Any]:
    """Settings of the release by dotted key; where recipes are known to differ, what they have instead."""
    data, network, start, tuning = parts(name)
    backbone = "alexnet_jigsaw" if (network, start) == ("alexnet", "jigsaw") else network
    sections: dict[str, dict[str, Any]] = {
        "data": {"kind": data, **DATA, **DATA_OF[data]},
        "model": {"backbone": backbone, "dilated": False, **MODEL_OF[network]},
        "segment": SEGMENT | SEGMENT_OF[network],
        "segment.optim": OPTIMISER,
        "evaluate": {**EVALUATE, **EVALUATE_OF[data], "stride": GRID_OF[network]},
    }
    if start != "imagenet":
        sections["model"]["input"] = "gray" if start == "colorization" else "rgb"
    if tuning != "baseline":
        strategy = "random" if tuning == "triplets" else "graph"
        sections["match"] = {**MATCH, **MATCH_OF[network], **PATCHES_OF[data], "strategy": strategy}
        sections["match.optim"] = OPTIMISER
        sections["match"]["background"] = 0 if data == "voc" else None
    found = {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}
    return {**found, "reference_compat": False}


def read(recipe: Recipe, key: str) -> Any:
    """The value of a dotted key."""
    return reduce(getattr, key.split("."), recipe)


@pytest.mark.parametrize("name", NAMES)
def test_paper_recipe_has_the_settings_of_the_release(name: str) -> None:
    data, network, _, tuning = parts(name)
    recipe = shipped(name)
    differing = {key: (read(recipe, key), value) for key, value in wanted(name).items() if read(recipe, key) != value}
    assert differing == {}
    assert recipe.segment is not None and recipe.evaluate is not None
    assert recipe.segment.batch_size * recipe.segment.accumulate == EFFECTIVE_BATCH[network]
    assert bool(recipe.evaluate.ensemble) == (name == "voc_vgg16_ensemble")
    assert (recipe.match is None) == (tuning == "baseline")
    if recipe.match is not None:
        nodes = int(tuning.removeprefix("graph")) if tuning.startswith("graph") else NODES[network]
        assert recipe.match.images * recipe.match.patches_per_image == nodes
    count, names = CLASSES[data]
    assert len(names) == count


def check_rates(optim: OptimConfig, total: int, drops: tuple[int, ...]) -> None:
    """0.01, and a tenth of what it was from each of ``drops`` on."""
    for number, (first, after) in enumerate(pairwise((0, *drops, total))):
        for step in (first, after - 1):
            assert learning_rate(optim, step, total) == pytest.approx(0.01 * 0.1**number, rel=1e-9), step


@pytest.mark.parametrize("name", NAMES)
def test_paper_recipe_learns_at_the_published_rates(name: str) -> None:
    recipe = shipped(name)
    assert recipe.segment is not None
    check_rates(recipe.segment.optim, recipe.segment.steps, (24_000, 36_000, 40_000))
    if recipe.match is not None:
        check_rates(recipe.match.optim, recipe.match.steps, (6000,))


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="recipes read 0 to 1 over the deviation: docs/method.md, differences"
)
def test_paper_recipes_of_colour_networks_read_pixels_as_the_release() -> None:
    """From 0 to 255 minus the mean (PAPER 2.1): networks that start at random, and AlexNet after jigsaw puzzles."""
    colour = [name for name in NAMES if parts(name)[2] == "random" or parts(name)[1:3] == ("alexnet", "jigsaw")]
    assert [name for name in colour if shipped(name).model.input != "rgb255"] == []


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="road is no background in the recipes: docs/method.md, differences"
)
def test_paper_recipes_take_road_for_background_as_the_release() -> None:
    """Class 0 has a quota of its own in every data set (PAPER 5)."""
    tuned = [name for name in NAMES if not name.endswith("_baseline")]
    assert [name for name in tuned if read(shipped(name), "match.background") != 0] == []
