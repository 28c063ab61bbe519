"""A look at the masks that a run will read, by the engine, when it is queued."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from engine.text import as_text

if TYPE_CHECKING:
    from engine.config import Recipe

PATIENCE = 10.0
"""Seconds; a file system that takes longer must hold up nobody: the run will say."""
FRESH = 30.0
"""Seconds for which an answer is believed: whoever types asks again and again."""
MOST = 8
"""Data sections that one command has looked at: of a sweep over more the runs will say."""
_answers: dict[str, tuple[float, Look]] = {}


@dataclass(frozen=True)
class Look:
    """What the engine found.

    Attributes:
        problem: what would end the run, with what to write; "" if nothing was seen.
        doubts: what makes its score doubtful.
    """

    problem: str = ""
    doubts: tuple[str, ...] = ()


def look(recipe: Recipe, taken: Collection[str] = ()) -> Look:
    """What some of the masks show: a second or two for data that were not just looked at.

    Args:
        taken: stages that are not trained, whose labels are therefore not read.
    """
    from engine.config.named_classes import named_classes  # loads the schema, which whoever has a recipe has loaded

    splits, named = _splits(recipe, taken), named_classes(recipe, taken)
    if (recipe.data.kind == "shapes" or not splits) and not (named.weighted or named.kept_by):
        return Look()
    asked = json.dumps({"data": recipe.data.model_dump(mode="json"), "splits": splits, "named": asdict(named)})
    since, answer = _answers.get(asked, (0.0, Look()))
    if (not since and len(_fresh()) < MOST) or (since and time.monotonic() - since > FRESH):
        answer = _ask(asked)
        _answers[asked] = time.monotonic(), answer
    return answer


def doubts() -> list[str]:
    """What the looks of the last moments found doubtful."""
    return list(dict.fromkeys(text for found in _fresh() for text in found.doubts))


def _fresh() -> list[Look]:
    return [found for since, found in _answers.values() if time.monotonic() - since <= FRESH]


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
