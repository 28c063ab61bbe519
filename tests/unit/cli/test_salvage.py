"""A damaged database is replaced: what only it told of runs is read from the file that was kept, where that can be."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services import queue, runs, salvage
from mmtui.store.reader import Reader

pytestmark = pytest.mark.slow

Invoke = Callable[..., Any]
PAGE = 4096


@pytest.fixture
def labelled(whole: Home, mmtui_: Invoke) -> Home:
    """Runs with notes and tags, many others between them, and a queue with rules; no log beside the database."""
    queue.enqueue_all(whole, "shapes_baseline", [[f"seed={n}"] for n in range(12)], queue.Terms(hold=True))
    for run_id in ("1", "3", "15"):
        assert mmtui_("note", run_id, f"a thought about {run_id}").code == 0
        assert mmtui_("tag", run_id, "--add", "best").code == 0
    assert mmtui_("priority", "3", "5").code == 0
    queue.limit_group(whole, "night", 2)
    queue.set_budget(whole, "night", 1.5)
    queue.close_queue(whole, "for the weekend")
    with closing(sqlite3.connect(whole.database)) as connection:
        connection.execute("UPDATE runs SET time_limit = 60, run_group = 'night' WHERE id = 3")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return whole


def pages(database: Path, table: str, kind: str = "leaf") -> list[int]:
    """Numbers of the pages that a table takes."""
    with closing(sqlite3.connect(database)) as connection:
        sql = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = ? ORDER BY pageno"
        return [row[0] for row in connection.execute(sql, [table, kind])]


def spoil(database: Path, number: int) -> None:
    with database.open("r+b") as file:
        file.seek((number - 1) * PAGE)
        file.write(b"\xff" * PAGE)


def told(mmtui_: Invoke, run_id: str) -> tuple[str, set[str]]:
    found = mmtui_("show", run_id, "--json").json()
    return found["note"], set(found["tags"])


@pytest.mark.parametrize("how", ["page", "short", "torn"])
def test_fix_gives_notes_tags_and_rules_back_from_the_damaged_file(labelled: Home, mmtui_: Invoke, how: str) -> None:
    if how == "page":
        spoil(labelled.database, pages(labelled.database, "metric_buckets")[0])
    else:
        with closing(sqlite3.connect(labelled.database)) as connection:  # what lies behind is cut off
            connection.execute("CREATE TABLE last (x)")
            connection.execute("INSERT INTO last VALUES (zeroblob(40000))")
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        os.truncate(labelled.database, labelled.database.stat().st_size - 5 * PAGE - (100 if how == "torn" else 0))
    found = mmtui_("doctor", "--fix")
    assert "made again from its folder" in found.err
    assert "notes, tags and what else was set by hand: 4 runs got them back" in found.err
    assert "cannot be read" not in found.err.replace("could not be read", "")
    for run_id in ("1", "3", "15"):
        note, tags = told(mmtui_, run_id)
        assert note == f"a thought about {run_id}" and "best" in tags
    row = mmtui_("query", "SELECT priority, time_limit, run_group FROM runs WHERE id IN (3, 5) ORDER BY id", "--json")
    assert [list(one.values()) if isinstance(one, dict) else one for one in row.json()["rows"]] == [
        [0, 60.0, "night"],
        [3, 0.0, "sweep-4"],
    ]
    with Reader(labelled) as reader:
        settings = reader.settings()
    assert (settings["closed"], settings["limit:night"], settings["budget:night"]) == ("for the weekend", "2", "1.5")
    assert "settings of the queue are back: budget:night, closed, limit:night" in found.err
    assert not list(labelled.root.glob("mmtui.db.damaged-*-*")), "reading puts nothing beside it"


def test_bad_page_of_runs_hides_only_what_lies_on_it_and_that_is_told(labelled: Home, mmtui_: Invoke) -> None:
    leaves = pages(labelled.database, "runs")
    assert len(leaves) > 2
    spoil(labelled.database, leaves[-1])
    err = mmtui_("doctor", "--fix").err
    kept = next(labelled.root.glob("mmtui.db.damaged-*")).name
    assert "got them back" in err and f"15); the file is kept as {kept}" in err
    assert told(mmtui_, "1")[0] == "a thought about 1" and told(mmtui_, "15") == ("", set())


@pytest.mark.parametrize("table", ["root", "header"])
def test_fix_says_that_notes_and_tags_cannot_be_read(labelled: Home, mmtui_: Invoke, table: str) -> None:
    if table == "root":
        spoil(labelled.database, pages(labelled.database, "runs", "internal")[0])
    else:
        labelled.database.write_bytes(b"\x00no database" * 1000)
    err = mmtui_("doctor", "--fix").err
    kept = next(labelled.root.glob("mmtui.db.damaged-*")).name
    assert "notes, tags and what else was set by hand cannot be read" in err and f"the file is kept as {kept}" in err
    assert ("set them again" in err) is (table == "header")


def test_settings_behind_a_bad_page_are_reached_and_what_is_missing_is_told(labelled: Home, mmtui_: Invoke) -> None:
    for number in range(400):
        queue.limit_group(labelled, f"group {number:03}", number + 1)
    with closing(sqlite3.connect(labelled.database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    leaves = pages(labelled.database, "settings")
    assert len(leaves) > 2
    spoil(labelled.database, leaves[len(leaves) // 2])
    err = mmtui_("doctor", "--fix").err
    with Reader(labelled) as reader:
        found = reader.settings()
    assert {"budget:night", "limit:group 000", "limit:group 399", "limit:night"} <= found.keys()
    assert len(found) < 400 and "set them again" in err


def test_damaged_file_is_newer_than_the_backup_that_takes_its_place(labelled: Home, mmtui_: Invoke) -> None:
    assert mmtui_("backup").code == 0
    assert mmtui_("note", "1", "later").code == 0
    with closing(sqlite3.connect(labelled.database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spoil(labelled.database, pages(labelled.database, "metric_buckets")[0])
    err = mmtui_("doctor", "--fix").err
    assert "restored" in err and "1 run got them back" in err
    assert told(mmtui_, "1")[0] == "later" and told(mmtui_, "3")[0] == "a thought about 3"


def test_restored_backup_keeps_its_notes_and_later_runs_get_theirs(labelled: Home, mmtui_: Invoke) -> None:
    copy = mmtui_("backup", str(labelled.root / "copy.db")).out.strip()
    assert mmtui_("note", "1", "later").code == 0
    queue.enqueue(labelled, "shapes_baseline", hold=True)
    assert mmtui_("note", "16", "of a later run").code == 0
    assert mmtui_("backup", "--restore", copy).code == 0
    assert told(mmtui_, "1")[0] == "a thought about 1"
    assert told(mmtui_, "16")[0] == "of a later run"


BAD: list[tuple[str, Any]] = [
    ("note", b"\xff\xfe"), ("tags", "{bad"), ("tags", '"text"'), ("run_group", b"\xff"), ("priority", "high"),
    ("position", "x"), ("not_before", -1.0), ("after", "[99]"), ("after", '["1"]'), ("if_failed", "explode"),
    ("time_limit", float("inf")), ("name", "another run"), ("name", b"\xff"),
]  # fmt: skip


@pytest.mark.parametrize(("column", "value"), BAD)
def test_damaged_cell_is_not_taken_over_and_told(labelled: Home, column: str, value: Any) -> None:
    names = {int(row.id): row.name for row in runs.list_runs(labelled)}
    with closing(sqlite3.connect(labelled.database)) as connection:
        cell = "CAST(? AS TEXT)" if isinstance(value, bytes) else "?"
        connection.execute(f"UPDATE runs SET {column} = {cell} WHERE id = 3", [value])
        connection.commit()
    found = salvage.read(labelled.database, names)
    assert found.unread == {3} and column not in found.runs.get(3, {})
    assert found.runs[1]["note"] == "a thought about 1"


def test_cells_are_cut_to_what_such_a_text_may_have(labelled: Home) -> None:
    with closing(sqlite3.connect(labelled.database)) as connection:
        connection.execute(
            "UPDATE runs SET note = ?, tags = ? WHERE id = 3", ["x" * 20000, json.dumps(["t" * 300] * 2)]
        )
        connection.execute("INSERT INTO settings VALUES ('limit:bad', 'many'), ('clock', 'boot 1'), ('else', 'x')")
        connection.commit()
    names = {int(row.id): row.name for row in runs.list_runs(labelled)}
    found = salvage.read(labelled.database, names)
    assert len(found.runs[3]["note"]) == 16384 and [len(tag) for tag in json.loads(found.runs[3]["tags"])] == [256]
    assert found.settings.keys() == {"limit:night", "budget:night", "closed"} and not found.settings_read


def test_database_that_is_gone_is_said_to_take_notes_with_it(labelled: Home, mmtui_: Invoke) -> None:
    copy = mmtui_("backup").out.strip()
    for file in labelled.root.glob("mmtui.db*"):
        file.unlink()
    err = mmtui_("doctor", "--fix").err
    assert "notes, tags given later, limits and budgets are gone with it" in err
    assert f"mmtui backup --restore {copy}" in err
    assert mmtui_("backup", "--restore", copy).code == 0
    assert told(mmtui_, "1")[0] == "a thought about 1"
