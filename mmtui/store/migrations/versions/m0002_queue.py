"""Dependencies and notes of runs, and settings that hold for the queue as a whole. Frozen."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE runs ADD COLUMN after TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE runs ADD COLUMN if_failed VARCHAR NOT NULL DEFAULT 'hold'",
    "ALTER TABLE runs ADD COLUMN note TEXT NOT NULL DEFAULT ''",
    "CREATE TABLE settings (key VARCHAR NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)


def upgrade() -> None:
    """Make the changes."""
    for statement in STATEMENTS:
        op.execute(statement)
