"""``data.label_map``: what mask values mean, held against a plain dictionary; what it says wrongly is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.__main__ import FOLDERS
from engine.config import RecipeFileError, dump_recipe, load_recipe
from engine.config.determining import determining, work_name
from engine.config.schema import FolderData, Recipe
from engine.data.check import summarise
from engine.data.fingerprint import fingerprint
from engine.data.folder import label_rule
from engine.data.registry import build_data
from engine.errors import DataError
from tests.unit.engine_run.conftest import tiny_recipe

CLASSES = ("sky", "road", "tree")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two splits whose masks hold 0, 100 and 255, in thirds."""
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        for number in range(2):
            pixels = np.random.default_rng(number + 5 * (split == "val")).integers(0, 255, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / split / f"{split}{number}.png")
            mask = np.repeat(np.array([0, 0, 100, 100, 255, 255], np.uint8)[None], 6, axis=0)
            Image.fromarray(mask).save(tmp_path / "labels" / split / f"{split}{number}.png")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    return tmp_path


TARGETS = st.sampled_from([*CLASSES, "void", 0, 1, 2, 255])


@given(st.dictionaries(st.integers(0, 255), TARGETS, max_size=20), st.lists(st.integers(0, 255), max_size=3))
def test_each_value_means_what_the_map_says_else_itself(mapped: dict[int, Any], voids: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.data.folder.class_names", lambda _config: CLASSES)
        config = FolderData(label_map={str(key): value for key, value in mapped.items()}, void_labels=tuple(voids))
        meaning = label_rule(config).meaning
    for value in range(256):
        itself = 255 if value in voids else value if value < 3 else -1
        target = mapped.get(value, itself)
        expected = {"sky": 0, "road": 1, "tree": 2, "void": 255}.get(target, target)
        assert meaning[value] == expected, value


def test_masks_are_read_by_the_map(root: Path) -> None:
    config = FolderData(root=str(root), label_map={"100": "tree", "255": 1})
    labels = build_data(config, "train").labels
    assert labels[0, 0].tolist() == [0, 0, 2, 2, 1, 1]
    report = summarise(config)
    assert not report.problems and report.splits["train"].pixels == [24, 24, 24]
    assert "there are 3 classes" in "".join(summarise(FolderData(root=str(root))).problems)


@pytest.mark.parametrize("mapped, words", [
    ({"100": "tre"}, "value 100 is said to mean 'tre', which is no class: did you mean tree?"),
    ({"100": 3}, "value 100 is said to mean '3', which is no class: write an index from 0 to 2, a name, or void"),
    ({"7": "xyz"}, "write an index from 0 to 2, a name, or void"),
])  # fmt: skip
def test_class_that_there_is_not_is_refused(root: Path, mapped: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError) as caught:
        build_data(FolderData(root=str(root), label_map=mapped), "train")
    assert words in str(caught.value)


@pytest.mark.parametrize("text, words", [
    ("{256: 1}", "256 is no value of a mask: write 0 to 255"), ("{-1: 1}", "a key must be a plain name"),
    ("{255:1}", "255:1 has no blank behind the colon: write for example {255: 1}"), ("{0: [1]}", "0: [1] is no class"),
    ('{"01": 1}', "01 is no value of a mask"), ("{a: 1}", "a is no value of a mask"), ("{0: -1}", "-1 is no class"),
    ("{0: 1.5}", "0: 1.5 is no class"),
    ("{0: true}", "0: true is no class"), ("{0: null}", "0: null is no class"),
    ("[0]", "write {name: value}"), ("{1e1: 1}", "plain name"),
    ("{1: 0, 1: 2}", "'data.label_map.1' stands twice"),
])  # fmt: skip
def test_map_that_makes_no_sense_is_refused_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(f"data:\n  kind: folder\n  root: /data\n  label_map: {text}\nsegment: {{}}\n")
    with pytest.raises(RecipeFileError) as caught:
        load_recipe(file)
    assert words in str(caught.value) and str(file) in str(caught.value)


def test_numbers_are_no_keys_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("data: {kind: shapes}\nsegment: {5: 1}\n")
    with pytest.raises(RecipeFileError, match="no such key"):
        load_recipe(file)


def recipe(**data: Any) -> Recipe:
    return tiny_recipe(data={"kind": "folder", "root": "/data", **data})


def test_map_determines_what_is_computed_and_none_changes_nothing_of_before(root: Path) -> None:
    plain, mapped = recipe(), recipe(label_map={"255": 1})
    assert "label_map" not in dump_recipe(plain) and load_again(mapped, root) == mapped
    assert dict(determining(mapped, "match"))["data.label_map.255"] == 1
    assert not [key for key, _ in determining(plain, "match") if "label_map" in key]
    assert work_name(plain) == work_name(recipe(label_map={}))
    config = FolderData(root=str(root))
    other = config.model_copy(update={"label_map": {"100": "tree", "255": 1}})
    assert fingerprint(config) != fingerprint(other)
    assert json.loads(config.model_dump_json()) == config.model_dump(mode="json")


def load_again(found: Recipe, folder: Path) -> Recipe:
    file = folder / "again.yaml"
    file.write_text(dump_recipe(found))
    return load_recipe(file)


def test_key_on_the_command_line(root: Path) -> None:
    command = [sys.executable, "-m", "engine", "check-data", "shapes_baseline", "--set", "data.kind=folder"]
    keys = ["--set", f"data.root={root}", "--set", "data.label_map={100: tree, 255: road}"]
    done = subprocess.run([*command, *keys], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "no problems found" in done.stdout, done.stdout + done.stderr


def test_one_value_on_the_command_line_is_one_key(root: Path) -> None:
    """As a difference of two recipes is written."""
    keys = ["data.kind=folder", f"data.root={root}", "data.label_map.100=tree", "data.label_map.255=1"]
    found = load_recipe("shapes_baseline", keys, FOLDERS)
    assert getattr(found.data, "label_map", None) == {"100": "tree", "255": 1}
    with pytest.raises(RecipeFileError, match="300 is no value of a mask"):
        load_recipe("shapes_baseline", [*keys, "data.label_map.300=1"], FOLDERS)


def test_void_that_is_a_class_is_asked_about(root: Path) -> None:
    (root / "classes.txt").write_text("void\nroad\ntree")
    with pytest.raises(DataError, match="'void' is a class here: write its index, or 255 for no class"):
        build_data(FolderData(root=str(root), label_map={"100": "void", "255": 1}), "train")
    labels = build_data(FolderData(root=str(root), label_map={"100": 0, "255": 255}), "train").labels
    assert labels[0, 0].tolist() == [0, 0, 0, 0, 255, 255]


@pytest.mark.parametrize("mapped, expected", [
    ({"255": 0, "0": 1}, [1, 1, 0]), ({"1": 0, "0": 1}, [1, 1, 0]), ({"255": "road"}, [0, 0, 1]), ({}, [0, 0, 1]),
])  # fmt: skip
@pytest.mark.parametrize("mode", ["1", "L"])
def test_masks_of_one_bit_are_read_as_the_map_speaks_of_them(
    root: Path, mapped: dict[str, Any], expected: list[int], mode: str
) -> None:
    """Programs that shrink a PNG make one bit of 0 and 255: what the map names is what was drawn."""
    (root / "classes.txt").write_text("sky\nroad")
    high = 1 if "1" in mapped or not mapped else 255
    for file in (root / "labels").rglob("*.png"):
        picture = Image.fromarray(np.repeat(np.array([0, 0, high], np.uint8)[None], 6, axis=0).repeat(2, axis=1))
        (picture.point(lambda value: 255 if value else 0).convert("1") if mode == "1" else picture).save(file)
    config = FolderData(root=str(root), label_map=mapped)
    assert build_data(config, "train").labels[0, 0].tolist() == [value for value in expected for _ in range(2)]
