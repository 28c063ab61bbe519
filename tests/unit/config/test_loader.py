"""Recipes from files: what loads, and what each mistake is answered with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engine.config import Recipe, RecipeFileError, dump_recipe, load_recipe
from engine.config.backbones import OwnBackbone
from engine.config.checks import CLASS_COUNTS, DILATED, LAYERS, SMALLEST_SIDE, one_cell
from engine.config.schema import ModelConfig

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(text: str, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_file


def message(path: Path, *overrides: str, search: tuple[Path, ...] = ()) -> str:
    with pytest.raises(RecipeFileError) as caught:
        load_recipe(path, overrides, search)
    return str(caught.value)


def test_load_recipe_minimal_file_takes_defaults_and_file_name(write: Write) -> None:
    recipe = load_recipe(write("segment: {steps: 7}"))
    assert recipe.name == "mine"
    assert recipe.stages() == (("segment", 7), ("evaluate", 1))
    assert recipe.segment is not None and recipe.segment.optim.momentum == 0.9


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("seed: 1\nsegment:\n  stepz: 10\n", 3, ["segment.stepz", "no such key", "segment.steps"]),
        ("seed: 1\nsegmnt: {steps: 1}\n", 2, ["segmnt", "did you mean segment?"]),
        ("segment:\n  optim: {learning_rate: 1}\n", 2, ["segment.optim.learning_rate", "keys there are optimiser, lr"]),
        ("segment: {}\nmatch:\n  strategy: grap\n", 3, ["match.strategy", "'grap'", "graph | random"]),
        ("segment:\n  steps: 0\n", 2, ["segment.steps", "0 is not allowed", "int >= 1"]),
        ("segment:\n  steps: ten\n", 2, ["'ten'", "int >= 1"]),
        ("segment: {}\nname: 12\n", 2, ["name", '"12" in quotes']),
        ("segment:\n  optim: {lr: .inf}\n", 2, ["segment.optim.lr", "float > 0"]),
        ("segment:\n  optim: {milestones: [0.5, x]}\n", 2, ["segment.optim.milestones", "list of float"]),
        ("segment: {}\ndata: {height: 64}\n", 2, ["data.kind", "kind: shapes or kind: folder"]),
        ("segment: {}\ndata: {kind: shape}\n", 2, ["kind: shapes or kind: folder"]),
        ("segment: {}\nmatch:\n  patch_size: [48, 16]\n", 3, ["match.patch_size", "smaller side first"]),
        ("segment: {}\nmatch:\n  patch_size: [3, 3]\n", 3, ["match.patch_size 3, 3", "write 4, 4"]),
        ("segment: {}\nmatch:\n  background: -1\n", 3, ["match.background -1 is no class", "0 to 8"]),
        ("segment: {}\nmatch:\n  background: 300\n", 3, ["match.background 300 is no class", "0 to 8"]),
        ("segment: {}\nmatch:\n  background: 9\n", 3, ["match.background 9 is no class", "0 to 8"]),
        ("data: {kind: voc}\nmatch:\n  background: 21\nevaluate: null\n", 3, ["match.background", "0 to 20"]),
        ("segment:\n  crop: 32\n  pixel_margin: 16\n", 3, ["segment.pixel_margin 16", "write at most 15"]),
        ("segment:\n  scale_jitter: [1, 1000]\n", 2, ["segment.scale_jitter 1, 1000", "at most 16"]),
        ("segment:\n  optim:\n    milestones: [24000]\n", 3, ["segment.optim.milestones 24000", "0 to 1"]),
        ("segment:\n  optim:\n    milestones: [-1]\n", 3, ["segment.optim.milestones -1", "0 to 1"]),
        ("segment:\n  optim:\n    milestones: [0.9, 0.1]\n", 3, ["segment.optim.milestones 0.9, 0.1", "rising"]),
        ("segment:\n  optim:\n    milestones: [0.5, 0.5]\n", 3, ["segment.optim.milestones", "rising"]),
        ("segment: {}\ndata:\n  kind: shapes\n  objects: [-3, 2]\n", 4, ["data.objects -3, 2", "at least 0"]),
        ("segment: {}\nevaluate:\n  scales: [1, 1e9]\n", 3, ["evaluate.scales holds 1e+09", "at most 16"]),
        ("segment: {}\nruntime:\n  threads: 100000\n", 3, ["runtime.threads", "100000 is not allowed"]),
        ("segment: {}\nruntime:\n  memory_budget_gib: 1e300\n", 3, ["runtime.memory_budget_gib", "not allowed"]),
        ("segment:\n  class_weights: {cat: true}\n", 2, ["segment.class_weights.cat", "true", "write a number"]),
        ("segment:\n  class_weights: {cat: heavy}\n", 2, ["segment.class_weights.cat", "number", "heavy"]),
        ("segment:\n  class_weights: {cat: 0}\n", 2, ["segment.class_weights.cat is 0", "above 0"]),
        ("segment: {}\nreference:\n  per_class: {cat: 640}\n", 3, ["reference.per_class.cat is 640", "percent"]),
        ("segment:\n  crop: 16\nmodel: {backbone: alexnet}\n", 2, ["segment.crop 16 is too small", "at least 29"]),
        (
            "segment:\n  crop: 32\n  batch_size: 1\nmodel: {backbone: resnet18, head: fcn}\n",
            3,
            ["segment.crop 32", "segment.batch_size 2"],
        ),
        ("segment: {}\nsegment: {}\n", 2, ["'segment' stands twice", "line 1"]),
        ("segment: {}\n1: 2\n", 2, ["plain name"]),
        ("segment: {}\n? [a]\n: 2\n", 2, ["plain name"]),
        ("segment: &x {steps: 1}\nmatch: *x\n", 1, ["anchor 'x'", "base:"]),
        ("segment: [\n", 2, ["not valid YAML"]),
        ("segment: {}\nseed: !!python/object:os.system x\n", 2, ["not valid YAML"]),
    ],
)
def test_load_recipe_mistake_names_file_line_and_remedy(write: Write, text: str, line: int, words: list[str]) -> None:
    path = write(text)
    told = message(path)
    assert told.startswith(f"{path}: line {line}")
    for word in words:
        assert word in told
    assert "\n" not in told


@pytest.mark.parametrize("value", ["yes", "on", "1:30", "0x10", "true", "1.5"])
def test_load_recipe_yaml_value_that_is_no_number_is_refused_for_a_number(write: Write, value: str) -> None:
    assert "write int >= 1" in message(write(f"segment:\n  steps: {value}\n"))


def test_load_recipe_number_as_json_or_python_writes_it_is_read(write: Write) -> None:
    recipe = load_recipe(write("segment: {steps: 10_000, optim: {lr: 1e-3, gamma: .5}}"))
    assert recipe.segment is not None
    assert (recipe.segment.steps, recipe.segment.optim.lr, recipe.segment.optim.gamma) == (10000, 1e-3, 0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "mapping of keys"),
        ("- a\n", "mapping of keys"),
        ("seed: 1\n", "no training stage"),
        ("match: {steps: 1}\n", "evaluate needs segment"),
        ("a: " + "[" * 4000, "nested too deeply"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("a: \0\n", "not valid YAML"),
    ],
)
def test_load_recipe_whole_file_wrong_says_so_in_one_sentence(write: Write, text: str, words: str) -> None:
    path = write(text)
    told = message(path)
    assert told.startswith(str(path)) and words in told


def test_load_recipe_file_that_is_no_text_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"seed: \xff\xfe")
    assert "UTF-8" in message(path)


def test_load_recipe_several_mistakes_tells_how_many_more(write: Write) -> None:
    assert "(and 2 more)" in message(write("segment: {steps: 0, crop: 0, pixels: 0}\n"))


# ---- base ----------------------------------------------------------------------------------------------------------


def test_load_recipe_with_base_merges_section_by_section(write: Write) -> None:
    write("name: b\ndescription: of the base\nseed: 5\nsegment: {steps: 9, crop: 64}\n", "base.yaml")
    recipe = load_recipe(write("base: base\nsegment: {crop: 32}\n"))
    assert recipe.segment is not None
    assert (recipe.seed, recipe.segment.steps, recipe.segment.crop) == (5, 9, 32)
    assert (recipe.name, recipe.description) == ("mine", "")


def test_load_recipe_stage_set_to_null_is_removed_from_base(write: Write) -> None:
    write("segment: {steps: 9}\nmatch: {steps: 3}\n", "base.yaml")
    assert load_recipe(write("base: base\nmatch: null\n")).match is None


@pytest.mark.parametrize("none", ["null", "{}"])
def test_load_recipe_mapping_of_the_base_is_taken_off_by_null_or_an_empty_one(write: Write, none: str) -> None:
    write(
        "segment: {steps: 9}\ndata: {kind: folder, root: /x, label_map: {255: 1}}\n"
        "reference: {miou: 50, per_class: {sky: 3}}\n",
        "base.yaml",
    )
    recipe = load_recipe(write(f"base: base\ndata: {{label_map: {none}}}\nreference: {{per_class: {none}}}\n"))
    assert getattr(recipe.data, "label_map", None) == {} and recipe.reference.per_class == {}
    assert recipe.reference.miou == 50 and "label_map" not in dump_recipe(recipe)
    again = load_recipe(write(f"base: base\ndata: {{label_map: {none}}}\n"), ["data.label_map.7=0"])
    assert getattr(again.data, "label_map", None) == {"7": 0}
    kept = load_recipe(write("base: base\ndata: {label_map: {3: 1}}\n"))
    assert getattr(kept.data, "label_map", None) == {"255": 1, "3": 1}, "one that says something is merged"


def test_load_recipe_null_takes_off_the_published_numbers_of_the_base(write: Write) -> None:
    write("segment: {steps: 9}\nreference: {miou: 50, per_class: {sky: 3}, source: paper}\n", "base.yaml")
    found = load_recipe(write("base: base\nreference: null\n")).reference
    assert (found.miou, found.per_class, found.source) == (None, {}, "")


@pytest.mark.parametrize("section", ["data", "model", "runtime", "segment.optim"])
def test_load_recipe_section_that_cannot_be_left_out_says_so(write: Write, section: str) -> None:
    name, _, inner = section.partition(".")
    told = message(write(f"segment: {{steps: 9}}\n{name}: null\n" if not inner else f"{name}: {{{inner}: null}}\n"))
    assert f"{section}: null is not allowed" in told and "leave it out" in told and "instance of" not in told


def test_load_recipe_base_with_another_data_kind_is_replaced_whole(write: Write) -> None:
    write("segment: {steps: 9}\ndata: {kind: shapes, height: 64}\n", "base.yaml")
    recipe = load_recipe(write("base: base\ndata: {kind: folder, root: /x}\n"))
    assert recipe.data.kind == "folder"


def test_load_recipe_base_of_base_is_refused(write: Write) -> None:
    write("segment: {steps: 9}\n", "one.yaml")
    write("base: one\n", "two.yaml")
    assert "only one level" in message(write("base: two\n"))


def test_load_recipe_base_that_is_missing_names_the_nearest(write: Write) -> None:
    write("segment: {steps: 9}\n", "shapes_base.yaml")
    assert "did you mean shapes_base" in message(write("base: shape_base\n"))


def test_load_recipe_mistake_in_base_names_the_base_file(write: Write) -> None:
    base = write("segment:\n  stepz: 9\n", "base.yaml")
    assert message(write("base: base\n")).startswith(f"{base}: line 2")


def test_load_recipe_name_in_search_folder_is_found(write: Write, tmp_path: Path) -> None:
    write("segment: {steps: 9}\n")
    assert load_recipe("mine", (), [tmp_path]).segment is not None


def test_load_recipe_unknown_name_tells_the_nearest(write: Write, tmp_path: Path) -> None:
    write("segment: {steps: 9}\n", "shapes_baseline.yaml")
    with pytest.raises(RecipeFileError, match="did you mean shapes_baseline"):
        load_recipe("shape_baseline", (), [tmp_path])


# ---- paths and writing ---------------------------------------------------------------------------------------------


def test_load_recipe_relative_paths_become_absolute_from_the_current_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("segment: {}\ndata: {kind: folder, root: pictures}\nmodel: {weights: ~/w.safetensors}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somewhere")
    recipe = load_recipe(path)
    assert recipe.data.kind == "folder" and recipe.data.root == str(tmp_path / "pictures")
    assert recipe.model.weights == "/somewhere/w.safetensors"


def test_load_recipe_empty_paths_stay_empty(write: Write) -> None:
    recipe = load_recipe(write("segment: {}\ndata: {kind: folder}\n"))
    assert recipe.data.kind == "folder" and (recipe.data.root, recipe.model.weights) == ("", "")


def test_load_recipe_empty_path_in_a_list_stays_empty(write: Write) -> None:
    """A recipe that leaves a folder to be named must not mean the current one."""
    recipe = load_recipe(write("segment: {}\nevaluate: {ensemble: ['', /runs/3]}\n"))
    assert recipe.evaluate is not None and recipe.evaluate.ensemble == ("", "/runs/3")


@pytest.mark.parametrize("name", ["yes", "1e-3", "0x10", "12", "null", "a: b", "# c", "é", "- x", "1:30", "~"])
def test_dump_recipe_loads_again_as_an_equal_recipe(write: Write, name: str) -> None:
    recipe = Recipe.model_validate({"segment": {"steps": 3, "optim": {"lr": 1e-7}}, "name": name, "evaluate": None})
    again = load_recipe(write(dump_recipe(recipe)))
    assert again == recipe


def test_load_recipe_folder_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").mkdir()
    with pytest.raises(RecipeFileError, match="no file called"):
        load_recipe(tmp_path / "x.yaml")


@pytest.mark.parametrize("kind", ["shapes", "voc", "cityscapes"])
def test_class_counts_known_without_files_are_those_of_the_data_sets(kind: str) -> None:
    from engine.data.listings import class_names

    assert CLASS_COUNTS[kind] == len(class_names(Recipe.model_validate({"segment": {}, "data": {"kind": kind}}).data))


@pytest.mark.parametrize("name", list(LAYERS))
def test_smallest_sides_are_those_that_leave_something_of_the_last_map(name: OwnBackbone) -> None:
    import torch

    from engine.models import build_backbone

    backbone = build_backbone(ModelConfig(backbone=name, width=0.125)).eval()
    least = SMALLEST_SIDE.get(name, 1)
    assert backbone.embed(torch.zeros(1, 3, least, least)).numel() > 0
    if least > 1:
        with pytest.raises(RuntimeError, match=r"too small|greater than actual input"):
            backbone.embed(torch.zeros(1, 3, least - 1, least - 1))


DENSE = ("fcn32", "fcn", "aspp", "deeplabv3plus", "upernet", "pyramid", "linear")
NETWORKS = [(name, head, False) for name in LAYERS for head in ("", "hypercolumn", *DENSE)]
NETWORKS += [(name, head, True) for name in DILATED for head in ("", *DENSE)]


@pytest.mark.parametrize(("name", "head", "dilated"), NETWORKS)
def test_sides_of_one_cell_are_those_at_which_one_image_cannot_be_trained_on(
    name: OwnBackbone, head: str, dilated: bool
) -> None:
    import torch

    from engine.models import build_backbone, build_head
    from engine.models.heads import HypercolumnSegmenter

    small = {"width": 0.0625, "head_channels": 8, "fc_channels": 8, "extra_channels": 0}
    config = ModelConfig.model_validate({"backbone": name, "head": head or "fcn", "dilated": dilated, **small})
    network = build_head(build_backbone(config), 2, config) if head else build_backbone(config)
    limit, where = one_cell(config, head=bool(head)), torch.zeros(1, 1, dtype=torch.int64)

    def learn(images: int, side: int) -> None:
        x = torch.randn(images, 3, side, side)
        pixels = (where.expand(images, 1),) * 2 if isinstance(network, HypercolumnSegmenter) else ()
        network.train()(x, *pixels)

    least = max(16, SMALLEST_SIDE.get(name, 1))  # no crop is smaller
    for side in sorted({least, limit, limit + 1, 64, 95, 128}):
        if least <= side <= limit:
            with pytest.raises(ValueError, match="more than 1 value per channel"):
                learn(1, side)
            learn(2, side)
        elif side >= least:
            learn(1, side)


TOO_LITTLE: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"model": {"backbone": "resnet18", "head": "aspp"}, "segment": {"crop": 16, "batch_size": 1}},
        ["segment.batch_size 1 gives the network one image", "model.head aspp", "segment.crop 16", "above 32"],
    ),
    (
        {"model": {"backbone": "resnet18", "head": "fcn"}, "segment": {"crop": 32, "batch_size": 1, "accumulate": 4}},
        ["segment.batch_size 1", "model.head fcn", "segment.crop 32", "write segment.batch_size 2 or more"],
    ),
    (
        {"model": {"backbone": "vgg16", "head": "aspp"}, "segment": {"crop": 32, "batch_size": 1}},
        ["segment.batch_size 1", "vgg16", "segment.crop 32"],
    ),
    (
        {"model": {"backbone": "alexnet_torchvision", "head": "fcn"}, "segment": {"crop": 94, "batch_size": 1}},
        ["segment.batch_size 1", "segment.crop 94", "above 94"],
    ),
    (
        {"model": {"backbone": "tiny_vgg"}, "proxy": {"crop": 16, "batch_size": 1}, "evaluate": None},
        ["proxy.batch_size 1", "proxy.crop 16", "above 16"],
    ),
    (
        {"model": {"backbone": "resnet50"}, "proxy": {"kind": "moco", "crop": 32, "batch_size": 1}, "evaluate": None},
        ["proxy.batch_size 1", "proxy.crop 32"],
    ),
]


@pytest.mark.parametrize(("settings", "words"), TOO_LITTLE)
def test_batches_of_one_value_a_channel_are_refused_with_their_keys(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(settings)
    told = str(caught.value)
    assert all(word in told for word in words), told


@pytest.mark.parametrize(
    "good",
    [
        {"segment": {"crop": 33, "batch_size": 1}, "model": {"backbone": "resnet18", "head": "aspp"}},
        {"segment": {"crop": 16, "batch_size": 1}, "model": {"backbone": "resnet18", "head": "aspp", "dilated": True}},
        {"segment": {"crop": 32, "batch_size": 1}, "model": {"backbone": "vgg16"}},
        {
            "proxy": {"kind": "rotation", "crop": 32, "batch_size": 1},
            "model": {"backbone": "resnet18"},
            "evaluate": None,
        },
        {"segment": {"crop": 32, "pixel_margin": 15}},
        {"segment": {"optim": {"milestones": [0.0, 0.5, 1.0]}}},
        {"segment": {"optim": {"milestones": []}}},
        {"segment": {}, "match": {"patch_size": [3, 4], "background": 8}},
        {"segment": {}, "match": {"background": None}, "data": {"kind": "shapes", "objects": [0, 0]}},
        {"segment": {"crop": 29}, "model": {"backbone": "alexnet", "head": "fcn32"}},
    ],
)
def test_recipes_at_the_very_limits_are_taken(good: dict[str, Any]) -> None:
    Recipe.model_validate(good)
