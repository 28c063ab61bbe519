"""Recipes as forms: against the schema, the shipped recipes, and what command lines mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Recipe
from engine.config.loader import PATHS
from engine.config.strict_yaml import load, load_value
from mmtui.errors import UsageError
from mmtui.services import recipe_form, recipes
from mmtui.services.recipe_form import Field, build, preview, with_value, written

pytestmark = pytest.mark.slow

STAGES = ("proxy", "match", "segment", "evaluate")
PAIRS = (
    "data.objects",
    "match.patch_size",
    "proxy.scale_jitter",
    "match.scale_jitter",
    "segment.scale_jitter",
)
NAMES = sorted(recipes.names())


def leaves(data: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """{dotted key: value} of plain data; a mapping of the user's own names is one value."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        key = f"{above}{name}"
        if isinstance(value, dict) and key not in ("reference.per_class", "data.label_map", "segment.class_weights"):
            found.update(leaves(value, f"{key}."))
        else:
            found[key] = value
    return found


def value_of(recipe: Recipe, key: str) -> Any:
    return leaves(recipe.model_dump(mode="json"))[key]


def test_every_key_of_every_shipped_recipe_appears_once_with_its_value_and_help() -> None:
    assert len(NAMES) > 40
    for name in NAMES:
        form = build(name)
        wanted = leaves(recipes.resolve(name).model_dump(mode="json"))
        if wanted["data.kind"] == "folder":
            wanted.setdefault("data.label_map", {})  # written only where it says something
        shown = [one for one in form.fields if not one.stage]
        assert len({one.key for one in form.fields}) == len(form.fields)
        assert {one.key: one.value for one in shown} == {k: v for k, v in wanted.items() if k not in STAGES}, name
        switches = {one.key: one.value for one in form.fields if one.stage}
        assert switches == {stage: stage not in wanted for stage in STAGES}, name
        assert all(one.help and one.type.words for one in form.fields), name
        assert all(one.value == one.recipe and one.changed_by in ("", "recipe") for one in form.fields), name
        assert all((one.changed_by == "recipe") == (one.value != one.default) for one in form.fields), name


def schema_of(key: str, data_kind: str) -> dict[str, Any]:
    """The JSON Schema of a key: pydantic's own reading of its constraints."""
    root = Recipe.model_json_schema()
    node: dict[str, Any] = root
    for part in key.split("."):
        branches = [node, *node.get("anyOf", ()), *node.get("oneOf", ())]
        found = [root["$defs"][one["$ref"].rpartition("/")[2]] if "$ref" in one else one for one in branches]
        inner = [one for one in found if part in one.get("properties", {})]
        if len(inner) > 1:
            inner = [one for one in inner if one["properties"]["kind"]["const"] == data_kind]
        node = inner[0]["properties"][part]
        if "$ref" in node:
            node = {**root["$defs"][node["$ref"].rpartition("/")[2]], **node}
    return node


@pytest.mark.parametrize("kind", ["shapes", "folder", "voc", "cityscapes"])
def test_types_are_those_of_the_json_schema(kind: str) -> None:
    form = build("shapes_mixmatch", [f"data.kind={kind}", "proxy.kind=jigsaw"])
    assert not form.problems
    seen = 0
    for one in form.fields:
        if one.stage or one.key == "data.kind":
            continue
        schema = schema_of(one.key, kind)
        assert one.help == schema["description"], one.key
        assert one.default == schema.get(
            "default", {} if one.key.endswith(("per_class", "label_map", "weights")) else None
        ), one.key
        kinds = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
        assert one.type.nullable == any(part.get("type") == "null" for part in schema.get("anyOf", ())), one.key
        plain, *forms = kinds
        if forms:  # words, or else a text or a number that is written in some form
            assert "enum" in plain and len(forms) == 1 and ", or " in one.type.words, one.key
        low = plain.get("minimum", plain.get("exclusiveMinimum"))
        high = plain.get("maximum", plain.get("exclusiveMaximum"))
        assert (one.type.low, one.type.high) == (low, high), one.key
        assert (one.type.low_open, one.type.high_open) == ("exclusiveMinimum" in plain, "exclusiveMaximum" in plain)
        choices = plain.get("enum", [plain["const"]] if "const" in plain else [])
        choices = ["false", "true"] if plain.get("type") == "boolean" else [str(choice) for choice in choices]
        assert list(one.type.choices) == choices, one.key
        for number in (low, high):
            assert number is None or f"{number:g}" in one.type.words or str(number) in one.type.words, one.key
        assert all(choice in one.type.words for choice in choices), one.key
        seen += 1
    assert seen > 90


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("segment.steps", "integer >= 1"),
        ("data.height", "integer 16-2048"),
        ("match.overlap", "number 0-1"),
        ("model.width", "number > 0, <= 4"),
        ("model.input", "one of rgb, rgb255, gray"),
        ("data.kind", "one of shapes, folder, voc, cityscapes"),
        ("model.dilated", "true or false"),
        ("match.background", "integer, or null"),
        ("match.patch_size", "list of 2 integers"),
        ("evaluate.scales", "list of numbers, at least 1"),
        ("evaluate.ensemble", "list of text"),
        ("reference.miou", "number 0-100, or null"),
        ("reference.per_class", "mapping of text to number"),
        ("model.weights", "text"),
        ("schema_version", "always 1"),
        ("match", "stage: on or off"),
    ],
)
def test_type_in_words(key: str, words: str) -> None:
    assert field("shapes_mixmatch", key).type.words == words


