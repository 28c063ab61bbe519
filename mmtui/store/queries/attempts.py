"""Attempts of runs, for whoever looks after their processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mmtui.store import cells

if TYPE_CHECKING:
    from mmtui.store.reader import Reader


class Standing(NamedTuple):
    """What the database says of a run and of one of its attempts.

    Attributes:
        pid: None before it is known.
        identity: tells the process from a later one of the same number.
        kill_at: when the grace of one that was told to leave is over; Unix time.
        job: number of its SLURM job, "" if none.
        launcher: a JSON object; ``{}`` = on this machine.
    """

    state: str
    pid: int | None
    identity: str
    kill_at: float | None
    job: str
    launcher: str

    @property
    def is_on_cluster(self) -> bool:
        """Whether SLURM starts it."""
        return self.launcher != "{}"


class Process(NamedTuple):
    """What an attempt runs as: a process here, or a SLURM job."""

    pid: int | None
    identity: str
    job: str


class OverTime(NamedTuple):
    """A run that has taken more seconds, over all its attempts, than its limit."""

    run_id: int
    number: int
    limit: float


def over_time(reader: Reader, now: float) -> list[OverTime]:
    """Runs that train and whose time is over; ``now``: Unix time."""
    sql = (
        "SELECT r.id, r.attempt, r.time_limit, sum(max(coalesce(a.ended_at, ?) - a.spawned_at, 0)) AS taken"
        " FROM runs r JOIN attempts a ON a.run_id = r.id WHERE r.state IN ('starting', 'running')"
        " AND r.time_limit > 0 GROUP BY r.id HAVING taken > r.time_limit"
    )
    return [OverTime(run_id, number, limit) for run_id, number, limit, _ in reader.query(sql, [now])]


def ingested(reader: Reader, run_id: int, number: int) -> int | None:
    """Bytes of its events that are in the database; None if there is no such attempt."""
    rows = reader.query("SELECT ingested FROM attempts WHERE run_id = ? AND number = ?", [run_id, number])
    return cells.count(rows[0][0]) if rows else None


def standing(reader: Reader, run_id: int, number: int) -> Standing | None:
    """A run and its attempt; None if there is no such attempt."""
    rows = reader.query(
        "SELECT r.state, a.pid, a.pid_identity, a.kill_at, a.job, r.launcher FROM runs r"
        " JOIN attempts a ON a.run_id = r.id AND a.number = ? WHERE r.id = ?",
        [number, run_id],
    )
    return Standing._make(rows[0]) if rows else None


def process(reader: Reader, run_id: int, number: int) -> Process:
    """What an attempt runs as.

    Raises:
        LookupError: there is no such attempt.
    """
    sql = "SELECT pid, pid_identity, job FROM attempts WHERE run_id = ? AND number = ?"
    return Process._make(reader.query(sql, [run_id, number])[0])


def spawned_at(reader: Reader, run_id: int, number: int) -> float | None:
    """When an attempt was begun, Unix time; None if there is no such attempt."""
    rows = reader.query("SELECT spawned_at FROM attempts WHERE run_id = ? AND number = ?", [run_id, number])
    began: float | None = rows[0][0] if rows else None
    return began
