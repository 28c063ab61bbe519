"""Values of any kind in any key, as overrides and in files: a sentence or a recipe, never another error."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from engine.config import RecipeFileError, load_recipe, valid_keys

ROOT = Path(__file__).resolve().parents[3]
LONG = "9" * 5000
VALUES = (
    "[a]", "{a: b}", "[[a]]", "{a: [b]}", "[{a: b}]", "null", "true", "-1", LONG, "9" * 20, "9" * 4000, f"[{LONG}]",
    "1e400", ".nan", "-.inf", "text", '""', '"a\\0b"', "2020-01-01", "!!set {a}", "!!binary aGk=", "!!python/none x",
    "[1, 2, 3, 4]", "[null]", "x" * 6000,
)  # fmt: skip
KEYS = [info.key for info in valid_keys()]
SECTIONS = sorted({key.rpartition(".")[0] for key in KEYS if "." in key})


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text("data: {kind: shapes}\nsegment: {steps: 2}\n")
    return file


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:12])
def test_every_key_takes_or_refuses_every_value(recipe: Path, tmp_path: Path, value: str) -> None:
    for key in [*KEYS, *SECTIONS, "reference.per_class.sky"]:
        with suppress(RecipeFileError):
            load_recipe(recipe, [f"{key}={value}"])
        nested = value
        for name in reversed(key.split(".")):
            nested = f"{{{name}: {nested}}}"
        file = tmp_path / "nested.yaml"
        file.write_text(nested)
        with suppress(RecipeFileError):
            load_recipe(file)


@pytest.mark.parametrize("value", ["[a]", "{a: b}", "null", "5"])
def test_the_kind_of_data_is_told_with_what_to_write(recipe: Path, value: str) -> None:
    with pytest.raises(RecipeFileError, match=r"override 'data.kind=.*data.kind: write kind: shapes or"):
        load_recipe(recipe, [f"data.kind={value}"])


@pytest.mark.parametrize("name", [LONG, f"{LONG}.yaml", f"./{LONG}.yml", "a\0b", "a\0b.yaml"])
def test_a_name_that_no_file_can_have_is_that_of_no_recipe(recipe: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeFileError, match="called"):
        load_recipe(name, [], [tmp_path])
    child = tmp_path / "child.yaml"
    child.write_text(f"base: {name!r}\n" if "\0" not in name else 'base: "a\\0b"\n')
    with pytest.raises(RecipeFileError, match="base: no"):
        load_recipe(child)


@pytest.mark.parametrize("stage", ["proxy", "match", "segment"])
def test_steps_and_other_whole_numbers_have_an_end(recipe: Path, stage: str) -> None:
    load_recipe(recipe, [f"{stage}.steps={10**15}"])
    with pytest.raises(RecipeFileError, match=rf"{stage}\.steps 1000000000000001: write at most 1,000,000,000,000,000"):
        load_recipe(recipe, [f"{stage}.steps={10**15 + 1}"])
    load_recipe(recipe, [f"data.data_seed={2**63 - 1}"])
    with pytest.raises(RecipeFileError, match=r"data\.data_seed .*: write at most"):
        load_recipe(recipe, [f"data.data_seed={2**63}"])
    load_recipe(recipe, [f"data.data_seed={2**63}", f"{stage}.steps={10**18}"], stored=True)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["check-recipe", "shapes_smoke", "--set", "data.kind=[a]"], "data.kind: write kind: shapes"),
        (["check-recipe", "shapes_smoke", "--set", f"seed={LONG}"], "seed"),
        (["check-recipe", LONG], "no recipe called"),
        (["train", "shapes_smoke", "--run-dir", "run", "--attempt", LONG], "--attempt"),
        (["train", "shapes_smoke", "--run-dir", "run", "--attempt", "9" * 20], "--attempt"),
        (["train", "shapes_smoke", "--run-dir", "run", "--attempt", "-5"], "--attempt"),
        (["train", "shapes_smoke", "--run-dir", "run", "--from", f".@{LONG}", "--quiet"], "there is no run directory"),
        (["weights", "export", "--run-dir", ".", "--out", "x", "--side", "9" * 20], "--side"),
    ],
)
def test_the_engine_refuses_in_one_short_sentence(tmp_path: Path, words: list[str], named: str) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "engine", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2, found.stderr
    assert named in found.stderr and "Traceback" not in found.stderr
    assert len(found.stderr) < 1200
