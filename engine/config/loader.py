"""Recipes from YAML files: strict, at most one base, errors that name file, line, key and what to write."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from engine.config import strict_yaml
from engine.config.backbones import TIMM_WEIGHTS
from engine.config.file_names import restored
from engine.config.overrides import (
    RecipeFileError,
    apply_override,
    describe_error,
    drop_nulls,
    find_boolean,
    is_mapping,
    nearest_key_hint,
    parse_overrides,
)
from engine.config.schema import NO_CACHE, Recipe, stored_recipe
from engine.config.strict_yaml import Location, StrictYamlError
from engine.json_types import Json, JsonObject
from engine.paths import expanded, is_file
from engine.text import as_text

PATHS = (
    ("data", "root"),
    ("model", "weights"),
    ("proxy", "images"),
    ("evaluate", "ensemble"),
    ("runtime", "data_cache"),
)
"""Keys that hold files or folders."""
NO_PATHS = (("runtime", "data_cache", NO_CACHE), ("model", "weights", TIMM_WEIGHTS))
"""Words that stand for something else there."""


@dataclass
class Document:
    """Plain data of a recipe and where each dotted key was written."""

    data: JsonObject
    lines: dict[str, Location] = field(default_factory=dict)


def load_recipe(
    path: str | Path, overrides: Sequence[str] = (), search: Sequence[Path] = (), *, stored: bool = False
) -> Recipe:
    """Read, merge with its base, override and validate a recipe.

    Args:
        path: YAML file, or the name of a recipe in one of ``search``.
        overrides: ``key.path=value`` texts, applied last.
        search: folders in which recipe names are looked up.
        stored: it is one that a run has kept; values that would be refused today are read.

    Raises:
        RecipeFileError: with a sentence that says what is wrong, where, and what to write.
    """
    file = find_recipe(path, search)
    document = _load_with_base(file, search)
    for override in parse_overrides([as_text(text) for text in overrides]):
        apply_override(document.data, override)
        document.lines[override.key] = (f"override '{override.text}'", 0)
    drop_nulls(document.data)
    if not document.data.get("name"):
        document.data["name"] = as_text(file.stem)
    _make_paths_absolute(document.data)
    return _validate(document, file, stored)


def find_recipe(path: str | Path, search: Sequence[Path] = ()) -> Path:
    """The file a path or a recipe name means."""
    direct = expanded(path)
    if direct.suffix in {".yaml", ".yml"} and is_file(direct):
        return direct
    for folder in search:
        candidate = folder / f"{path}.yaml"
        if Path(path).name == str(path) and is_file(candidate):
            return candidate
    names = sorted({entry.stem for folder in search if folder.is_dir() for entry in folder.glob("*.yaml")})
    close = difflib.get_close_matches(str(path), names, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    kind = "file" if direct.suffix in {".yaml", ".yml"} else "recipe"
    raise RecipeFileError(f"no {kind} called '{path}'{hint or '; list the recipes with: mmtui recipes'}")


def dump_recipe(recipe: Recipe) -> str:
    """The whole recipe as YAML; loading it again gives an equal recipe."""
    data: JsonObject = json.loads(recipe.model_dump_json())
    return "".join(_dumped(key, json.dumps(value)) for key, value in data.items())


@lru_cache(maxsize=64)
def _dumped(key: str, value: str) -> str:
    """One section; the members of a sweep have most of them in common, and YAML is slow to write."""
    return strict_yaml.dump({key: json.loads(value)})


def _load_with_base(file: Path, search: Sequence[Path]) -> Document:
    document = _read(file)
    base_name = document.data.pop("base", None)
    if base_name is None:
        return document
    if not isinstance(base_name, str):
        raise RecipeFileError(f"{file}: base: write the name of one recipe, not {base_name!r}")
    base = _read(_find_base(file, base_name, search))
    if "base" in base.data:
        raise RecipeFileError(f"{file}: base: '{base_name}' has a base itself; only one level is allowed")
    for key in ("name", "description"):
        base.data.pop(key, None)
    return Document(merge(base.data, document.data), {**base.lines, **document.lines})


def _find_base(file: Path, name: str, search: Sequence[Path]) -> Path:
    sibling = file.parent / f"{name}.yaml"
    if is_file(sibling):
        return sibling
    try:
        return find_recipe(name, [file.parent, *search])
    except RecipeFileError as error:
        raise RecipeFileError(f"{file}: base: {error}") from None


def merge(base: Mapping[str, Json], top: Mapping[str, Json], section: str = "") -> JsonObject:
    """``top`` over ``base``, section by section.

    A section with another ``kind`` replaces the base's whole, and so does a mapping of users' names that is empty.
    """
    merged = dict(base)
    for key, value in top.items():
        old, name = merged.get(key), f"{section}{key}"
        merged[key] = value
        if not isinstance(value, dict) or not isinstance(old, dict) or (not value and is_mapping(name)):
            continue
        if value.get("kind", old.get("kind")) == old.get("kind"):
            merged[key] = merge(old, value, f"{name}.")
    return merged


def _read(file: Path) -> Document:
    try:
        data, lines = strict_yaml.load(strict_yaml.read_text(file), str(file))
    except StrictYamlError as error:
        raise RecipeFileError(f"{file}: {error}") from None
    if not isinstance(data, dict):
        raise RecipeFileError(f"{file}: a recipe is a mapping of keys, such as 'segment: {{steps: 100}}'")
    return Document(data, lines)


def _make_paths_absolute(data: JsonObject) -> None:
    """Relative paths mean the folder the command is given in; a trainer starts elsewhere."""
    for section, key in PATHS:
        part = data.get(section)
        value = part.get(key) if isinstance(part, dict) else None
        if (section, key, value) in NO_PATHS:
            continue
        if isinstance(value, str) and value:
            part[key] = _absolute(value)  # type: ignore[index]
        elif isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            part[key] = [item and _absolute(item) for item in value]  # type: ignore[index]


def _absolute(value: str) -> str:
    """The path from the current folder on, as a recipe has it: neither that folder's name nor its own need be UTF-8."""
    return as_text(str(expanded(restored(value)).absolute()))


def _validate(document: Document, file: Path, stored: bool) -> Recipe:
    boolean = find_boolean(document.data)
    if boolean is not None:
        raise RecipeFileError(f"{_where(document, file, boolean[0])}: {boolean[0]}: {boolean[1]}")
    try:
        return stored_recipe(document.data) if stored else Recipe.model_validate(document.data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key, problem = describe_error(first)
        hint = nearest_key_hint(key) if first["type"] == "extra_forbidden" else ""
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        label = f"{key}: " if key else ""
        raise RecipeFileError(f"{_where(document, file, key or problem)}: {label}{problem}{hint}{more}") from None


def _where(document: Document, file: Path, key: str) -> str:
    """File and line, or the override, that the key comes from; also found when a sentence begins with the key."""
    # Names of classes may hold anything, so what is known to be a key goes before what looks like one.
    named = max((known for known in document.lines if f"{key} ".startswith(f"{known} ")), key=len, default="")
    start = re.match(r"[a-z_.]+", key)
    place = _nearest_location(document.lines, named or (start.group(0).strip(".") if start else ""))
    if place is None:
        return str(file)
    return f"{place[0]}: line {place[1]}" if place[1] else place[0]


def _nearest_location(lines: Mapping[str, Location], key: str) -> Location | None:
    """Where the key, or else the section it belongs to, was written."""
    while key:
        if key in lines:
            return lines[key]
        key = key.rpartition(".")[0]
    return None
