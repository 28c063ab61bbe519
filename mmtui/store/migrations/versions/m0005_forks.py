"""Which run, and which checkpoint of it, a run was forked from. Frozen."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE runs ADD COLUMN parent INTEGER",
    "ALTER TABLE runs ADD COLUMN parent_step INTEGER",
    "ALTER TABLE runs ADD COLUMN origin TEXT NOT NULL DEFAULT '{}'",
    "CREATE INDEX ix_runs_parent ON runs (parent) WHERE parent IS NOT NULL",
)


def upgrade() -> None:
    """Make the changes."""
    for statement in STATEMENTS:
        op.execute(statement)
