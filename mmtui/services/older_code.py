"""Recipes for runs whose frozen code is older than this program: it does not know the keys that came later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmtui.errors import RefusedError

if TYPE_CHECKING:
    from engine.config import Recipe


def readable(recipe: Recipe, before: Mapping[str, Any], run_id: str) -> str:
    """A resolved recipe as YAML, without the keys that the code of a run does not know.

    Args:
        before: the plain data of the run's recipe as it is, which that code, or one as old, has written whole.

    Raises:
        RefusedError: such a key is not at the value at which all is computed as before there was one.
    """
    from engine.config import strict_yaml
    from engine.config.determining import LATER_KEYS

    data: dict[str, Any] = json.loads(recipe.model_dump_json())
    for key, silent in LATER_KEYS.items():
        *sections, last = key.split(".")
        there = _part(data, sections)
        if there is None or last not in there or _knows(before, key):
            continue
        if there[last] != silent:
            raise RefusedError(
                f"the code that run {run_id} was queued with does not know {key}",
                "queue a new run: it is trained by the code of today",
            )
        del there[last]
    return strict_yaml.dump(data)


def _knows(before: Mapping[str, Any], key: str) -> bool:
    """Whether the key stands in a recipe, or, where its stage has no section there, in that of another stage."""
    stage, _, rest = key.partition(".")
    *sections, last = rest.split(".")
    places = [stage] if isinstance(before.get(stage), Mapping) else [name for name in before if name != stage]
    found = (_part(before, [place, *sections]) for place in places)
    return any(part is not None and last in part for part in found)


def _part(data: Mapping[str, Any], sections: list[str]) -> Any:
    part: Any = data
    for section in sections:
        part = part.get(section) if isinstance(part, Mapping) else None
    return part if isinstance(part, Mapping) else None
