"""Reading at one moment: one connection and one transaction, whoever asks, and none that stays open."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtui.errors import NotFoundError, UnreachableError
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.services.live import Changes, one_moment
from mmtui.store.db import Database
from mmtui.store.queries import folds
from mmtui.store.runs import NewRun, insert_run
from mmtui.store.session import reading, snapshot
from tests.sql_trace import traced
from tests.unit.store.conftest import EventFile

Add = Callable[..., int]


def in_thread(ask: Callable[[], Any]) -> Any:
    """What another thread is told."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(ask()))
    thread.start()
    thread.join()
    return found[0]


def truncated(home: Home) -> bool:
    """Whether a checkpoint could empty the write-ahead log: nobody reads from it."""
    connection = sqlite3.connect(home.database, timeout=0)
    busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    connection.close()
    return not busy


def ask_all(home: Home) -> None:
    """Several services, one of them twice."""
    for _ in range(2):
        runs.count_runs(home)
    runs.pinned(home)
    runs.get_run(home, "1")
    runs.metric_names(home, "1")


def test_services_share_one_connection_and_one_transaction_and_ask_nothing_twice(home: Home, add_run: Add) -> None:
    add_run()
    with traced() as trace:
        ask_all(home)
    assert trace.connections() == 5 and trace.moments() == 0, "each for itself outside of a snapshot"
    with traced() as trace, snapshot(home):
        ask_all(home)
    asked = trace.statements()
    assert trace.connections() == 1 and trace.moments() == 1 and len(asked) == len(set(asked))


def test_what_is_committed_meanwhile_is_seen_behind_the_snapshot_and_not_in_it(home: Home, add_run: Add) -> None:
    add_run("first")
    with snapshot(home):
        counts = runs.count_runs(home)
        add_run("second")
        assert runs.count_runs(home) == counts == {"queued": 1}
        assert [row.name for row in runs.list_runs(home)] == ["first"] and runs.resolve(home, "@") == "1"
        with pytest.raises(NotFoundError):
            runs.get_run(home, "2")
    assert runs.count_runs(home) == {"queued": 2} and runs.resolve(home, "@") == "2"


def test_snapshot_within_a_snapshot_is_of_the_same_moment(home: Home, add_run: Add) -> None:
    add_run()
    with snapshot(home):
        assert runs.count_runs(home) == {"queued": 1}
        add_run()
        with snapshot(home):
            assert len(runs.list_runs(home)) == 1
        assert len(runs.list_runs(home)) == 1, "the inner one has ended nothing"


def test_snapshot_is_of_its_thread_alone(home: Home, add_run: Add) -> None:
    add_run()
    with snapshot(home):
        assert runs.count_runs(home) == {"queued": 1}
        add_run()
        assert in_thread(lambda: runs.count_runs(home)) == {"queued": 2}
        assert runs.count_runs(home) == {"queued": 1}


def test_snapshot_is_of_its_data_directory_alone(home: Home, add_run: Add, tmp_path: Path) -> None:
    add_run()
    other = Home(tmp_path / "other").create()
    with snapshot(home):
        assert runs.list_runs(other) == [] and len(runs.list_runs(home)) == 1


@pytest.mark.parametrize("error", [None, KeyError])
def test_no_transaction_is_left_open(home: Home, add_run: Add, error: type[Exception] | None) -> None:
    add_run()
    try:
        with snapshot(home):
            runs.count_runs(home)
            add_run()
            assert not truncated(home), "the log is needed for what the snapshot shows"
            if error is not None:
                raise error
    except KeyError:
        pass
    assert truncated(home) and runs.count_runs(home) == {"queued": 2}


def test_reader_that_outlives_its_snapshot_opens_nothing(home: Home, add_run: Add) -> None:
    add_run()
    with snapshot(home), reading(home) as kept:
        assert kept.ids() == [1]
    with traced() as trace, pytest.raises(AssertionError, match="the moment is over"):
        kept.ids()
    assert trace.connections() == 0 and truncated(home)


