"""The writer's rules, migrations, and what happens to files that are no database of ours."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import mmtui.store
from mmtui.domain.states import RunEvent
from mmtui.errors import ExitCode, UnreachableError
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.store.db import Database, prepare
from mmtui.store.runs import transition
from mmtui.store.schema import HEAD, schema_revision
from mmtui.store.tables import metadata


def test_migrations_make_exactly_the_tables(database: Database) -> None:
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_migration_twice_changes_nothing_and_backs_up_nothing(
    home: Home, database: Database, add_run: Callable[..., int]
) -> None:
    add_run()
    database.close()
    before = home.database.read_bytes(), schema_revision(home.database)
    prepare(home)
    prepare(home)
    assert (home.database.read_bytes(), schema_revision(home.database)) == before
    assert before[1] == HEAD
    assert list(home.backups.iterdir()) == []
    assert [row.id for row in runs.list_runs(home)] == ["1"]


def test_migration_of_an_empty_file_is_as_of_none(home: Home) -> None:
    home.create()
    home.database.touch()
    assert schema_revision(home.database) is None
    assert runs.list_runs(home) == []
    Database(home).close()
    assert schema_revision(home.database) == HEAD


def test_schema_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(mmtui.store.__path__[0]) / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_writer_every_connection_has_our_pragmas(home: Home) -> None:
    for checkpoints, pages in ((False, 0), (True, 1000)):
        database = Database(home, checkpoints=checkpoints)
        with database.write() as session:
            found = {
                name: session.connection().exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "foreign_keys", "wal_autocheckpoint", "synchronous")
            }
        database.close()
        assert found == {"journal_mode": "wal", "foreign_keys": 1, "wal_autocheckpoint": pages, "synchronous": 1}


def test_write_takes_the_lock_before_the_first_read(database: Database, home: Home) -> None:
    other = sqlite3.connect(home.database, timeout=0, isolation_level=None)
    with database.write(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()


def test_write_every_transaction_begins_immediate(database: Database, add_run: Callable[..., int]) -> None:
    said: list[str] = []
    with database.engine.connect() as connection:
        connection.connection.driver_connection.set_trace_callback(said.append)  # type: ignore[union-attr]
    for _ in range(3):
        add_run()
    begins = [text for text in said if text.upper().startswith("BEGIN")]
    assert begins == ["BEGIN IMMEDIATE"] * 3
    assert said.count("COMMIT") == 3


def test_write_error_inside_rolls_everything_back(database: Database, add_run: Callable[..., int], home: Home) -> None:
    run_id = add_run()
    with pytest.raises(ValueError, match="stop"), database.write() as session:
        session.connection().exec_driver_sql("UPDATE runs SET name = 'changed'")
        raise ValueError("stop")
    assert runs.get_run(home, str(run_id)).row.name == "a run"


def test_write_in_a_home_that_was_removed_meanwhile_is_one_sentence(
    home: Home, database: Database, add_run: Callable[..., int]
) -> None:
    add_run()
    database.close()  # the next write opens it anew
    shutil.rmtree(home.root)
    with pytest.raises(UnreachableError, match=r"cannot be written"):
        add_run()


def test_reason_with_bytes_that_are_no_utf8_is_kept_as_every_other_text(
    home: Home, database: Database, add_run: Callable[..., int]
) -> None:
    run_id = add_run()
    with database.write() as session:
        transition(session, run_id, RunEvent.CANCEL, reason=os.fsdecode(b"in caf\xe9"), error=os.fsdecode(b"\xff"))
    assert runs.get_run(home, str(run_id)).row.reason == "in caf\\xe9"
    assert runs.get_run(home, str(run_id)).error == "\\xff"


def test_files_are_private_whatever_the_umask(home: Home) -> None:
    before = os.umask(0)
    try:
        database = Database(home)
        with database.write() as session:
            session.connection().exec_driver_sql("DELETE FROM wishes")
        modes = {path.name: path.stat().st_mode & 0o777 for path in home.root.iterdir()}
        database.close()
    finally:
        os.umask(before)
    assert home.root.stat().st_mode & 0o777 == 0o700
    assert {"mmtui.db", "mmtui.db-wal", "mmtui.db-shm"} <= modes.keys()
    assert {name: mode for name, mode in modes.items() if mode & 0o077} == {}


@pytest.mark.parametrize("name", ["a b", "a?b=c", "a#b", "a%20b", "ünï", "it's", "%(here)s"])
def test_database_any_folder_name_is_served(tmp_path: Path, name: str) -> None:
    home = Home(tmp_path / name)
    Database(home).close()
    assert home.database.is_file()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert runs.list_runs(home) == []


def test_list_no_database_has_no_runs_and_makes_none(home: Home) -> None:
    assert runs.list_runs(home) == []
    assert runs.count_runs(home) == {}
    assert not home.root.exists()


def test_newer_database_is_refused_by_reader_and_writer(database: Database, home: Home) -> None:
    with database.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for action in (lambda: runs.list_runs(home), lambda: Database(home)):
        with pytest.raises(UnreachableError, match="newer mmtui") as caught:
            action()
        assert caught.value.exit_code == ExitCode.UNREACHABLE


@pytest.mark.parametrize("damage", ["text", "truncated", "page"])
def test_damaged_database_is_unreachable_not_a_traceback(
    home: Home, database: Database, add_run: Callable[..., int], damage: str
) -> None:
    for _ in range(30):
        add_run()
    database.close()
    content = home.database.read_bytes()
    damaged = {
        "text": b"this is no database\n" * 400,
        "truncated": content[: len(content) // 2 - 100],
        "page": content[:4096] + b"\xa5" * 8192 + content[12288:],
    }[damage]
    home.database.write_bytes(damaged)
    with pytest.raises(UnreachableError, match=r"mmtui\.db"):
        runs.list_runs(home)
    with pytest.raises(UnreachableError, match=r"mmtui\.db"):
        database = Database(home)
        with database.write() as session:
            session.connection().exec_driver_sql("UPDATE runs SET name = name || 'x'")


def test_foreign_database_is_refused_and_left_as_it_is(home: Home) -> None:
    home.create()
    connection = sqlite3.connect(home.database)
    connection.execute("CREATE TABLE runs (mine TEXT)")
    connection.execute("INSERT INTO runs VALUES ('precious')")
    connection.commit()
    connection.close()
    before = home.database.read_bytes()
    with pytest.raises(UnreachableError, match="is a database of another program"):
        Database(home)
    assert home.database.read_bytes() == before
    assert list(home.backups.iterdir()) == []


def test_migration_several_processes_at_once_make_one_database(
    home: Home, run_together: Callable[..., list[str]], sql: Callable[..., list[tuple[int, ...]]]
) -> None:
    script = (
        "from mmtui.paths import Home; from mmtui.store.db import Database; Database(Home.from_environment()).close()"
    )
    run_together(script, 4)
    assert sql("SELECT count(*) FROM alembic_version") == [(1,)]
    assert runs.list_runs(home) == []
