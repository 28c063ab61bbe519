"""Which runs are listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlmodel import Session


def show(session: Session, run_ids: Sequence[int], reason: str) -> None:
    """List hidden runs, with this reason for their state."""
    from sqlalchemy import text

    statement = text("UPDATE runs SET deleted_at = NULL, reason = :why WHERE id = :run_id")
    session.connection().execute(statement, [{"why": reason, "run_id": run_id} for run_id in run_ids])