def test_snapshot_that_reads_nothing_opens_nothing(home: Home, add_run: Add) -> None:
    add_run()
    with traced() as trace, snapshot(home):
        pass
    assert trace.connections() == 0


def test_query_that_fails_leaves_the_moment_as_it_is(home: Home, add_run: Add) -> None:
    add_run()
    with snapshot(home):
        assert runs.count_runs(home) == {"queued": 1}
        add_run()
        for _ in range(2):
            with reading(home) as reader, pytest.raises(UnreachableError, match="no such column: wrong"):
                reader.query("SELECT wrong FROM runs")
        assert [row.id for row in runs.list_runs(home)] == ["1"]


def test_transaction_that_sqlite_has_ended_is_not_gone_on_with_at_another_moment(home: Home, add_run: Add) -> None:
    """As it does where memory or the disk fails a query: what came behind would be of later moments."""
    add_run()
    with snapshot(home) as reader:
        assert runs.count_runs(home) == {"queued": 1}
        connection = reader.connection()
        assert connection is not None
        connection.execute("ROLLBACK")
        with pytest.raises(UnreachableError, match="failed an earlier query"):
            runs.list_runs(home)
    assert len(runs.list_runs(home)) == 1


def test_same_question_is_known_by_the_types_of_what_is_asked_for(home: Home, add_run: Add) -> None:
    add_run()
    with snapshot(home) as reader:
        found = [reader.query("SELECT 7 / ?", [by])[0][0] for by in (2, 2.0, 2)]
        first = reader.query("SELECT id FROM runs")
        first.clear()
        assert found == [3, 3.5, 3] and len(reader.query("SELECT id FROM runs")) == 1


def test_cell_that_is_no_text_hides_no_other(home: Home, add_run: Add, sql: Callable[..., Any]) -> None:
    add_run("sound")
    add_run("broken")
    connection = sqlite3.connect(home.database)
    connection.execute("UPDATE runs SET name = CAST(x'FF41' AS TEXT) WHERE id = 2")
    connection.commit()
    connection.close()
    with snapshot(home):
        assert runs.count_runs(home) == {"queued": 2}
        add_run("later")
        assert [row.name for row in runs.list_runs(home, newest_first=False)] == ["sound", "\\xffA"]
        assert runs.get_run(home, "1").row.name == "sound"


def test_database_that_appears_meanwhile_is_of_a_later_moment(home: Home) -> None:
    home.create()
    changes = Changes(home)
    assert changes.seen()
    with one_moment(home):
        assert runs.count_runs(home) == {}
        database = Database(home)
        with database.write() as session:
            insert_run(session, NewRun("new", "r", 0, {}, (), {}, [("segment", 1)]))
        database.close()
        assert runs.list_runs(home) == [] and runs.pinned(home) == []
    assert changes.seen(), "the next look reads it"
    changes.close()
    assert len(runs.list_runs(home)) == 1


