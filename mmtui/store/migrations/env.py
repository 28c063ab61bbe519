"""Alembic environment: one SQLite file, given by the caller; the migration and its record in one transaction."""

from __future__ import annotations

from alembic import context
from sqlalchemy import URL, create_engine, event, pool

database = context.config.attributes["database"]
engine = create_engine(URL.create("sqlite", database=str(database)), poolclass=pool.NullPool)


@event.listens_for(engine, "connect")
def _on_connect(connection, _record):  # type: ignore[no-untyped-def]
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")


@event.listens_for(engine, "begin")
def _on_begin(connection):  # type: ignore[no-untyped-def]
    connection.exec_driver_sql("BEGIN IMMEDIATE")


with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=None, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
