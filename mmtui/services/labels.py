"""A look at the masks that a run will read, by the engine, when it is queued."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from engine.text import as_text

if TYPE_CHECKING:
    from engine.config import Recipe

PATIENCE = 10.0
"""Seconds; a file system that takes longer must hold up nobody: the run will say."""
FRESH = 30.0
"""Seconds for which an answer is believed: whoever types asks again and again."""
MOST = 8
"""Data sections that are looked at for one command, or for who types: of a sweep over more the runs will say."""
_answers: dict[str, tuple[float, Look]] = {}
"""What this process was answered; a screen that stays open has asked for many recipes."""


@dataclass(frozen=True)
class Look:
    """What the engine found.

    Attributes:
        problem: what would end the run, with what to write; "" if nothing was seen.
        doubts: what makes its score doubtful.
    """

    problem: str = ""
    doubts: tuple[str, ...] = ()


@dataclass
class Looks:
    """The looks of one command: what it finds doubtful is about its own runs, whatever else the process has seen."""

    found: dict[str, Look] = field(default_factory=dict)

    def look(self, recipe: Recipe, taken: Collection[str] = ()) -> Look:
        """As ``labels.look``; an answer holds for the whole command."""
        asked = _question(recipe, taken)
        if asked and asked not in self.found and len(self.found) < MOST:
            self.found[asked] = _known(asked) or _answer(asked)
        return self.found.get(asked, Look())

    def doubts(self) -> list[str]:
        """What was found doubtful, each once."""
        return list(dict.fromkeys(text for found in self.found.values() for text in found.doubts))


def look(recipe: Recipe, taken: Collection[str] = ()) -> Look:
    """What some of the masks show: a second or two for data that were not just looked at.

    Args:
        taken: stages that are not trained, whose labels are therefore not read.
    """
    asked = _question(recipe, taken)
    if not asked:
        return Look()
    known = _known(asked)
    if known is None and (asked in _answers or sum(map(_is_fresh, list(_answers.values()))) < MOST):
        known = _answer(asked)
    return known or Look()


def _question(recipe: Recipe, taken: Collection[str]) -> str:
    """What the engine is asked about a recipe, "" if there is nothing to look at."""
    from engine.config.named_classes import named_classes  # loads the schema, which whoever has a recipe has loaded

    splits, named = _splits(recipe, taken), named_classes(recipe, taken)
    if (recipe.data.kind == "shapes" or not splits) and not (named.weighted or named.kept_by):
        return ""
    return json.dumps({"data": recipe.data.model_dump(mode="json"), "splits": splits, "named": asdict(named)})


def _known(asked: str) -> Look | None:
    """The answer of the last moments, None without one."""
    found = _answers.get(asked)
    return found[1] if found is not None and _is_fresh(found) else None


def _answer(asked: str) -> Look:
    answer = _ask(asked)
    _answers[asked] = time.monotonic(), answer
    return answer


def _is_fresh(found: tuple[float, Look]) -> bool:
    return time.monotonic() - found[0] <= FRESH


def _splits(recipe: Recipe, taken: Collection[str]) -> list[str]:
    trained = {name for name, _ in recipe.stages()} - set(taken)
    train = ["train"] if {"match", "segment"} & trained else []
    on_the_way = recipe.segment is not None and recipe.segment.eval_every > 0
    measured = "evaluate" in trained or ("segment" in trained and on_the_way)
    return [*train, *(["val"] if measured else [])]


def _ask(asked: str) -> Look:
    """The engine's answer; none where it has none in time."""
    command = [sys.executable, "-P", "-m", "engine.look"]  # -P: not what is called so where the person stands
    try:
        done = subprocess.run(command, input=asked.encode(), capture_output=True, timeout=PATIENCE, check=False)
        told = json.loads(done.stdout)
        return Look(as_text(str(told["problem"])), tuple(as_text(str(text)) for text in told["doubts"]))
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired):
        return Look()
