"""Recipes for runs whose frozen code is older than this program: it does not know the keys that came later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from engine.json_types import Json, JsonObject
from mmtui.errors import RefusedError

if TYPE_CHECKING:
    from engine.config import Recipe

LEFT_OUT_IF_EMPTY = ("data.label_map",)
"""Keys that a recipe is written without while they say nothing: that one lacks tells nothing of the code."""


def readable(recipe: Recipe, before: JsonObject, run_id: str, code: Path) -> str:
    """A resolved recipe as YAML, without the keys that the code of a run does not know.

    Args:
        before: the plain data of the run's recipe as it is, which that code, or one as old, has written whole.
        code: the folder of that code.

    Raises:
        RefusedError: such a key is not at the value at which all is computed as before there was one.
    """
    from engine.config import strict_yaml

    data: JsonObject = json.loads(recipe.model_dump_json())
    for key, silent in _later(data, before).items():
        *sections, last = key.split(".")
        there = _part(data, sections)
        if there is None or last not in there or _knows(before, key):
            continue
        if there[last] != silent:
            _refuse(key, run_id)
        del there[last]
    for key in LEFT_OUT_IF_EMPTY:
        section, _, last = key.rpartition(".")
        if last in (_part(data, [section]) or ()) and not _speaks_of(code, last):
            _refuse(key, run_id)
    return strict_yaml.dump(data)


def _later(data: JsonObject, before: JsonObject) -> JsonObject:
    """Keys that the code may not know, with their silent values: what it has not written into a section it has."""
    from pydantic_core import to_jsonable_python  # loaded with the recipe

    from engine.config.determining import LATER_KEYS
    from engine.config.overrides import valid_keys

    later = dict(LATER_KEYS)
    for info in valid_keys():
        *sections, last = info.key.split(".")
        then, now = _part(before, sections), _part(data, sections)
        if then and now and last not in then and then.get("kind") == now.get("kind"):
            later.setdefault(info.key, to_jsonable_python(info.default))
    return {key: silent for key, silent in later.items() if key not in LEFT_OUT_IF_EMPTY}


def _refuse(key: str, run_id: str) -> NoReturn:
    raise RefusedError(
        f"the code that run {run_id} was queued with does not know {key}",
        "queue a new run: it is trained by the code of today",
    )


def _speaks_of(code: Path, name: str) -> bool:
    """Whether the recipes that some code reads may have a key of that name; yes if the code cannot be read."""
    files = sorted((code / "engine" / "config").glob("*.py"))  # the keys lay in schema.py alone, once
    try:
        return not files or any(f" {name}: " in file.read_text(encoding="utf-8") for file in files)
    except (OSError, UnicodeDecodeError):
        return True


def _knows(before: JsonObject, key: str) -> bool:
    """Whether the key stands in a recipe, or, where its stage has no section there, in that of another stage."""
    stage, _, rest = key.partition(".")
    *sections, last = rest.split(".")
    places = [stage] if isinstance(before.get(stage), Mapping) else [name for name in before if name != stage]
    found = (_part(before, [place, *sections]) for place in places)
    return any(part is not None and last in part for part in found)


def _part(data: JsonObject, sections: list[str]) -> JsonObject | None:
    part: Json = data
    for section in sections:
        part = part.get(section) if isinstance(part, dict) else None
    return part if isinstance(part, dict) else None
