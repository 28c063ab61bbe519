"""What is done in the database when somebody sets the machine's clock.

The moments from which something is counted, such as the start of an attempt, are kept as Unix time. Those that still
count are moved by as much as the clock: what has passed since them, and what is left until them, stays what it was.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, text

from mmtui.store.runs import delayed_text
from mmtui.store.sql import ACTIVE


@dataclass(frozen=True)
class Change:
    """What happened to the clock between two looks at it.

    Attributes:
        jump: seconds by which it was set forward; negative: back.
        slept: seconds in which the machine slept.
        before: Unix time now, had nobody set the clock.
        delays: whether delays that people asked for are counted, too. They are not where no supervisor ran meanwhile:
            those may have been asked for after the clock was set.
    """

    jump: float
    slept: float
    before: float
    delays: bool


def move(session: Session, change: Change, *, most_grace: float, most_back_off: float) -> None:
    """Move every moment that something is still counted from or to.

    Args:
        most_grace: seconds after which a trainer that was told to leave is killed, at most.
        most_back_off: seconds for which a run that has vanished is not started again, at most. Nobody can tell how
            often the clock was set while the machine was off: no wait is longer than this after it.
    """
    now = change.before + change.jump
    values = {"jump": change.jump, "slept": change.slept, "grace": now + most_grace, "wait": now + most_back_off}
    connection = session.connection()
    for statement in (
        # Nobody waits for a trainer while it sleeps: it has the seconds that it was promised after that.
        "UPDATE attempts SET spawned_at = spawned_at + :jump, kill_at = min(kill_at + :jump + :slept, :grace)"
        " WHERE ended_at IS NULL",
        f"UPDATE runs SET last_event_at = last_event_at + :jump, started_at = started_at + :jump"
        f" WHERE state IN ({ACTIVE})",
        f"UPDATE stages SET started_at = started_at + :jump WHERE status = 'running'"
        f" AND run_id IN (SELECT id FROM runs WHERE state IN ({ACTIVE}))",
        "UPDATE runs SET not_before = min(not_before + :jump, :wait) WHERE state = 'queued' AND vanished > 0",
    ):
        connection.execute(text(statement), values)
    if change.delays:
        _move_delays(session, change)


def _move_delays(session: Session, change: Change) -> None:
    """``run --delay 2h``: two hours are two hours."""
    rows = session.connection().execute(
        text(
            "SELECT id, not_before, reason FROM runs WHERE state IN ('queued', 'held') AND deleted_at IS NULL"
            " AND vanished = 0 AND not_before > :before"
        ),
        {"before": change.before},
    )
    for run_id, not_before, reason in rows.all():
        moved = not_before + change.jump
        told = delayed_text(moved) if reason == delayed_text(not_before) else reason
        session.connection().execute(
            text("UPDATE runs SET not_before = :moved, reason = :told WHERE id = :run_id"),
            {"moved": moved, "told": told, "run_id": run_id},
        )
