"""The queue: runs that wait, what they wait for, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from mmtui.store import cells
from mmtui.store.sql import ACTIVE, PORTION, marks

if TYPE_CHECKING:
    from mmtui.store.reader import Reader

_WAITING = "id, priority, position, not_before, run_group, after, if_failed, wanted, work, shared_stages"


class QueuedRun(NamedTuple):
    """A queued run; cells as they are stored.

    Attributes:
        not_before: it starts no earlier, Unix time.
        after: a JSON list of the runs that it waits for.
        if_failed: what becomes of it when one of them fails: ``hold``, ``cancel`` or ``run``.
        wanted: number of places, or the share of one.
        work: name of what it computes, for its measured needs.
        shared_stages: a JSON object, {stage: name of its output}.
    """

    run_id: int
    priority: int
    position: float
    not_before: float
    group: str
    after: str
    if_failed: str
    wanted: float
    work: str
    shared_stages: str


class SharedStages(NamedTuple):
    """Stages of an active run whose output others may use.

    Attributes:
        names: {stage: name of its output}.
        finished: stages of the run that are done.
    """

    run_id: int
    names: dict[str, str]
    finished: tuple[str, ...]


class QueuedReason(NamedTuple):
    """Why a queued run waits, as it was written last, and the Unix time before which it does not start."""

    run_id: int
    reason: str
    not_before: float


def waiting(reader: Reader, *, on_cluster: bool) -> list[QueuedRun]:
    """Queued runs, in no order: those that SLURM shall start, or those for this machine."""
    where = f"state = 'queued' AND deleted_at IS NULL AND launcher {'!=' if on_cluster else '='} '{{}}'"
    rows = reader.query(f"SELECT {_WAITING} FROM runs INDEXED BY ix_runs_waiting WHERE {where}")
    return [QueuedRun._make(row) for row in rows]


def queued_ids(reader: Reader) -> set[int]:
    """Queued runs."""
    return {row[0] for row in reader.query("SELECT id FROM runs WHERE state = 'queued' AND deleted_at IS NULL")}


def reasons(reader: Reader) -> list[QueuedReason]:
    """Why queued runs wait."""
    sql = "SELECT id, reason, not_before FROM runs INDEXED BY ix_runs_waiting WHERE state = 'queued'"
    return [QueuedReason._make(row) for row in reader.query(sql)]


def states(reader: Reader, ids: Sequence[int]) -> dict[int, str]:
    """{run: its state} of these runs; one that is gone is missing."""
    found: dict[int, str] = {}
    for start in range(0, len(ids), PORTION):
        portion = ids[start : start + PORTION]
        rows = reader.query(f"SELECT id, state FROM runs WHERE id IN ({marks(portion)})", portion)
        found.update({row[0]: row[1] for row in rows})
    return found


def shared_stages(reader: Reader) -> list[SharedStages]:
    """Active runs with stages whose output others may use."""
    sql = (
        "SELECT r.id, r.shared_stages, group_concat(s.name) FROM runs r LEFT JOIN stages s ON s.run_id = r.id"
        f" AND s.status = 'finished' WHERE r.state IN ({ACTIVE}) AND r.shared_stages != '{{}}' GROUP BY r.id"
    )
    return [
        SharedStages(run_id, cells.texts_by_name(names), tuple((finished or "").split(",")))
        for run_id, names, finished in reader.query(sql)
    ]


def needs(reader: Reader) -> dict[str, dict[str, int]]:
    """{work: {model of a device: bytes}}, as measured."""
    found: dict[str, dict[str, int]] = {}
    for work, device, count in reader.query("SELECT work, device, bytes FROM needs"):
        found.setdefault(work, {})[device] = count
    return found


def active_by_group(reader: Reader) -> dict[str, int]:
    """{group: number of its active runs}, of groups that have some."""
    sql = f"SELECT run_group, count(*) FROM runs WHERE state IN ({ACTIVE}) AND run_group != '' GROUP BY run_group"
    return {row[0]: row[1] for row in reader.query(sql)}


def hours_by_group(reader: Reader, now: float) -> dict[str, float]:
    """{group: device hours that it has taken}; a run on a share of a device counts that share. ``now``: Unix time."""
    sql = (
        "SELECT r.run_group, sum(max(coalesce(a.ended_at, ?) - a.spawned_at, 0) * r.wanted) / 3600 FROM attempts a"
        " JOIN runs r ON r.id = a.run_id WHERE r.run_group != '' GROUP BY r.run_group"
    )
    return {row[0]: row[1] for row in reader.query(sql, [now])}


def to_hold_after(reader: Reader, run_id: int) -> list[int]:
    """Queued runs of the same sweep as one that has failed, if the sweep is to be held then."""
    sql = (
        "SELECT other.id FROM runs r JOIN settings s ON s.key = 'failfast:' || r.run_group"
        " JOIN runs other ON other.run_group = r.run_group AND other.state = 'queued' WHERE r.id = ?"
    )
    return [row[0] for row in reader.query(sql, [run_id])]


def has_wishes(reader: Reader) -> bool:
    """Whether anybody has asked for something that the supervisor has not seen to yet."""
    return bool(reader.query("SELECT 1 FROM wishes LIMIT 1"))
