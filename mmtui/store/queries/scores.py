"""Final scores of runs, for the tables of reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mmtui.domain.states import RunState
from mmtui.store import cells

if TYPE_CHECKING:
    from mmtui.store.reader import Reader


class Score(NamedTuple):
    """The mean IoU of a run in percent.

    Attributes:
        recipe: name of its recipe.
        overrides: a JSON list as it is stored: what was typed to queue it.
        doubts: what makes the score doubtful.
    """

    recipe: str
    miou: float
    overrides: str
    doubts: tuple[str, ...]


def final(reader: Reader) -> list[Score]:
    """Of every listed run that has succeeded and was evaluated; forks are left out: two recipes have trained them."""
    sql = (
        "SELECT recipe, miou, overrides, doubts FROM runs WHERE state = ? AND miou IS NOT NULL AND deleted_at IS NULL"
        " AND origin = '{}'"
    )
    rows = reader.query(sql, [RunState.SUCCEEDED.value])
    return [Score(recipe, miou, overrides, cells.texts(doubts)) for recipe, miou, overrides, doubts in rows]
