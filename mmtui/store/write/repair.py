"""Cells of runs, put right one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlmodel import Session


def set_cell(session: Session, run_id: int, column: str, cell: object) -> None:
    """Write one cell, past the table's types: nothing else of the row is read, which may be damaged, too.

    Args:
        column: a name of this program, not of a user.
    """
    session.connection().exec_driver_sql(f"UPDATE runs SET {column} = ? WHERE id = ?", (cell, run_id))
