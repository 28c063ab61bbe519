"""The first schema. Frozen: later changes are migrations of their own.

The statements are spelled out rather than taken from ``tables.py``, so that this migration never changes.
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE device_samples (
        t FLOAT NOT NULL,
        device VARCHAR NOT NULL,
        utilisation FLOAT,
        memory_used INTEGER,
        memory_total INTEGER,
        power_watts FLOAT,
        temperature FLOAT,
        PRIMARY KEY (t, device)
    )
     WITHOUT ROWID
    """,
    """
    CREATE TABLE runs (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        name VARCHAR NOT NULL,
        recipe VARCHAR NOT NULL,
        run_group VARCHAR NOT NULL,
        state VARCHAR NOT NULL,
        reason VARCHAR NOT NULL,
        priority INTEGER NOT NULL,
        position FLOAT NOT NULL,
        created_at FLOAT NOT NULL,
        started_at FLOAT,
        ended_at FLOAT,
        seed INTEGER NOT NULL,
        gpus TEXT NOT NULL,
        tags TEXT NOT NULL,
        config TEXT NOT NULL,
        overrides TEXT NOT NULL,
        code TEXT NOT NULL,
        total_steps INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        not_before FLOAT NOT NULL,
        vanished INTEGER NOT NULL,
        vanished_at_step INTEGER NOT NULL,
        error TEXT NOT NULL,
        stage VARCHAR NOT NULL,
        step INTEGER NOT NULL,
        global_step INTEGER NOT NULL,
        loss FLOAT,
        miou FLOAT,
        last_event_at FLOAT,
        deleted_at FLOAT
    )
    """,
    """
    CREATE INDEX ix_runs_queue ON runs (state, priority, position)
    """,
    """
    CREATE TABLE attempts (
        run_id INTEGER NOT NULL,
        number INTEGER NOT NULL,
        pid INTEGER,
        pid_identity VARCHAR NOT NULL,
        spawned_at FLOAT NOT NULL,
        ended_at FLOAT,
        outcome VARCHAR NOT NULL,
        exit_code INTEGER,
        resumed_stage VARCHAR NOT NULL,
        resumed_step INTEGER NOT NULL,
        resumed_global_step INTEGER NOT NULL,
        host VARCHAR NOT NULL,
        device VARCHAR NOT NULL,
        ingested INTEGER NOT NULL,
        corrupt_lines INTEGER NOT NULL,
        kill_at FLOAT,
        PRIMARY KEY (run_id, number),
        FOREIGN KEY(run_id) REFERENCES runs (id)
    )
    """,
    """
    CREATE TABLE evaluations (
        run_id INTEGER NOT NULL,
        global_step INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        stage VARCHAR NOT NULL,
        step INTEGER NOT NULL,
        t FLOAT NOT NULL,
        classes TEXT NOT NULL,
        matrix BLOB NOT NULL,
        split VARCHAR NOT NULL,
        images INTEGER NOT NULL,
        predictions VARCHAR NOT NULL,
        PRIMARY KEY (run_id, global_step, attempt, stage),
        FOREIGN KEY(run_id) REFERENCES runs (id)
    )
    """,
    """
    CREATE TABLE events (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        run_id INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        kind VARCHAR NOT NULL,
        stage VARCHAR NOT NULL,
        step INTEGER NOT NULL,
        global_step INTEGER NOT NULL,
        t FLOAT NOT NULL,
        "values" TEXT NOT NULL,
        FOREIGN KEY(run_id) REFERENCES runs (id)
    )
    """,
    """
    CREATE INDEX ix_events_run_kind ON events (run_id, kind, id)
    """,
    """
    CREATE TABLE metrics (
        run_id INTEGER NOT NULL,
        name VARCHAR NOT NULL,
        global_step INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        stage VARCHAR NOT NULL,
        step INTEGER NOT NULL,
        t FLOAT NOT NULL,
        value FLOAT,
        PRIMARY KEY (run_id, name, global_step, attempt),
        FOREIGN KEY(run_id) REFERENCES runs (id)
    )
     WITHOUT ROWID
    """,
    """
    CREATE TABLE stages (
        run_id INTEGER NOT NULL,
        name VARCHAR NOT NULL,
        position INTEGER NOT NULL,
        status VARCHAR NOT NULL,
        step INTEGER NOT NULL,
        total_steps INTEGER NOT NULL,
        step_offset INTEGER NOT NULL,
        started_at FLOAT,
        ended_at FLOAT,
        seconds_per_step FLOAT,
        PRIMARY KEY (run_id, name),
        FOREIGN KEY(run_id) REFERENCES runs (id)
    )
    """,
    """
    CREATE TABLE transitions (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        run_id INTEGER NOT NULL,
        t FLOAT NOT NULL,
        event VARCHAR NOT NULL,
        "before" VARCHAR NOT NULL,
        "after" VARCHAR NOT NULL,
        reason VARCHAR NOT NULL,
        actor VARCHAR NOT NULL,
        FOREIGN KEY(run_id) REFERENCES runs (id)
    )
    """,
    """
    CREATE INDEX ix_transitions_run ON transitions (run_id, id)
    """,
    """
    CREATE TABLE wishes (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        run_id INTEGER NOT NULL,
        t FLOAT NOT NULL,
        verb VARCHAR NOT NULL,
        arguments TEXT NOT NULL,
        FOREIGN KEY(run_id) REFERENCES runs (id)
    )
    """,
)


def upgrade() -> None:
    """Make every table and index."""
    for statement in STATEMENTS:
        op.execute(statement)
