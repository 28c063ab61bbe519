"""Every shipped recipe resolves, has the stages that its name promises, and the small ones do two steps of each."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from PIL import Image

from engine.config import Recipe, dump_recipe, load_recipe
from engine.config.smoke import smoke_overrides

FOLDER = Path(__file__).resolve().parents[3] / "recipes"
STUDIES = FOLDER / "studies"
NAMES = sorted(path.stem for path in [*FOLDER.glob("*.yaml"), *STUDIES.glob("*.yaml")])
SMALL = [name for name in NAMES if name.startswith("shapes_")]
PAPER = [name for name in NAMES if name.startswith(("voc_", "cityscapes_"))]
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
    recipe = load_recipe(name, (), [FOLDER, STUDIES])
    assert recipe.name == name and recipe.description
    stages = [stage for stage, _ in recipe.stages()]
    tuned = any(word in name for word in ("mixmatch", "triplets", "graph", "contrast")) or name == "shapes_smoke"
    assert ("match" in stages) == tuned
    assert stages[-2:] == ["segment", "evaluate"]
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "again.yaml") == recipe


@pytest.mark.parametrize(
    ("base", "tuned"),
    [
        ("shapes_baseline", "shapes_mixmatch"),
        ("shapes_baseline", "shapes_colorization_mixmatch"),
        ("shapes_baseline", "shapes_densecl_mixmatch"),
        ("camvid_tiny_baseline", "camvid_tiny_mixmatch"),
        ("camvid_tiny_baseline", "camvid_tiny_densecl_mixmatch"),
        ("camvid_baseline", "camvid_mixmatch"),
        ("few_labels_baseline", "few_labels_graph"),
        ("few_labels_baseline", "few_labels_triplets"),
        ("few_labels_baseline", "few_labels_contrast"),
        ("few_labels_baseline", "few_labels_colorization_graph"),
        ("few_labels_baseline", "few_labels_colorization_contrast"),
    ],
)
def test_recipe_pairs_differ_only_in_the_stages_before_fine_tuning(base: str, tuned: str) -> None:
    one, other = (load_recipe(name, (), [FOLDER, STUDIES]) for name in (base, tuned))
    # Images without labels are for proxy tasks alone.
    data = other.data.model_copy(update={"unlabelled": 0}) if other.data.kind == "shapes" else other.data
    assert (one.seed, one.data, one.model, one.segment) == (other.seed, data, other.model, other.segment)
    assert one.evaluate == other.evaluate and one.match is None and other.match is not None


@pytest.mark.parametrize("name", SMALL)
def test_small_recipe_does_two_steps_of_each_stage(runner: Runner, name: str) -> None:
    plain = load_recipe(name, (), [FOLDER, STUDIES])
    recipe = load_recipe(name, [*TWO_STEPS, *two_steps(plain)], [FOLDER, STUDIES])
    assert runner.train(recipe) == "succeeded"
    assert [e["stage"] for e in runner.kind("stage_finished")] == [stage for stage, _ in plain.stages()]


@pytest.mark.needs_data
@pytest.mark.parametrize("name", ["camvid_tiny_baseline", "camvid_tiny_mixmatch", "camvid_tiny_densecl_mixmatch"])
def test_camvid_tiny_recipe_does_two_steps_of_each_stage(runner: Runner, shared_data: Path, name: str) -> None:
    root = shared_data / "camvid"
    if not root.is_dir():
        pytest.skip(f"no CamVid at {root}")
    plain = load_recipe(name, (), [FOLDER, STUDIES])
    some = [f"data.root={root}", "data.max_train=12", "data.max_val=2", "segment.eval_every=0", "runtime.threads=1"]
    assert runner.train(load_recipe(name, [*some, *two_steps(plain)], [FOLDER, STUDIES])) == "succeeded"
    assert len(runner.kind("run_started")[0]["values"]["classes"]) == 11


def test_paper_recipes_are_what_their_script_writes() -> None:
    path = FOLDER.parent / "docs" / "make_paper_recipes.py"
    module = runpy.run_path(str(path))
    texts = module["texts"]()
    assert sorted(texts) == sorted(f"{name}.yaml" for name in PAPER) and len(PAPER) == 33
    for name, text in texts.items():
        assert (FOLDER / name).read_text() == text, f"{name} differs: python docs/make_paper_recipes.py"


def test_paper_recipes_have_the_published_batches() -> None:
    """Nodes per graph and graphs per step, images per update (PAPER 2.1)."""
    for name in PAPER:
        recipe = load_recipe(name, (), [FOLDER, STUDIES])
        assert recipe.segment is not None and recipe.segment.steps == 42_000
        effective = recipe.segment.batch_size * recipe.segment.accumulate
        assert effective == (48 if "vgg16" in name else 64)
        if recipe.match is not None:
            nodes = recipe.match.images * recipe.match.patches_per_image
            wanted = next((n for n in (100, 200) if name.endswith(f"graph{n}")), 144 if "vgg16" in name else 400)
            assert (nodes, recipe.match.graphs) == (wanted, 4 if "vgg16" in name else 1)
            assert recipe.match.steps == 8000 and recipe.match.optim.lr == 0.01


@pytest.fixture(scope="module")
def small_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """VOC and Cityscapes trees of a few drawn images, and a folder of pictures for proxy tasks, two classes of them."""
    root, drawn = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)

    def picture(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.integers(0, 256, (96, 128, 3), dtype=np.uint8)).save(path)

    def mask(path: Path, labels: list[int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = np.repeat(np.array(labels, np.uint8), 96 // len(labels))
        Image.fromarray(np.repeat(rows[:, None], 128, axis=1)).save(path)

    for number in range(10):
        picture(root / "voc" / "JPEGImages" / f"{number}.jpg")
        for folder in ("SegmentationClass", "SegmentationClassAug"):
            mask(root / "voc" / folder / f"{number}.png", [0, 1 + number, 15, 255])
        city = ("train" if number < 8 else "val", "ulm", f"ulm_{number:06d}_000019")
        picture(root / "city" / "leftImg8bit" / city[0] / city[1] / f"{city[2]}_leftImg8bit.png")
        mask(root / "city" / "gtFine" / city[0] / city[1] / f"{city[2]}_gtFine_labelIds.png", [7, 11, 26, 0])
        picture(root / "pictures" / ("a", "b")[number % 2] / f"{number}.jpg")
    lists = root / "voc" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train_aug.txt").write_text("".join(f"{number}\n" for number in range(8)))
    (lists / "val.txt").write_text("8\n9\n")
    return {"voc": root / "voc", "cityscapes": root / "city", "pictures": root / "pictures"}


@pytest.mark.parametrize("name", PAPER)
def test_paper_recipe_does_two_steps_of_each_stage(runner: Runner, small_sets: dict[str, Path], name: str) -> None:
    plain = load_recipe(name, (), [FOLDER, STUDIES])
    given = [f"data.root={small_sets[plain.data.kind]}", "runtime.threads=1", "evaluate.side=64"]
    given += ["evaluate.window_stride=32"]
    if plain.proxy is not None:
        given.append(f"proxy.images={small_sets['pictures']}")
    smoke = smoke_overrides(load_recipe(name, given, [FOLDER, STUDIES]))
    assert runner.train(load_recipe(name, [*smoke, *given], [FOLDER, STUDIES])) == "succeeded"
    assert [e["stage"] for e in runner.kind("stage_finished")] == [stage for stage, _ in plain.stages()]
