"""The pyramid of every series, for charts. Frozen but for the filling, which only ever runs on a table without rows."""

from __future__ import annotations

from alembic import op

from mmtui.store.pyramid import fill

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE metric_buckets (
    run_id INTEGER NOT NULL, name VARCHAR NOT NULL, level INTEGER NOT NULL, attempt INTEGER NOT NULL,
    bucket INTEGER NOT NULL, first_step INTEGER NOT NULL, last_step INTEGER NOT NULL, low FLOAT NOT NULL,
    high FLOAT NOT NULL, first FLOAT NOT NULL, last FLOAT NOT NULL, count INTEGER NOT NULL, stage VARCHAR,
    t FLOAT NOT NULL, PRIMARY KEY (run_id, name, level, attempt, bucket), FOREIGN KEY (run_id) REFERENCES runs (id)
) WITHOUT ROWID
"""


def upgrade() -> None:
    """Make the table and fill it from the points."""
    op.execute(TABLE)
    fill(op.get_bind().connection.driver_connection)  # type: ignore[arg-type]
