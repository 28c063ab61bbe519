"""What runs were trained with and what came out: for telling which differ in their seeds alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from engine.json_types import JsonObject
from mmtui.store import cells
from mmtui.store.sql import PORTION, marks

if TYPE_CHECKING:
    from mmtui.store.reader import Reader


class Trained(NamedTuple):
    """What a run was trained with.

    Attributes:
        recipe: name of its recipe.
        origin: the checkpoint that it was forked from; {} of any other run.
    """

    recipe: str
    config: JsonObject
    origin: JsonObject


class SeedRun(NamedTuple):
    """A run, what it was trained with, and its score.

    Attributes:
        miou: percent; None before the evaluation.
        overrides: what was typed to queue it.
        doubts: what makes its score doubtful.
    """

    run_id: int
    trained: Trained
    seed: int
    state: str
    miou: float | None
    overrides: tuple[str, ...]
    doubts: tuple[str, ...]


def seed_runs(reader: Reader, ids: Sequence[int]) -> list[SeedRun]:
    """These runs, oldest first."""
    columns = "id, recipe, config, origin, seed, state, miou, overrides, doubts"
    rows = reader.query(f"SELECT {columns} FROM runs WHERE id IN ({marks(ids)}) ORDER BY id", ids)
    return [
        SeedRun(run_id, _trained(*told), seed, state, cells.number(miou), cells.texts(overrides), cells.texts(doubts))
        for run_id, *told, seed, state, miou, overrides, doubts in rows
    ]


def trained(reader: Reader, ids: Sequence[int]) -> Iterator[tuple[int, Trained]]:
    """(run, what it was trained with) of any number of runs, whose recipes are read some at a time."""
    for first in range(0, len(ids), PORTION):
        some = ids[first : first + PORTION]
        rows = reader.query(f"SELECT id, recipe, config, origin FROM runs WHERE id IN ({marks(some)})", some)
        for run_id, *told in rows:
            yield run_id, _trained(*told)


def _trained(recipe: object, config: object, origin: object) -> Trained:
    return Trained(cells.text(recipe), cells.mapped(config), cells.mapped(origin))
