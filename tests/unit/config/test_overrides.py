"""key=value overrides, and the list of keys that forms and completion show."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from engine.config import Recipe, RecipeFileError, load_recipe, parse_overrides, valid_keys
from engine.config.overrides import nearest_key_hint


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text("segment: {steps: 10}\ndata: {kind: shapes, height: 64}\n")
    return path


def resolved(recipe_file: Path, *overrides: str) -> Recipe:
    return load_recipe(recipe_file, overrides)


def refused(recipe_file: Path, *overrides: str) -> str:
    with pytest.raises(RecipeFileError) as caught:
        load_recipe(recipe_file, overrides)
    return str(caught.value)


def test_overrides_values_take_the_type_of_the_schema(recipe_file: Path) -> None:
    texts = ("segment.steps=20", "segment.optim.lr=1e-3", "runtime.deterministic=false", "name=12", "description=a: b")
    recipe = resolved(recipe_file, *texts, "match.patch_size=[16, 48]", "match.background=null", "name=34")
    assert recipe.segment is not None and recipe.match is not None
    assert (recipe.segment.steps, recipe.segment.optim.lr) == (20, 1e-3)
    assert recipe.runtime.deterministic is False
    assert (recipe.name, recipe.description) == ("34", "a: b")
    assert (recipe.match.patch_size, recipe.match.background) == ((16, 48), None)


def test_overrides_one_key_of_an_optimiser_keeps_the_published_milestones_of_its_stage(recipe_file: Path) -> None:
    recipe = resolved(recipe_file, "segment.optim.lr=0.02", "match.optim.lr=0.02")
    assert recipe.segment is not None and recipe.match is not None
    assert recipe.segment.optim.milestones == (24 / 42, 36 / 42, 40 / 42)
    assert recipe.match.optim.milestones == (0.75,)


def test_overrides_stage_null_removes_it_and_a_key_of_it_brings_it_back(recipe_file: Path) -> None:
    assert resolved(recipe_file, "evaluate=null").evaluate is None
    recipe = resolved(recipe_file, "match.steps=4")
    assert recipe.match is not None and recipe.match.steps == 4


def test_overrides_data_kind_drops_keys_of_the_other_kind(recipe_file: Path) -> None:
    data = resolved(recipe_file, "data.root=/x", "data.kind=folder").data
    assert data.kind == "folder" and data.root == "/x"


def test_overrides_data_key_without_data_section_means_shapes(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("segment: {steps: 10}\n")
    data = load_recipe(path, ["data.height=32"]).data
    assert data.kind == "shapes" and data.height == 32


def test_overrides_class_names_of_reference_are_free(recipe_file: Path) -> None:
    assert resolved(recipe_file, "reference.per_class.road=12.5").reference.per_class == {"road": 12.5}


def test_overrides_class_names_may_have_points(recipe_file: Path) -> None:
    assert resolved(recipe_file, "segment.class_weights.pole.thin=2").segment.class_weights == {"pole.thin": 2.0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", ["write key=value"]),
        ("=3", ["write key=value"]),
        ("segment.stepps=3", ["no key 'segment.stepps'", "did you mean segment.steps?"]),
        ("segmnt.steps=3", ["did you mean segment.steps?"]),
        ("match.zzz=3", ["keys there are steps, images"]),
        ("segment=3", ["is a section", "segment.name=value", "segment=null"]),
        ("model=3", ["is a section", "write model.name=value"]),
        ("model=null", ["model: null is not allowed", "leave it out"]),
        ("reference.per_class=5", ["5 is not allowed; write {name: value}, or null for none"]),
        ("segment.class_weights={ring:2}", ["class_weights.ring:2: {ring:2} has no blank", "write {ring: 2}"]),
        ("segment.class_weights={ring: null}", ["class_weights.ring: null is not allowed; write a number"]),
        ("segment.class_weights.ring=two", ["class_weights.ring: 'two' is not allowed; write a number"]),
        ("segment.class_weights.ring=0", ["segment.class_weights.ring is 0: write a number above 0"]),
        ("segment.class_weights.a b.c=0", ["segment.class_weights.a b.c is 0: write a number above 0"]),
        ("reference.per_class.ring=-1", ["reference.per_class.ring is -1: write percent"]),
        ("segment.class_weights={true: 2}", ["a key must be a plain name", "quote any other"]),
        ("segment.class_weights={1e3: 2}", ["a key must be a plain name"]),
        ("data.label_map={255: 1", ["not valid YAML"]),
        ("segment.steps=abc", ["override 'segment.steps=abc'", "int >= 1"]),
        ("segment.steps=true", ["true is not allowed", "int >= 1"]),
        ("segment.steps=-1", ["-1 is not allowed", "int >= 1"]),
        ("segment.steps=", ["int >= 1"]),
        ("match.overlap=1.5", ["float >= 0 <= 1"]),
        ("runtime.deterministic=maybe", ["true | false"]),
        ("model.backbone=vgg19", ["tiny_vgg | vgg16"]),
        ("match.patch_size=[48, 16]", ["override 'match.patch_size=[48, 16]'", "smaller side first"]),
        ("data.kind=coco", ["kind: shapes or kind: folder or kind: voc"]),
    ],
)
def test_overrides_mistake_says_what_to_write(recipe_file: Path, text: str, words: list[str]) -> None:
    told = refused(recipe_file, text)
    assert told.startswith("override '")
    for word in words:
        assert word in told


def test_overrides_section_that_cannot_be_null_is_not_offered_so(recipe_file: Path) -> None:
    assert "model=null" not in refused(recipe_file, "model=3")


@pytest.mark.parametrize("text", ["null", "{}"])
def test_overrides_mapping_null_is_none(recipe_file: Path, text: str) -> None:
    class_before = "reference.per_class.road=12.5"
    assert resolved(recipe_file, class_before, f"reference.per_class={text}").reference.per_class == {}
    assert resolved(recipe_file, f"reference.per_class={text}", class_before).reference.per_class == {"road": 12.5}
    assert resolved(recipe_file, class_before, "reference.miou=3", "reference=null").reference.miou is None
    data = resolved(recipe_file, "data.kind=folder", "data.label_map.255=1", f"data.label_map={text}").data
    assert getattr(data, "label_map", None) == {}


def test_parse_overrides_keeps_equals_signs_of_the_value() -> None:
    (override,) = parse_overrides(["description=a=b"])
    assert (override.key, override.value) == ("description", "a=b")


def test_valid_keys_every_key_is_described_and_every_default_valid() -> None:
    infos = valid_keys()
    assert len({info.key for info in infos}) == len(infos) > 80
    assert [info.key for info in infos if not info.description] == []


def test_valid_keys_lists_a_key_for_each_field_of_the_schema_leaves() -> None:
    keys = {info.key: info for info in valid_keys()}
    assert keys["data.kind"].type == "shapes | folder | voc | cityscapes"
    assert keys["segment.steps"].type == "int >= 1" and keys["segment.steps"].default == 42_000
    assert keys["match.background"].type == "int | null"
    assert keys["runtime.deterministic"].type == "true | false"
    leaves = _leaves(Recipe.model_validate({n: {} for n in ("proxy", "match", "segment")}).model_dump(mode="json"), "")
    assert leaves - keys.keys() == set()


def _leaves(data: dict[str, object], prefix: str) -> set[str]:
    found: set[str] = set()
    for name, value in data.items():
        if isinstance(value, dict) and name not in ("per_class", "class_weights"):
            found |= _leaves(value, f"{prefix}{name}.")
        else:
            found.add(f"{prefix}{name}")
    return found


def test_nearest_key_hint_nothing_near_is_silent_outside_any_section() -> None:
    assert nearest_key_hint("a.b.c") == ""


def test_recipes_document_lists_the_keys_of_the_schema(repository: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_recipes", repository / "docs" / "make_recipes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.FILE.read_text()
    assert module.updated(text) == text, "run: python docs/make_recipes.py"


def test_key_of_another_kind_of_data_is_said_to_be_one(recipe_file: Path) -> None:
    told = refused(recipe_file, "data.root=/x")
    assert "data.kind=shapes has no such key; it belongs to data.kind=folder or voc or cityscapes" in told
    assert "did you mean" not in told
    assert "no key 'data.rot'; did you mean data.root?" in refused(recipe_file, "data.rot=/x")
