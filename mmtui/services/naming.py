"""Runs by the beginning of their id, for shells that complete: nothing is loaded but sqlite3."""

from __future__ import annotations

from mmtui.paths import Home
from mmtui.store.queries import completion
from mmtui.store.queries.completion import Candidate


def begin_with(home: Home, prefix: str, most: int) -> list[Candidate]:
    """The newest runs whose id begins so; none where the database cannot be read."""
    return completion.begin_with(home.database, prefix, most)


def keeps_best(home: Home, run_id: str) -> bool:
    """Whether a run has told of a best checkpoint; not where the database cannot be read."""
    return completion.keeps_best(home.database, run_id)
