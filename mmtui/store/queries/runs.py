"""Which runs there are, were, and have ended."""

from __future__ import annotations

from typing import NamedTuple

from mmtui.domain.states import FINAL_STATES
from mmtui.store import cells
from mmtui.store.reader import Reader


class EndedRun(NamedTuple):
    """A run that has ended: its error, or else the reason of its state; mean IoU in percent, and doubts about it."""

    run_id: int
    name: str
    state: str
    reason: str
    miou: float | None
    doubts: tuple[str, ...]


def pinned(reader: Reader) -> list[int]:
    """Ids of the runs with the tag ``pinned``, newest first."""
    sql = "SELECT id FROM runs WHERE deleted_at IS NULL AND tags LIKE ? ORDER BY id DESC"
    return [row[0] for row in reader.query(sql, ['%"pinned"%'])]


def any_there(reader: Reader) -> bool:
    """Whether there is a run at all outside of the trash."""
    return bool(reader.query("SELECT 1 FROM runs WHERE deleted_at IS NULL LIMIT 1"))


def reason_of_removed(reader: Reader, run_id: int) -> str | None:
    """Why a run in the trash is there, None if it is not in it."""
    rows = reader.query("SELECT reason FROM runs WHERE id = ? AND deleted_at IS NOT NULL", [run_id])
    return str(rows[0][0]) if rows else None


def ended_since(reader: Reader, moment: float) -> list[EndedRun]:
    """Runs that have ended behind a Unix time, in that order; not those that a person has cancelled."""
    states = [state.value for state in FINAL_STATES]
    rows = reader.query(
        "SELECT r.id, r.name, r.state, CASE WHEN r.error != '' THEN r.error ELSE r.reason END, r.miou, r.doubts"
        f" FROM runs r WHERE r.deleted_at IS NULL AND r.state IN ({','.join('?' * len(states))}) AND r.ended_at > ?"
        " AND NOT (r.state = 'cancelled' AND EXISTS (SELECT 1 FROM transitions t WHERE t.run_id = r.id"
        " AND t.event = 'cancel' AND t.actor = 'user')) ORDER BY r.ended_at",
        [*states, moment],
    )
    return [
        EndedRun(run_id, cells.text(name), cells.text(state), cells.text(why), cells.number(miou), cells.texts(doubts))
        for run_id, name, state, why, miou, doubts in rows
    ]


def requeued_since(reader: Reader, moment: float) -> int:
    """Number of runs that were put back into the queue behind a Unix time because their trainers had vanished."""
    sql = "SELECT count(DISTINCT run_id) FROM transitions WHERE event = 'requeue' AND t > ?"
    rows = reader.query(sql, [moment])
    return rows[0][0] if rows else 0
