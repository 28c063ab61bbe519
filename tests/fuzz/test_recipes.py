"""Recipes and overrides that are none: one sentence that names the place, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.config import Recipe, RecipeFileError, load_recipe
from tests.fuzz.mutations import argument, changed, each, seeds
from tests.fuzz.watch import Watch
from tests.hostile import mutated

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = ("shapes_smoke", "shapes_mixmatch", "camvid_tiny_densecl_mixmatch", "voc_alexnet_mixmatch")
SEPARATORS = ("=", "==", ":", ".=", "= ", "\n=", "")


def texts() -> list[str]:
    return [file.read_text() for file in sorted(RECIPES.glob("*.yaml"))[::4]]


def keys() -> list[str]:
    def below(table: dict[str, Any], above: str) -> list[str]:
        found = []
        for name, value in table.items():
            found += [f"{above}{name}", *(below(value, f"{above}{name}.") if isinstance(value, dict) else [])]
        return found

    return below(load_recipe("shapes_mixmatch", search=[RECIPES]).model_dump(mode="json"), "")


def check(file: Path, overrides: list[str], what: object) -> bool:
    """Whether it is a recipe; anything but that and a sentence is a failure."""
    try:
        assert isinstance(load_recipe(file, overrides, [RECIPES]), Recipe)
    except RecipeFileError as error:
        assert str(error).strip(), what
        return False
    except BaseException as error:
        pytest.fail(f"{what!r:.2000}: {type(error).__name__}: {error!s:.500}")
    return True


def test_broken_files_are_refused_in_words(tmp_path: Path, watch: Watch) -> None:
    file, sources = tmp_path / "x.yaml", texts()
    found = []
    for seed, chosen in each(seeds(120), "recipes, broken files"):
        file.write_bytes(changed(chosen.choice(sources).encode(), chosen))
        with watch.input():
            found.append(check(file, [], f"seed {seed}"))
    assert not all(found)


def test_tables_of_wrong_values_are_refused_in_words(tmp_path: Path, watch: Watch) -> None:
    file = tmp_path / "x.yaml"
    whole = load_recipe("shapes_mixmatch", search=[RECIPES]).model_dump(mode="json")
    found = []
    for seed, _ in each(seeds(60, 1), "recipes, wrong values"):
        table = mutated(whole, seed)
        file.write_text(yaml.safe_dump(table), encoding="utf-8", errors="surrogatepass")
        with watch.input():
            found.append(check(file, [], f"seed {seed}"))
    assert not all(found)


def override(chosen: random.Random, known: list[str]) -> str:
    key = chosen.choice(known) if chosen.random() < 0.8 else argument(chosen)
    if chosen.random() < 0.1:
        return f"seed={chosen.randrange(100)}"
    return f"{key}{chosen.choice(SEPARATORS)}{argument(chosen)}"


def test_overrides_are_refused_in_words(watch: Watch) -> None:
    known = keys()
    found = []
    for _, chosen in each(seeds(120, 2), "overrides"):
        overrides = [override(chosen, known) for _ in range(chosen.choice((1, 1, 2)))]
        with watch.input():
            found.append(check(RECIPES / "shapes_smoke.yaml", overrides, overrides))
    assert any(found) and not all(found)
