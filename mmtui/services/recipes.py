"""Recipes that can be launched: the shipped ones, and files of the user's own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from engine.json_types import Json
from mmtui.domain import sweeps
from mmtui.domain.views import RecipeView
from mmtui.errors import UsageError
from mmtui.paths import Home
from mmtui.services import inputs

if TYPE_CHECKING:
    from engine.config import KeyInfo, Recipe


_MISSING = object()


def recipe_dirs(home: Home | None = None) -> list[Path]:
    """Folders in which recipe names are looked up: the user's, then the shipped ones."""
    package = Path(__file__).resolve().parent.parent
    own = [home.root / "recipes"] if home is not None else []
    shipped = [package / "_recipes", package.parent / "recipes"]
    studies = [folder / "studies" for folder in shipped]
    return [folder for folder in [*own, *shipped, *studies] if folder.is_dir()]


def list_recipes(home: Home | None = None) -> list[RecipeView]:
    """Every recipe that a name can mean, by name; one that does not load says why."""
    return [load(file)[0] for file in names(home).values()]


def names(home: Home | None = None) -> dict[str, Path]:
    """{name: file} of every recipe that a name can mean, by name. Reads no file."""
    seen: dict[str, Path] = {}
    for folder in recipe_dirs(home):
        for file in folder.glob("*.yaml"):
            seen.setdefault(file.stem, file)
    return dict(sorted(seen.items()))


def load(file: Path) -> tuple[RecipeView, Recipe | None]:
    """A recipe to choose from, and the recipe itself unless it does not load; the view then says why."""
    from engine.config import RecipeFileError, load_recipe

    try:
        recipe = load_recipe(file, (), [file.parent, *recipe_dirs()])
    except RecipeFileError as error:
        return RecipeView(file.stem, str(file), "", "", (), None, str(error)), None
    view = RecipeView(
        name=file.stem,
        path=str(file),
        description=recipe.description,
        data=recipe.data.kind,
        stages=recipe.stages(),
        reference_miou=recipe.reference.miou,
        reference_source=recipe.reference.source,
        lacks=next(iter(inputs.lacking(recipe, later=True)), ""),
    )
    return view, recipe


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


def with_smoke(name: str, overrides: Sequence[str] = (), home: Home | None = None) -> list[str]:
    """The overrides, after those that make the recipe a matter of seconds.

    Raises:
        UsageError: the recipe or an override is wrong.
    """
    from engine.config.smoke import smoke_overrides

    return [*smoke_overrides(resolve(name, overrides, home)), *overrides]


def sweep(
    name: str, overrides: Sequence[str], home: Home | None = None, *, zipped: bool = False, smoke: bool = False
) -> list[list[str]]:
    """The overrides of every run that a command line means; each is checked against the recipe.

    Raises:
        UsageError: the recipe, an override or the sweep is wrong.
    """
    return [texts for texts, _ in members(name, overrides, home, zipped=zipped, smoke=smoke)]


def members(
    name: str, overrides: Sequence[str], home: Home | None = None, *, zipped: bool = False, smoke: bool = False
) -> list[tuple[list[str], Recipe]]:
    """The same with the resolved recipe of each.

    Raises:
        UsageError: as of ``sweep``.
    """
    found = [list(texts) for texts in sweeps.expand(overrides, holds_text, zipped=zipped)]
    if smoke:
        found = [with_smoke(name, texts, home) for texts in found]
    return [(texts, resolve(name, texts, home)) for texts in found]


@dataclass(frozen=True)
class Sample:
    """Some runs of a sweep: how many it has, and the recipes of those that were looked at."""

    count: int
    recipes: tuple[Recipe, ...]


def sample(
    name: str,
    overrides: Sequence[str],
    home: Home | None = None,
    *,
    most: int,
    zipped: bool = False,
    smoke: bool = False,
) -> Sample:
    """What a command line means, with no more than ``most`` runs checked: every value once, as far as that goes.

    Raises:
        UsageError: as of ``sweep``.
    """
    members = sweeps.expand(overrides, holds_text, zipped=zipped)
    chosen = [list(texts) for texts in sweeps.every_value(members, most)]
    if smoke:
        chosen = [with_smoke(name, texts, home) for texts in chosen]
    return Sample(len(members), tuple(resolve(name, texts, home) for texts in chosen))


def holds_text(key: str) -> bool:
    """Whether a key holds free text, in which a comma is a comma."""
    return key in _text_keys()


@lru_cache(maxsize=1)
def _text_keys() -> frozenset[str]:
    from engine.config.overrides import TEXT

    return frozenset(info.key for info in keys() if info.type == TEXT)


def changed_in_editor(file: Path) -> list[str]:
    """Open a resolved recipe in the user's editor; overrides for every value that was changed.

    Raises:
        UsageError: what was saved is no recipe, or the editor failed.
    """
    from engine.config import RecipeFileError, load_recipe
    from mmtui.services.editor import edited

    with tempfile.TemporaryDirectory(prefix="mmtui-") as folder:
        after = Path(folder) / file.name
        after.write_text(edited(file.read_text(), file.name))
        try:
            old, new = (load_recipe(path).model_dump(mode="json") for path in (file, after))
        except RecipeFileError as error:
            raise UsageError(str(error)) from None
    return [f"{key}={json.dumps(value)}" for key, value in _changed(old, new, "")]


def _changed(old: Mapping[str, Json], new: Mapping[str, Json], above: str) -> Iterator[tuple[str, Json]]:
    from engine.config.overrides import is_mapping

    same_kind = old.get("kind") == new.get("kind")
    for name in [*new, *(name for name in old if name not in new and same_kind)]:
        key, value = f"{above}{name}", new.get(name)
        if is_mapping(key):
            if (value or {}) != (old.get(name) or {}):
                yield key, value or None  # as a whole, so that what was taken out is out
        elif isinstance(value, dict):
            before = old.get(name)
            yield from _changed(before if isinstance(before, dict) else {}, value, f"{key}.")
        elif old.get(name, _MISSING) != value:
            yield key, value


def as_yaml(recipe: Recipe) -> str:
    """The whole recipe as YAML."""
    from engine.config import dump_recipe

    return dump_recipe(recipe)


def keys() -> tuple[KeyInfo, ...]:
    """Every key that can be overridden."""
    from engine.config import valid_keys

    return valid_keys()