def test_map_of_mask_values_is_one_field() -> None:
    found = field("camvid_baseline", "data.label_map", "data.label_map={255: 1}")
    assert (found.type.words, found.value) == ("mapping of text to integer or text", {"255": 1})


def field(name: str, key: str, *overrides: str) -> Field:
    found = build(name, overrides).get(key)
    assert found is not None
    return found


def numbers(one: Field) -> st.SearchStrategy[Any]:
    low = one.type.low if one.type.low is not None else -1000
    high = one.type.high if one.type.high is not None else low + 1000
    if "integer" in one.type.words:
        return st.integers(int(low) + one.type.low_open, int(high) - one.type.high_open)
    return st.floats(low, high, exclude_min=one.type.low_open, exclude_max=one.type.high_open, width=64)


NARROWER: dict[str, st.SearchStrategy[Any]] = {
    "match.background": st.none() | st.integers(0, 8),
    "match.patch_size": st.lists(st.integers(1, 45).map(lambda half: 2 * half), min_size=2, max_size=2).map(sorted),
    "segment.crop": st.integers(193, 1000),
    "segment.pixel_margin": st.integers(0, 47),
    "segment.reset_layers": st.just(0),
    "segment.auxiliary_head": st.just(0.0),
    "segment.class_weights": st.dictionaries(st.text(min_size=1, max_size=4), st.floats(1e-3, 1e6), max_size=3),
    "model.input": st.sampled_from(["rgb", "gray"]),
    "model.dilated": st.just(False),
    "model.head": st.sampled_from(["hypercolumn", "fcn", "aspp"]),
    "evaluate.scales": st.lists(st.floats(0.01, 16), min_size=1, max_size=4),
    **{
        f"{stage}.optim.milestones": st.lists(st.floats(0, 1), max_size=4, unique=True).map(sorted)
        for stage in ("proxy", "match", "segment")
    },
    **{
        f"{stage}.optim.betas": st.lists(st.floats(0, 0.999), min_size=2, max_size=2)
        for stage in ("proxy", "match", "segment")
    },
}
"""Values of fields that other fields, or the data set, limit further than their words do."""


def values(one: Field) -> st.SearchStrategy[Any]:
    """Values that the words of a field allow."""
    if one.key in NARROWER:
        return NARROWER[one.key]
    if one.type.choices:
        found = {"false": False, "true": True, "1": 1}
        return st.sampled_from([found.get(choice, choice) for choice in one.type.choices])
    if one.key in PAIRS:
        whole = "integer" in one.type.words
        item: Any = st.integers(2, 90) if whole else st.floats(0.1, 10)
        return st.lists(item, min_size=2, max_size=2).map(sorted)
    if one.type.words.startswith("list of numbers"):
        return st.lists(st.floats(0.01, 100), min_size=1, max_size=4)
    if one.type.words.startswith("list of integers"):
        return st.lists(st.integers(0, 255), max_size=4)
    if one.type.words.startswith("mapping"):
        return st.dictionaries(st.text(min_size=1, max_size=4), st.floats(0, 100), max_size=3)
    if one.type.text:
        return st.text(max_size=12)
    return st.one_of(st.none(), numbers(one)) if one.type.nullable else numbers(one)


TOGETHER = ("segment.keep_best", "segment.patience", "evaluate.checkpoint")
PATH_KEYS = {".".join(path) for path in PATHS}
FREE = [
    (name, one.key)
    for name in ("shapes_colorization_mixmatch", "voc_vgg16_jigsaw_mixmatch", "cityscapes_vgg16_random_baseline")
    for one in build(name).fields
    # Paths are made absolute, an empty name is the file's, without kind=voc there is no VOC. As data.masks is a choice
    # for one kind of data, nothing in it means the recipe's own for all kinds. Some keys need others beside them.
    if not one.stage and one.key not in PATH_KEYS and one.key not in ("name", "data.kind", "data.masks", *TOGETHER)
]


