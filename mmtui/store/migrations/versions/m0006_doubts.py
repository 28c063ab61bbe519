"""What makes the score of a run doubtful, as its trainer said. Frozen."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the changes."""
    op.execute("ALTER TABLE runs ADD COLUMN doubts TEXT NOT NULL DEFAULT '[]'")
