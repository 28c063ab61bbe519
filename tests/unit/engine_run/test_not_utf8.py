"""Names of files that are no UTF-8: a data set's folder, its pictures, the folder of the run, all of them at once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.config import Recipe, dump_recipe, load_recipe
from engine.config.file_names import restored
from engine.events import EventWriter
from engine.text import as_text
from tests.unit.engine_run.conftest import Runner, tiny_recipe

NAME = os.fsdecode(b"caf\xe9")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five training and three validation pictures of 32 x 32 pixels, two classes."""
    root, noise = tmp_path / f"data {NAME}", np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 3)):
        for number in range(count):
            mask = np.zeros((32, 32), np.uint8)
            mask[:, 10 + number :] = 1
            for folder, pixels in (("images", noise.integers(0, 255, (32, 32, 3), np.uint8)), ("labels", mask)):
                file = root / folder / split / f"{NAME}{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)
    (root / "classes.txt").write_text("left\nright\n")
    return root


def test_a_run_trains_on_such_pictures_in_such_a_folder(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(evaluate__save_predictions=True, evaluate__overlays=True, evaluate__show_images=2)
    there = Recipe.model_validate(recipe.model_dump() | {"data": {"kind": "folder", "root": str(data)}})
    runner = Runner(tmp_path / f"run {NAME}")
    code, out, _ = runner.finish(there)
    assert code == 0, out
    images = [
        event["values"]["name"]
        for event in runner.events()
        if event["kind"] == "image" and event["stage"] == "evaluate"
    ]
    assert set(images) == {f"{NAME}0", f"{NAME}1"}
    assert {file.name for file in (runner.run_dir / "overlays").iterdir()} == {f"{NAME}{n}.png" for n in range(3)}


def test_paths_of_a_recipe_come_back_and_its_file_is_utf8(data: Path, tmp_path: Path) -> None:
    file = tmp_path / f"{NAME}.yaml"
    file.write_text("data: {kind: folder}\nsegment: {steps: 1}\n")
    texts = [f"data.root={data}", f"model.weights={NAME}", f"evaluate.ensemble=[{NAME}]", f"description={NAME}"]
    recipe = load_recipe(file, texts)
    assert recipe.data.kind == "folder"
    assert (recipe.data.root, recipe.model.weights) == (str(data), str(Path(NAME).absolute()))
    assert recipe.evaluate.ensemble == (str(Path(NAME).absolute()),)
    assert (recipe.name, recipe.description) == ("caf\\xe9", "caf\\xe9")
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_a_path_that_looks_spelled_and_exists_is_meant_so(tmp_path: Path) -> None:
    literal = tmp_path / "caf\\xe9"
    assert restored(str(literal)) == str(tmp_path / NAME)
    literal.mkdir()
    assert restored(str(literal)) == str(literal)
    assert as_text(NAME) == "caf\\xe9"
    assert as_text("\ud83d") == "\\ud83d"
    assert as_text("é") == restored("é") == "é"


def test_a_line_of_the_event_file_is_utf8_and_tells_the_very_name(tmp_path: Path) -> None:
    writer = EventWriter.open_for_attempt(tmp_path, 1)
    writer.emit("warning", {"text": f"{NAME} é"})
    writer.close()
    (line,) = (tmp_path / "attempts" / "001" / "events.jsonl").read_bytes().decode("utf-8").splitlines()
    assert json.loads(line)["values"]["text"] == f"{NAME} é"