@pytest.mark.parametrize("character", ["\x7f", "\x80", "\x85", "\x9f", "\ufeff", "\ufffe", "\u2028", "\x00", "\t"])
def test_written_characters_that_yaml_calls_unprintable_are_read_again(character: str) -> None:
    for value in ({character: 0.0}, character, f"a{character}b"):
        assert load_value(written(value)) == value


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_field_that_is_set_to_a_value_resolves_to_it_and_back(data: st.DataObject) -> None:
    name, key = data.draw(st.sampled_from(FREE))
    own = field(name, key)
    value = data.draw(values(own))
    changed = with_value(name, (), key, written(value, key))
    assert value_of(recipes.resolve(name, changed), key) == value
    if value == own.recipe and type(value) is type(own.recipe):
        assert changed == ()
    now = field(name, key, *changed)
    assert not now.problem and now.value == value
    assert now.changed_by == ("you" if value != own.recipe else own.changed_by)
    assert with_value(name, changed, key, own.recipe_text) == ()


@pytest.mark.parametrize("name", ["shapes_colorization_mixmatch", "voc_vgg16_jigsaw_mixmatch"])
def test_limits_in_the_form_are_those_that_hold(name: str) -> None:
    tried = 0
    for one in build(name).fields:
        whole = "integer" in one.type.words
        for limit, is_open, way in ((one.type.low, one.type.low_open, -1), (one.type.high, one.type.high_open, 1)):
            if limit is None:
                continue
            beyond = limit + way if whole else math.nextafter(limit, way * math.inf)
            inside = limit - way if whole else math.nextafter(limit, -way * math.inf)
            allowed, refused = (inside, limit) if is_open else (limit, beyond)
            if one.key not in NARROWER:
                assert not field(name, one.key, f"{one.key}={json_text(allowed)}").problem, one.key
            assert field(name, one.key, f"{one.key}={json_text(refused)}").problem, one.key
            tried += 1
    assert tried > 60


def json_text(value: float) -> str:
    return written(value)


def test_wrong_overrides_are_told_at_their_fields_and_the_others_hold() -> None:
    form = build("shapes_mixmatch", ["segment.steps=x", "match.margin=3", "nonsense.key=1", "seed=4..1"])
    assert set(form.problems) == {"segment.steps=x", "nonsense.key=1", "seed=4..1"}
    steps, margin, seed = (form.get(key) for key in ("segment.steps", "match.margin", "seed"))
    assert steps is not None and margin is not None and seed is not None
    assert (steps.text, steps.value, steps.changed_by) == ("x", 200, "you")
    assert "'x' is not allowed; write int >= 1" in steps.problem
    assert (margin.value, margin.problem, margin.changed_by) == (3.0, "", "you")
    assert "a range goes up" in seed.problem
    with pytest.raises(UsageError, match=r"segment\.steps"):
        recipes.resolve("shapes_mixmatch", ["segment.steps=x"])


def test_overrides_that_are_right_only_together_are_right() -> None:
    form = build("shapes_mixmatch", ["segment=null", "evaluate=null"])
    assert not form.problems
    assert form.resolved.stages() == (("match", 200),)
    assert build("shapes_mixmatch", ["segment=null"]).problems


def test_value_takes_the_place_of_the_override_there_was() -> None:
    overrides = ("segment.steps=5", "seed=1", "segment.steps=6", "match.margin=3")
    assert with_value("shapes_mixmatch", overrides, "segment.steps", "7") == (
        "segment.steps=7",
        "seed=1",
        "match.margin=3",
    )
    assert with_value("shapes_mixmatch", overrides, "seed", "2")[1] == "seed=2"
    assert with_value("shapes_mixmatch", overrides, "match.optim.lr", "0.1")[-1] == "match.optim.lr=0.1"
    assert with_value("shapes_mixmatch", ("seed=1",), "seed", "") == ()
    assert with_value("shapes_mixmatch", (), "description", "") == ("description=",), "empty text is a text"
    assert with_value("shapes_mixmatch", ("seed=1",), "seed", "wrong") == ("seed=wrong",)


def test_one_class_of_the_reference_is_a_change_of_the_mapping() -> None:
    override = "reference.per_class.sky=50"
    found = field("shapes_mixmatch", "reference.per_class", override)
    assert found.value == {"sky": 50.0} and found.changed_by == "you"
    assert with_value("shapes_mixmatch", (override,), "reference.per_class", "{}") == ()


def test_mapping_of_a_recipe_is_taken_off_by_null(tmp_path: Path) -> None:
    file = tmp_path / "mapped.yaml"
    file.write_text("data: {kind: folder, root: /x, label_map: {255: 1}}\nsegment: {steps: 2}\n")
    assert with_value(str(file), (), "data.label_map", "null") == ("data.label_map=null",)
    found = build(str(file), ("data.label_map=null",)).get("data.label_map")
    assert found is not None
    assert (found.value, found.recipe, found.changed_by, found.problem) == ({}, {"255": 1}, "you", "")


