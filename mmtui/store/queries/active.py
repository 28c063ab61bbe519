"""Runs in an active state: their attempts, the places that they hold, their trainers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mmtui.store import cells
from mmtui.store.sql import ACTIVE

if TYPE_CHECKING:
    from mmtui.store.reader import Reader


class Holder(NamedTuple):
    """An active run and the places that it holds; cells as they are stored.

    Attributes:
        attempt: number of its attempt.
        gpus: a JSON list of their names.
        wanted: number of places, or the share of one.
        work: name of what it computes, for its measured needs.
    """

    run_id: int
    attempt: int
    gpus: str
    wanted: float
    group: str
    work: str

    @property
    def places(self) -> tuple[str, ...] | None:
        """Names of the places; None where the cell does not tell them."""
        return cells.places(self.gpus)

    @property
    def names(self) -> tuple[str, ...]:
        """Whatever the cell says as names of places."""
        return cells.texts(self.gpus)


class Trainer(NamedTuple):
    """The process of an active run, as it was when it started."""

    pid: int
    identity: str
    run_id: int


def attempts(reader: Reader) -> list[tuple[int, int]]:
    """(run, number of its attempt) of all active runs, by run."""
    sql = f"SELECT id, attempt FROM runs WHERE state IN ({ACTIVE}) ORDER BY id"
    return [(run_id, number) for run_id, number in reader.query(sql)]


def holders(reader: Reader) -> list[Holder]:
    """All active runs with the places that they hold."""
    sql = f"SELECT id, attempt, gpus, wanted, run_group, work FROM runs WHERE state IN ({ACTIVE})"
    return [Holder._make(row) for row in reader.query(sql)]


def trainers(reader: Reader) -> list[Trainer]:
    """Processes of the active runs that have one."""
    sql = (
        "SELECT a.pid, a.pid_identity, r.id FROM runs r JOIN attempts a ON a.run_id = r.id AND a.number = r.attempt"
        f" WHERE r.state IN ({ACTIVE}) AND a.pid IS NOT NULL"
    )
    return [Trainer._make(row) for row in reader.query(sql)]
