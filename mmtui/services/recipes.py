"""Recipes that can be launched: the shipped ones, and files of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmtui.domain.views import RecipeView
from mmtui.errors import UsageError
from mmtui.paths import Home

if TYPE_CHECKING:
    from engine.config import KeyInfo, Recipe


def recipe_dirs(home: Home | None = None) -> list[Path]:
    """Folders in which recipe names are looked up: the user's, then the shipped ones."""
    package = Path(__file__).resolve().parent.parent
    own = [home.root / "recipes"] if home is not None else []
    shipped = [package / "_recipes", package.parent / "recipes"]
    return [folder for folder in [*own, *shipped] if folder.is_dir()]


def list_recipes(home: Home | None = None) -> list[RecipeView]:
    """Every recipe that a name can mean, by name; one that does not load says why."""
    seen: dict[str, RecipeView] = {}
    for folder in recipe_dirs(home):
        for file in sorted(folder.glob("*.yaml")):
            seen.setdefault(file.stem, _view(file, folder))
    return [seen[name] for name in sorted(seen)]


def _view(file: Path, folder: Path) -> RecipeView:
    from engine.config import RecipeFileError, load_recipe

    try:
        recipe = load_recipe(file, (), [folder])
    except RecipeFileError as error:
        return RecipeView(file.stem, str(file), "", "", (), None, str(error))
    return RecipeView(
        name=file.stem,
        path=str(file),
        description=recipe.description,
        data=recipe.data.kind,
        stages=recipe.stages(),
        reference_miou=recipe.reference.miou,
    )


def find(name: str, home: Home | None = None) -> Path:
    """The file that a name or a path means.

    Raises:
        UsageError: no such recipe; the nearest names are in the message.
    """
    from engine.config import RecipeFileError, find_recipe

    try:
        return find_recipe(name, recipe_dirs(home))
    except RecipeFileError as error:
        raise UsageError(str(error)) from None


def resolve(name: str, overrides: Sequence[str] = (), home: Home | None = None) -> Recipe:
    """A recipe with its base merged and overrides applied.

    Raises:
        UsageError: the recipe or an override is wrong.
    """
    from engine.config import RecipeFileError, load_recipe

    try:
        return load_recipe(name, list(overrides), recipe_dirs(home))
    except RecipeFileError as error:
        raise UsageError(str(error)) from None


def as_yaml(recipe: Recipe) -> str:
    """The whole recipe as YAML."""
    from engine.config import dump_recipe

    return dump_recipe(recipe)


def keys() -> tuple[KeyInfo, ...]:
    """Every key that can be overridden."""
    from engine.config import valid_keys

    return valid_keys()
