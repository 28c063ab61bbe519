"""A database that SQLite finds sound and of which a part is missing: doctor names it and mends it, no supervisor serves
it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from mmtui.errors import UnreachableError
from mmtui.paths import Home
from mmtui.services import doctor, mending, supervisors
from mmtui.store import schema, wholeness
from mmtui.store.tables import metadata
from mmtui.supervisor.loop import Supervisor

pytestmark = pytest.mark.slow

Invoke = Callable[..., Any]


def change(home: Home, *statements: str) -> None:
    with closing(sqlite3.connect(home.database)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def finding(home: Home) -> doctor.Check:
    (found,) = [item for item in doctor.checks(home) if item.name == "database"]
    return found


EVERY = [
    *((f"DROP TABLE {name}", f"no table {name}") for name in sorted(metadata.tables)),
    *(
        (f"ALTER TABLE {table.name} RENAME COLUMN {column.name} TO other", f"no column {column.name} of {table.name}")
        for table in (metadata.tables["runs"], metadata.tables["attempts"])
        for column in table.columns
        if column.name in ("note", "state", "origin", "job")
    ),
    ("DROP INDEX ix_runs_waiting", "no index ix_runs_waiting"),
]


@pytest.mark.parametrize(("statement", "told"), EVERY)
def test_what_is_missing_is_named_by_doctor_and_no_supervisor_serves_it(
    populated: Home, statement: str, told: str
) -> None:
    assert finding(populated).ok
    change(populated, "PRAGMA foreign_keys=OFF", "PRAGMA legacy_alter_table=ON", statement)
    found = finding(populated)
    assert found.ok is False and told in found.text and "mmtui doctor --fix" in found.fix
    with pytest.raises(UnreachableError, match=told) as error:
        Supervisor(populated)
    assert "mmtui doctor --fix" in error.value.hint


@pytest.mark.parametrize(
    ("statement", "made"),
    [
        ("DROP TABLE wishes", "table wishes is made again, empty"),
        ("DROP TABLE settings", "table settings is made again, empty"),
        ("DROP INDEX ix_runs_waiting", "index ix_runs_waiting is made again"),
        ("ALTER TABLE runs RENAME COLUMN note TO notex", "column note of runs is made again, empty"),
    ],
)
def test_fix_adds_what_is_missing_and_nothing_else_changes(
    populated: Home, mmtui_: Invoke, statement: str, made: str
) -> None:
    assert mmtui_("note", "1", "a thought").code == 0 and mmtui_("rm", "2").code == 0
    change(populated, statement)
    with closing(sqlite3.connect(populated.database)) as connection:
        before = list(connection.iterdump())
    if "note" in statement:
        asked = mmtui_("note", "1", "another")
        assert asked.code == 3 and "no such column" in asked.err and "see: mmtui doctor" in asked.err
    found = mmtui_("doctor", "--fix")
    assert made in found.err and finding(populated).ok
    assert ("set them again" in found.err) is ("settings" in statement)
    assert mmtui_("restore", "2").code == 0, "nothing else is lost"
    (kept,) = populated.backups.glob("incomplete-*.db")
    with closing(sqlite3.connect(kept)) as connection:
        assert list(connection.iterdump()) == before
    assert mmtui_("note", "1", "another").code == 0 and mmtui_("queue").code == 0
    Supervisor(populated).tick()


@pytest.mark.parametrize("statement", ["DROP TABLE runs", "DROP TABLE metrics", "ALTER TABLE runs RENAME state TO x"])
@pytest.mark.parametrize("backed_up", [True, False])
def test_what_runs_are_made_of_is_taken_from_a_backup_or_the_folders(
    whole: Home, mmtui_: Invoke, statement: str, backed_up: bool
) -> None:
    assert mmtui_("note", "1", "a thought").code == 0
    if backed_up:
        assert mmtui_("backup").code == 0
    change(whole, "PRAGMA foreign_keys=OFF", statement)
    assert mmtui_("backup", str(whole.backups / "later.db")).code == 0, "newer, and as little whole"
    found = mmtui_("doctor", "--fix")
    assert finding(whole).ok, found.err
    assert ("restored" in found.err) is backed_up and "later.db" not in found.err
    assert len(list(whole.root.glob("mmtui.db.damaged-*"))) == 1
    shown = mmtui_("show", "1", "--json").json()
    assert shown["state"] == "succeeded"
    assert shown["note"] == ("" if statement == "DROP TABLE runs" and not backed_up else "a thought")
    assert mmtui_("backup", "--restore", str(whole.backups / "later.db")).code == 3


def test_daemon_start_and_run_say_in_one_sentence_why_nothing_serves(supervised: Home, mmtui_: Invoke) -> None:
    assert mmtui_("run", "shapes_baseline", "--hold", "--quiet").code == 0
    assert mmtui_("daemon", "stop").code == 0
    change(supervised, "DROP TABLE wishes")
    for words in (["daemon", "start"], ["run", "shapes_baseline"]):
        found = mmtui_(*words)
        assert found.code == 3 and "it has no table wishes" in found.err, (words, found.err)
    assert not supervisors.status(supervised).running


@pytest.mark.parametrize("statement", ["DROP TABLE alembic_version", "UPDATE alembic_version SET version_num = '0099'"])
def test_fix_leaves_a_database_that_is_foreign_or_newer(populated: Home, mmtui_: Invoke, statement: str) -> None:
    change(populated, "DROP TABLE wishes", statement)
    before = populated.database.read_bytes()
    found = mmtui_("doctor", "--fix")
    assert found.code == 1 and "is left as it is" in found.err and "made again" not in found.err
    assert populated.database.read_bytes() == before


def test_fix_leaves_a_database_that_is_locked(populated: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    change(populated, "DROP TABLE wishes")
    for module in (schema, wholeness):
        monkeypatch.setattr(module, "open_to_read", partial(schema.open_to_read, timeout=0.01))
    with closing(sqlite3.connect(populated.database, isolation_level=None)) as holder:
        holder.execute("PRAGMA journal_mode=DELETE")
        holder.execute("BEGIN EXCLUSIVE")
        before = populated.database.read_bytes()
        (told,) = mending._replace_database(populated)
    assert "is left as it is" in told and populated.database.read_bytes() == before