def test_sweep_of_a_field() -> None:
    overrides = with_value("shapes_mixmatch", (), "seed", "0..2")
    overrides = with_value("shapes_mixmatch", overrides, "model.input", "rgb,gray")
    assert overrides == ("seed=0..2", "model.input=rgb,gray")
    form = build("shapes_mixmatch", overrides)
    swept = {one.key: one.values for one in form.fields if one.values}
    assert swept == {"seed": ("0", "1", "2"), "model.input": ("rgb", "gray")}
    assert all(one.changed_by == "you" for one in form.fields if one.values)
    assert (form.resolved.seed, form.resolved.model.input) == (0, "rgb")
    assert field("shapes_mixmatch", "seed", "seed=0..99").values_text == "0, 1, 2, 3, 4, 5, 6, 7 and 92 more"


def test_stages_are_put_in_and_left_out() -> None:
    on = with_value("shapes_mixmatch", ("seed=1",), "proxy", "on")
    assert build("shapes_mixmatch", on).resolved.stages()[0] == ("proxy", 10_000)
    more = with_value("shapes_mixmatch", on, "proxy.steps", "7")
    assert build("shapes_mixmatch", more).resolved.stages()[0] == ("proxy", 7)
    assert with_value("shapes_mixmatch", more, "proxy", "off") == ("seed=1",)
    off = with_value("shapes_mixmatch", ("match.steps=5",), "match", "off")
    assert off == ("match=null",)
    assert build("shapes_mixmatch", off).resolved.match is None
    assert with_value("shapes_mixmatch", off, "match", "on") == ()


def test_switching_a_stage_on_is_not_undone_by_a_value_that_is_the_default() -> None:
    on = with_value("shapes_mixmatch", (), "proxy", "on")
    (override,) = on
    key, _, text = override.partition("=")
    assert with_value("shapes_mixmatch", on, key, text) == on


def test_another_kind_of_data_brings_its_own_keys() -> None:
    overrides = with_value("shapes_mixmatch", (), "data.kind", "cityscapes")
    form = build("shapes_mixmatch", overrides)
    assert form.get("data.objects") is None
    masks = form.get("data.masks")
    assert masks is not None and masks.type.choices == ("labelIds", "labelTrainIds")
    assert masks.changed_by == ""
    assert with_value("shapes_mixmatch", overrides, "data.kind", "shapes") == ()


@pytest.mark.parametrize("name", NAMES[::5])
def test_preview_is_yaml_of_the_resolved_recipe(name: str) -> None:
    overrides = ["segment.steps=7", "seed=1,2", 'description=odd: "text" # [x]', "name=1e5"]
    form = build(name, overrides)
    lines = preview(form)
    data, _ = load("\n".join(line.text for line in lines), "")
    assert data == form.resolved.model_dump(mode="json")
    yours = {line.key: line.note for line in lines if line.changed_by == "you"}
    assert set(yours) == {"segment.steps", "seed", "description", "name"}
    assert yours["seed"] == "sweep: 1, 2"
    assert yours["segment.steps"].startswith("recipe: ")


def test_plain_form_of_a_field_holds_only_what_json_has() -> None:
    found = recipe_form.plain(field("shapes_mixmatch", "segment.steps", "segment.steps=5"))
    assert (found["default"], found["recipe"], found["value"], found["changed_by"]) == (42_000, 200, 5, "you")
    assert (found["low"], found["high"], found["low_excluded"]) == (1, None, False)


def test_recipe_that_does_not_load_is_an_error_in_words() -> None:
    with pytest.raises(UsageError, match="no recipe called"):
        build("shapes_mixmach")


def test_sample_counts_all_runs_and_checks_every_value() -> None:
    found = recipes.sample("shapes_mixmatch", ["seed=0..99", "match.margin=1,2"], most=4)
    assert found.count == 200 and len(found.recipes) == 4
    with pytest.raises(UsageError, match="seed"):
        recipes.sample("shapes_mixmatch", ["seed=2147483000..2147483648"], most=2)
    with pytest.raises(UsageError, match=r"match\.margin"):
        recipes.sample("shapes_mixmatch", ["match.margin=1,-2,3", "seed=0,1"], most=4)
    assert len(recipes.sample("shapes_mixmatch", ["seed=0,1", "match.margin=1,2"], most=9, zipped=True).recipes) == 2
    assert recipes.sample("shapes_mixmatch", [], most=9, smoke=True).recipes[0].stages()[0] == ("match", 2)