def test_database_that_is_replaced_meanwhile_is_of_a_later_moment(home: Home, add_run: Add, tmp_path: Path) -> None:
    """As ``backup --restore`` and ``doctor --fix`` do it."""
    add_run("kept")
    with reading(home) as reader:
        connection = reader.connection()
        assert connection is not None
        with sqlite3.connect(tmp_path / "copy.db") as copy:
            connection.backup(copy)
        copy.close()
    add_run("lost")
    changes = Changes(home)
    assert changes.seen() and not changes.seen()
    with one_moment(home):
        assert runs.count_runs(home) == {"queued": 2}
        for end in ("-wal", "-shm"):
            Path(f"{home.database}{end}").unlink(missing_ok=True)
        shutil.copyfile(tmp_path / "copy.db", tmp_path / "new.db").replace(home.database)
        assert [row.name for row in runs.list_runs(home)] == ["lost", "kept"]
    assert changes.seen() and not changes.seen(), "the kept connection is to the file that is gone"
    changes.close()
    assert [row.name for row in runs.list_runs(home)] == ["kept"]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda file: file.write_bytes(b"no database, but a letter" * 400), "is damaged: file is not a database"),
        (lambda file: change(file, "DROP TABLE alembic_version"), "is a database of another program"),
        (lambda file: change(file, "UPDATE alembic_version SET version_num = 'x'"), "is a database of another program"),
        (lambda file: change(file, "UPDATE alembic_version SET version_num = '9999'"), "newer"),
        (lambda file: change(file, "DROP TABLE runs"), "cannot be read: no such table: runs"),
    ],
)
def test_database_that_cannot_be_read_is_told_alike_in_a_snapshot(
    home: Home, damage: Callable[[Path], object], sentence: str
) -> None:
    home.create()
    Database(home).close()
    for end in ("-wal", "-shm"):
        Path(f"{home.database}{end}").unlink(missing_ok=True)
    damage(home.database)
    with pytest.raises(UnreachableError, match=sentence) as outside:
        runs.count_runs(home)
    with snapshot(home):
        for _ in range(2):
            with pytest.raises(UnreachableError, match=sentence) as inside:
                runs.count_runs(home)
            assert (inside.value.message, inside.value.hint) == (outside.value.message, outside.value.hint)


def change(file: Path, statement: str) -> None:
    connection = sqlite3.connect(file)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_who_waits_does_not_do_so_in_a_snapshot(home: Home, add_run: Add) -> None:
    """They would look for ever at what was there when they began."""
    run_id = str(add_run())
    with snapshot(home):
        with pytest.raises(AssertionError, match="no run would ever end"):
            runs.wait(home, [run_id])
        with pytest.raises(AssertionError, match="no line would ever be new"):
            next(runs.log_follow(home, run_id))


def test_queries_of_others_have_a_connection_of_their_own(home: Home, add_run: Add) -> None:
    """What they may do is limited on it from there on, and the views that they have are temporary."""
    add_run()
    with snapshot(home):
        assert runs.count_runs(home) == {"queued": 1}
        with runs.sql(home, "SELECT count(*) FROM live_runs") as (_, rows):
            assert list(rows) == [(1,)]
        assert len(runs.list_runs(home)) == 1


def test_commit_between_the_look_and_the_reading_is_not_lost(
    home: Home, add_run: Add, new_attempt: Callable[[int], EventFile]
) -> None:
    """Whenever it comes, it is read, or the next look says that there is something new."""
    changes = Changes(home)
    run_id = add_run()
    assert changes.seen()
    add_run("behind the look")
    with one_moment(home):
        assert runs.count_runs(home) == {"queued": 2}
        new_attempt(run_id)
        assert runs.count_runs(home) == {"queued": 2}
    assert changes.seen() and runs.count_runs(home) == {"starting": 1, "queued": 1}
    assert not changes.seen()
    changes.close()


@pytest.mark.parametrize("within", [reading, snapshot])
def test_folding_thousands_of_runs_holds_the_recipes_of_a_few_at_a_time(
    home: Home, database: Database, add_run: Add, within: Callable[[Home], Any]
) -> None:
    add_run()
    config = json.dumps({"padding": "x" * 20_000})
    with sqlite3.connect(home.database) as connection:
        connection.execute("UPDATE runs SET config = ?", [config])
        names = ", ".join(row[1] for row in connection.execute("PRAGMA table_info(runs)") if row[1] != "id")
        copies = "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
        connection.execute(f"{copies} INSERT INTO runs (id, {names}) SELECT n.i, {names} FROM runs, n WHERE id = 1")
    connection.close()
    with within(home) as reader:
        tracemalloc.start()
        try:
            seen = sum("padding" in one.config for _, one in folds.trained(reader, range(1, 3001)))
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert seen == 3000
    assert most < 3000 * len(config) / 2
