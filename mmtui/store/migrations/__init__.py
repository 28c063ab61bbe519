"""Alembic migrations, shipped in the wheel and run by ``mmtui.store.db.prepare``."""
