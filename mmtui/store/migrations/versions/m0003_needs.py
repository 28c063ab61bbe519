"""What runs ask of devices, what was measured of it, shared stages, limits, and where a run is launched. Frozen."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE runs ADD COLUMN wanted FLOAT NOT NULL DEFAULT 1.0",
    "ALTER TABLE runs ADD COLUMN work VARCHAR NOT NULL DEFAULT ''",
    "ALTER TABLE runs ADD COLUMN shared_stages TEXT NOT NULL DEFAULT '{}'",
    "ALTER TABLE runs ADD COLUMN time_limit FLOAT NOT NULL DEFAULT 0.0",
    "ALTER TABLE runs ADD COLUMN launcher TEXT NOT NULL DEFAULT '{}'",
    "ALTER TABLE attempts ADD COLUMN job VARCHAR NOT NULL DEFAULT ''",
    # Everything the scheduler reads of a queued run: the rows themselves are wide, and it looks at all of them.
    "CREATE INDEX ix_runs_waiting ON runs (priority, position, not_before, run_group, after, if_failed, wanted, work,"
    " shared_stages, launcher, deleted_at, reason) WHERE state = 'queued'",
    "CREATE TABLE needs (work VARCHAR NOT NULL, device VARCHAR NOT NULL, bytes BIGINT NOT NULL, body TEXT NOT NULL,"
    " measured_at FLOAT NOT NULL, run_id INTEGER NOT NULL, PRIMARY KEY (work, device)) WITHOUT ROWID",
)


def upgrade() -> None:
    """Make the changes."""
    for statement in STATEMENTS:
        op.execute(statement)
