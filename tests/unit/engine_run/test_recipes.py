"""Every shipped recipe resolves, has the stages that its name promises, and does two steps of each."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from PIL import Image

from engine.config import Recipe, dump_recipe, load_recipe
from engine.config.smoke import smoke_overrides

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).resolve().parents[3] / "recipes"
STUDIES = FOLDER / "studies"
SEARCH = [FOLDER, STUDIES]
NAMES = sorted(path.stem for path in FOLDER.rglob("*.yaml"))
OWN_PICTURES = ("shapes_", "camvid_")
"""Recipes whose proxy task takes the images of data."""
PAPER = [name for name in NAMES if name.startswith(("voc_", "cityscapes_"))]
TUNED = ("mixmatch", "triplets", "graph", "contrast", "semi_hard", "ensemble", "smoke")


class Runner(Protocol):
    run_dir: Path

    def train(self, recipe: Recipe, stop: Any = ...) -> str: ...
    def kind(self, kind: str, stage: str | None = None) -> list[dict[str, Any]]: ...


def two_steps(recipe: Recipe) -> list[str]:
    """Overrides that leave two steps of each stage that the recipe has."""
    return [f"{stage}.steps=2" for stage, _ in recipe.stages() if stage != "evaluate"]


@pytest.mark.parametrize("name", NAMES)
def test_recipe_resolves_and_describes_itself(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, (), SEARCH)
    assert recipe.name == name and recipe.description
    stages = [stage for stage, _ in recipe.stages()]
    assert ("match" in stages) == any(word in name for word in TUNED)
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
    one, other = (load_recipe(name, (), SEARCH) for name in (base, tuned))
    # Images without labels are for proxy tasks alone.
    data = other.data.model_copy(update={"unlabelled": 0}) if other.data.kind == "shapes" else other.data
    assert (one.seed, one.data, one.model, one.segment) == (other.seed, data, other.model, other.segment)
    assert one.evaluate == other.evaluate and one.match is None and other.match is not None


@pytest.mark.needs_data
@pytest.mark.parametrize("name", ["camvid_tiny_baseline", "camvid_tiny_mixmatch", "camvid_tiny_densecl_mixmatch"])
def test_camvid_tiny_recipe_does_two_steps_of_each_stage(runner: Runner, shared_data: Path, name: str) -> None:
    root = shared_data / "camvid"
    if not root.is_dir():
        pytest.skip(f"no CamVid at {root}")
    plain = load_recipe(name, (), SEARCH)
    some = [f"data.root={root}", "data.max_train=12", "data.max_val=2", "segment.eval_every=0", "runtime.threads=1"]
    assert runner.train(load_recipe(name, [*some, *two_steps(plain)], SEARCH)) == "succeeded"
    assert len(runner.kind("run_started")[0]["values"]["classes"]) == 11


# What an arm of a study was before it had a recipe: another recipe and what it changes.
CONTRAST = ("match.loss=info_nce", "match.centres=balanced")
RESET = ("segment.reset_layers=2",)
SMALL, PURE = ("match.patch_size=[16,48]",), ("match.candidates=pure",)
PROXY = ("match=null", "data.unlabelled=400")
LONG_PROXY = (*PROXY, "proxy.steps=600", "proxy.queue=256")
ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "shapes_contrast": ("shapes_mixmatch", CONTRAST),
    "shapes_triplets": ("shapes_mixmatch", ("match.strategy=random",)),
    "shapes_semi_hard": ("shapes_mixmatch", ("match.strategy=semi_hard",)),
    "shapes_longer": ("shapes_baseline", ("segment.steps=400",)),
    "shapes_colorization": ("shapes_colorization_mixmatch", PROXY),
    "shapes_moco": ("shapes_densecl_mixmatch", (*LONG_PROXY, "proxy.kind=moco")),
    "shapes_densecl": ("shapes_densecl_mixmatch", LONG_PROXY),
    "objects_contrast": ("objects_graph", CONTRAST),
    "objects_triplets": ("objects_graph", ("match.strategy=random",)),
    "objects_semi_hard": ("objects_graph", ("match.strategy=semi_hard",)),
    "objects_longer": ("objects_baseline", ("segment.steps=900",)),
    "streets_contrast": ("streets_graph", CONTRAST),
    "streets_contrast_small": ("streets_graph", CONTRAST + SMALL),
    "streets_contrast_pure": ("streets_graph", CONTRAST + PURE),
    "streets_graph_balanced": ("streets_graph", ("match.centres=balanced",)),
    "streets_graph_small": ("streets_graph", SMALL),
    "streets_graph_pure": ("streets_graph", PURE),
    "streets_graph_margin": ("streets_graph", ("match.margin=0.5",)),
    "streets_graph_reset": ("streets_graph", RESET),
    "streets_contrast_reset": ("streets_graph", CONTRAST + RESET),
    "objects_graph_reset": ("objects_graph", RESET),
    "objects_contrast_reset": ("objects_graph", CONTRAST + RESET),
    "streets_longer": ("streets_baseline", ("segment.steps=1200",)),
}


@pytest.mark.parametrize("name", ARMS)
def test_arm_of_a_study_is_the_recipe_that_its_changes_made(name: str) -> None:
    base, changes = ARMS[name]
    found, meant = load_recipe(name, (), SEARCH), load_recipe(base, changes, SEARCH)
    assert found == meant.model_copy(update={"name": name, "description": found.description})


def test_study_trains_recipes_by_name() -> None:
    """What it changes itself are arms that no result is told of, and lengths."""
    module = runpy.run_path(str(FOLDER.parent / "benchmarks" / "study.py"))
    studies = module["STUDIES"]
    arms = {f"{study}/{name}": arm for study, named in studies.items() for name, arm in named.items()}
    assert {arm.recipe for arm in arms.values()} <= set(NAMES)
    assert set(module["tuned"]("streets")) == set(studies["streets"]) - {"baseline", "longer"}
    assert {arm.recipe for arm in arms.values()} >= set(ARMS)
    changed = {name for name, arm in arms.items() if arm.changes}
    assert changed == {f"objects/graph_{end}" for end in ("pure", "margin", "third", "three")}


def test_paper_recipes_are_what_their_script_writes() -> None:
    path = FOLDER.parent / "docs" / "make_paper_recipes.py"
    module = runpy.run_path(str(path))
    texts = module["texts"]()
    assert sorted(texts) == sorted(f"{name}.yaml" for name in PAPER) and len(PAPER) == 34
    for name, text in texts.items():
        assert (FOLDER / name).read_text() == text, f"{name} differs: python docs/make_paper_recipes.py"


def test_paper_recipes_have_the_published_batches() -> None:
    """Nodes per graph and graphs per step, images per update (PAPER 2.1)."""
    for name in PAPER:
        recipe = load_recipe(name, (), SEARCH)
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
    """Trees of a few drawn images by kind of data, and a folder of pictures for proxy tasks, two classes of them."""
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
        split = city[0]
        picture(root / "camvid" / "images" / split / f"{number}.png")
        mask(root / "camvid" / "labels" / split / f"{number}.png", [number, 3, 8, 11])
        picture(root / "pictures" / ("a", "b")[number % 2] / f"{number}.jpg")
    lists = root / "voc" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train_aug.txt").write_text("".join(f"{number}\n" for number in range(8)))
    (lists / "val.txt").write_text("8\n9\n")
    (root / "camvid" / "classes.txt").write_text("".join(f"{number}\n" for number in range(11)))
    return {
        "voc": root / "voc",
        "cityscapes": root / "city",
        "folder": root / "camvid",
        "pictures": root / "pictures",
    }


def stepped(name: str, sets: dict[str, Path], *changes: str) -> Recipe:
    """The recipe made short, on data that stand in for those it wants."""
    plain = load_recipe(name, (), SEARCH)
    given = [*changes, "runtime.threads=1", "evaluate.side=64", "evaluate.window_stride=32"]
    given += [f"data.root={sets[plain.data.kind]}"] if plain.data.kind in sets else []
    if plain.proxy is not None and not name.startswith(OWN_PICTURES):
        given.append(f"proxy.images={sets['pictures']}")
    return load_recipe(name, [*smoke_overrides(load_recipe(name, given, SEARCH)), *given], SEARCH)


@pytest.mark.parametrize("name", NAMES)
def test_recipe_does_two_steps_of_each_stage(
    runner: Runner, another_runner: Runner, small_sets: dict[str, Path], name: str
) -> None:
    changes = []
    if name == "voc_vgg16_ensemble":
        another_runner.train(stepped("voc_vgg16_random_baseline", small_sets))
        changes = [f"evaluate.ensemble=[{another_runner.run_dir}]"]
    if load_recipe(name, (), SEARCH).model.weights == "timm":
        changes = ["model.weights="]  # nothing is downloaded in tests
    recipe = stepped(name, small_sets, *changes)
    assert runner.train(recipe) == "succeeded"
    planned = load_recipe(name, (), SEARCH).stages()
    finished = runner.kind("stage_finished")
    assert [e["stage"] for e in finished] == [stage for stage, _ in planned]
    assert [e["step"] for e in finished] == [1 if stage == "evaluate" else 2 for stage, _ in planned]
