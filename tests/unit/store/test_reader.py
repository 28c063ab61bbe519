"""Reading: superseded tails, evaluations, selectors, speed, and nothing heavy imported."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from mmtui.errors import NotFoundError, TimedOutError, UnreachableError, UsageError
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.store.db import Database
from mmtui.store.reader import Reader
from mmtui.store.runs import read_run
from tests.copies import copy_run
from tests.unit.store.conftest import asked
from tests.work import work


@pytest.fixture
def resumed_run(
    add_run: Callable[..., int], new_attempt: Callable[..., Any], end_attempt: Callable[[int], None]
) -> str:
    """Steps 1-8, killed, again from 5 to 7, killed, again from 2 to 10."""
    run_id = add_run()
    for number, (resumed, last) in enumerate([(0, 8), (5, 7), (2, 10)], start=1):
        file = new_attempt(run_id)
        file.start(resumed)
        for step in range(resumed + 1, last + 1):
            file.emit("metrics", step, {"loss": step + number / 10})
            if step % 2 == 0:
                file.emit("confusion", step, {"matrix": [[step, number], [0, 1]], "classes": ["a", "b"]})
                file.emit("graph", step, {"attempt": number})
        file.read()
        if number < 3:
            end_attempt(run_id)
    return str(run_id)


def test_points_tails_done_again_are_left_out(home: Home, resumed_run: str) -> None:
    kept = [(p.global_step, p.attempt) for p in runs.points(home, resumed_run, "loss")]
    assert kept == [(1, 1), (2, 1), *[(step, 3) for step in range(3, 11)]]
    assert len(runs.points(home, resumed_run, "loss", all_attempts=True)) == 8 + 2 + 8


def test_attempt_that_never_started_supersedes_nothing(
    home: Home, resumed_run: str, new_attempt: Callable[..., Any], end_attempt: Callable[[int], None]
) -> None:
    before = runs.points(home, resumed_run, "loss")
    end_attempt(int(resumed_run))
    new_attempt(int(resumed_run))  # claimed; its trainer has said nothing
    assert runs.points(home, resumed_run, "loss") == before


def test_class_table_history_and_graphs_leave_superseded_ones_out(home: Home, resumed_run: str) -> None:
    table = runs.class_table(home, resumed_run)
    assert table is not None
    assert table.step == 10
    assert [round(share or 0, 4) for share in table.classes[0].history] == [
        round(step / (step + number), 4) for step, number in [(2, 1), (4, 3), (6, 3), (8, 3), (10, 3)]
    ]
    assert [stats.graph.values["attempt"] for stats in runs.graph_history(home, resumed_run, 100)] == [1, 3, 3, 3, 3]


def test_views_for_queries_say_what_the_verbs_say(home: Home, resumed_run: str) -> None:
    header, rows = asked(home, "SELECT global_step, attempt, value FROM live_metrics WHERE name = 'loss' ORDER BY 1")
    assert header == ["global_step", "attempt", "value"]
    assert rows == [(p.global_step, p.attempt, p.value) for p in runs.points(home, resumed_run, "loss")]
    table = runs.class_table(home, resumed_run)
    assert table is not None
    _, rows = asked(home, "SELECT name, iou, pixels, step FROM class_iou WHERE latest ORDER BY class")
    assert rows == [(row.name, row.iou, row.pixels, 10) for row in table.classes]
    _, rows = asked(home, "SELECT iou FROM class_iou WHERE class = 0 ORDER BY global_step")
    assert tuple(row[0] for row in rows) == table.classes[0].history
    _, rows = asked(home, "SELECT id, took FROM live_runs")
    assert rows == [(int(resumed_run), None)]
    with Database(home).write() as session:
        read_run(session, int(resumed_run)).deleted_at = 1.0
    for view in ("live_runs", "live_metrics", "class_iou"):
        assert asked(home, f"SELECT count(*) FROM {view}")[1] == [(0,)], "it is in the trash"


def test_extremes_of_a_resumed_run_are_those_of_its_kept_points(
    home: Home, add_run: Callable[..., int], new_attempt: Callable[..., Any], end_attempt: Callable[[int], None]
) -> None:
    run_id = add_run()
    for resumed, loss in ((0, 100.0), (2, 1.0)):
        file = new_attempt(run_id)
        file.start(resumed)
        for step in range(resumed + 1, 6):
            file.emit("metrics", step, {"loss": loss if step > 2 else 7.0})
        file.read()
        if not resumed:
            assert [row.id for row, _ in runs.find(home, "max loss = 100")[0]] == [str(run_id)]
            end_attempt(run_id)
    assert runs.find(home, "max loss > 7")[1] == 0, "the 100 were done again"
    assert runs.find(home, "max loss = 7 and min loss = 1")[1] == 1


def test_query_cannot_write_nor_leave_anything_behind(home: Home, resumed_run: str) -> None:
    for text in ("DELETE FROM runs", "CREATE TABLE x (y)", "DROP VIEW main.live_runs", "PRAGMA user_version = 7"):
        with contextlib.suppress(UsageError):
            asked(home, text)
    assert asked(home, "SELECT count(*) FROM runs")[1] == [(1,)]
    assert asked(home, "PRAGMA user_version")[1] == [(0,)]
    assert asked(home, "SELECT count(*) FROM sqlite_schema WHERE name IN ('x', 'live_runs')")[1] == [(0,)]


def test_series_buckets_keep_every_extreme_and_mark_superseded(home: Home, resumed_run: str) -> None:
    series = runs.series(home, resumed_run, "loss", max_buckets=4)
    assert series == runs.series(home, resumed_run, "loss", max_buckets=4)
    assert sum(bucket.count for bucket in series.buckets) == series.total_points == 18
    values = [p.value for p in runs.points(home, resumed_run, "loss", all_attempts=True)]
    assert min(bucket.low for bucket in series.buckets) == min(values)
    assert max(bucket.high for bucket in series.buckets) == max(values)
    assert {bucket.attempt for bucket in series.buckets if bucket.superseded} == {1, 2}
    assert [bucket.x for bucket in series.buckets] == sorted(bucket.x for bucket in series.buckets)


def test_class_table_absent_class_is_none_and_left_out_of_the_mean(
    home: Home, add_run: Callable[..., int], new_attempt: Callable[..., Any]
) -> None:
    file = new_attempt(add_run())
    matrix = [[4, 1, 0, 0], [0, 5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    matrix[0][3] = 5  # class 3 is predicted but never true: 0; class 2 is in neither: absent
    file.emit("confusion", 1, {"matrix": matrix, "classes": ["a", "b", "c", "d"]})
    file.read()
    table = runs.class_table(home, "1")
    assert table is not None
    assert [row.iou for row in table.classes] == [0.4, pytest.approx(5 / 6), None, 0.0]
    assert [row.accuracy for row in table.classes] == [0.4, 1.0, None, None]
    assert table.num_present == 3
    assert table.miou == pytest.approx((0.4 + 5 / 6 + 0) / 3)
    assert runs.get_run(home, "1").row.metrics["miou"] == pytest.approx(100 * (0.4 + 5 / 6) / 3)


@pytest.mark.parametrize("classes", [1, 2, 11, 23])
def test_class_table_agrees_with_counting_pixels(
    home: Home, add_run: Callable[..., int], new_attempt: Callable[..., Any], classes: int
) -> None:
    """The oracle looks at every pixel of two label maps and knows nothing of matrices."""
    choose = random.Random(classes)
    file = new_attempt(add_run())
    naive: list[list[float | None]] = []
    for step in (10, 20, 30):
        truth = [choose.randrange(classes) for _ in range(400)]
        guess = [choose.choice([t, choose.randrange(max(classes - 2, 1))]) for t in truth]
        matrix = [
            [sum(p == (t, g) for p in zip(truth, guess, strict=True)) for g in range(classes)] for t in range(classes)
        ]
        file.emit("confusion", step, {"matrix": matrix, "classes": [f"c{k}" for k in range(classes)]})
        shares: list[float | None] = []
        for k in range(classes):
            both = sum(t == k and g == k for t, g in zip(truth, guess, strict=True))
            either = sum(t == k or g == k for t, g in zip(truth, guess, strict=True))
            shares.append(both / either if either else None)
        naive.append(shares)
    file.read()
    for position, step in enumerate((10, 20, 30)):
        table = runs.class_table(home, "1", step)
        assert table is not None
        assert [row.iou for row in table.classes] == naive[position]
        present = [share for share in naive[position] if share is not None]
        assert table.miou == pytest.approx(sum(present) / len(present))
        assert [row.name for row in table.classes] == [f"c{k}" for k in range(classes)]
    newest = runs.class_table(home, "1")
    assert newest is not None
    assert newest.step == 30
    assert [list(row.history) for row in newest.classes] == [list(column) for column in zip(*naive, strict=True)]
    assert [row.pixels for row in newest.classes] == [truth.count(k) for k in range(classes)]
    assert runs.class_table(home, "1", 15) is None


def test_resolve_ids_and_last_ones(home: Home, add_run: Callable[..., int]) -> None:
    for _ in range(12):
        add_run()
    assert runs.resolve(home, "1") == "1"  # an id, although 10, 11 and 12 begin with it
    assert runs.resolve(home, "12") == "12"
    assert runs.resolve(home, "@") == "12"
    assert runs.resolve(home, "@~2") == "10"
    for selector in ("13", "@~12", "x", "", "-1", "1 ", "²", "9" * 40):
        with pytest.raises(NotFoundError):
            runs.resolve(home, selector)
        if not selector.startswith("@"):
            with pytest.raises(NotFoundError):
                runs.get_run(home, selector)


def test_resolve_never_means_a_run_whose_id_only_begins_so(
    home: Home, database: Database, add_run: Callable[..., int]
) -> None:
    add_run()
    with database.write() as session:
        session.connection().exec_driver_sql("UPDATE sqlite_sequence SET seq = 69 WHERE name = 'runs'")
    assert add_run() == 70
    with pytest.raises(NotFoundError, match=r"no run 7$"):
        runs.resolve(home, "7")


def test_reading_loads_neither_sqlalchemy_nor_the_engines_libraries() -> None:
    script = (
        "import sys, mmtui.services.runs, mmtui.services.queue, mmtui.services.supervisors\n"
        "from mmtui.paths import Home\n"
        "mmtui.services.runs.list_runs(Home.from_environment())\n"
        "heavy = {'sqlalchemy', 'sqlmodel', 'alembic', 'torch', 'numpy', 'textual'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_list_page_of_many_runs_reads_the_page_alone(home: Home, add_run: Callable[..., int]) -> None:
    copy_run(home, add_run(), 1999)
    listed, window = runs.list_runs(home), runs.list_runs(home, limit=50, offset=1000)
    assert (len(listed), listed[0].id, window[0].id, len(window)) == (2000, "2000", "1000", 50)
    whole, half = work(lambda: runs.list_runs(home)), work(lambda: runs.list_runs(home, limit=1000))
    page = work(lambda: runs.list_runs(home, limit=50, offset=1000))
    assert whole.python < 2.1 * half.python and whole.sqlite < 2.1 * half.sqlite
    assert page.python < whole.python / 20
    assert page.sqlite < whole.sqlite / 5, "those before it are stepped over, not read"


def test_list_runs_reads_no_recipe(home: Home, add_run: Callable[..., int]) -> None:
    """Kilobytes each, of which a list shows nothing."""
    add_run()
    read = set[tuple[str | None, str | None]]()

    def allow(action: int, table: str | None, column: str | None, *_: object) -> int:
        if action == sqlite3.SQLITE_READ:
            read.add((table, column))
        return sqlite3.SQLITE_OK

    with Reader(home) as reader:
        connection = reader.connection()
        assert connection is not None
        connection.set_authorizer(allow)
        assert len(reader.runs(states=None, limit=None)) == 1
    assert ("runs", "name") in read and ("runs", "config") not in read


def test_data_version_changes_with_every_commit_of_another(home: Home) -> None:
    def write() -> None:
        with database.write() as session:
            session.connection().exec_driver_sql("DELETE FROM wishes")
            session.connection().exec_driver_sql("INSERT INTO device_samples (t, device) VALUES (random(), 'x')")

    with Reader(home) as reader:
        assert reader.data_version() == 0  # no database yet
        database = Database(home)
        first = reader.data_version()
        assert first > 0
        assert reader.data_version() == first
        write()
        assert reader.data_version() != first
        database.close()


def test_reader_cannot_write(home: Home, add_run: Callable[..., int]) -> None:
    add_run()
    with Reader(home) as reader, pytest.raises(UnreachableError, match="readonly"):
        reader.query("UPDATE runs SET name = 'x'")
    assert runs.get_run(home, "1").row.name == "a run"


def test_wait_times_out_and_names_who_is_waited_for(home: Home, add_run: Callable[..., int]) -> None:
    add_run()
    with pytest.raises(TimedOutError, match=r"1 \(queued\)"):
        runs.wait(home, ["1"], timeout=0.1)


def test_log_tail_spells_out_control_characters(
    home: Home, add_run: Callable[..., int], new_attempt: Callable[..., Any]
) -> None:
    file = new_attempt(add_run())
    log = file.path.with_name("output.log")
    log.write_bytes(b"one\n\x1b[2Jtwo\x07 \xff\nthree\n")
    assert runs.log_tail(home, "1") == ["one", "\\x1b[2Jtwo\\x07 \ufffd", "three"]
    assert runs.log_tail(home, "1", lines=1) == ["three"]
    assert runs.log_tail(home, "1", attempt=7) == []


def test_run_whose_state_is_damaged_is_counted_as_what_it_is_shown_as(home: Home, add_run: Callable[..., int]) -> None:
    """The screen shows as many rows as are counted: the last one was hidden."""
    for _ in range(3):
        add_run()
    connection = sqlite3.connect(home.database)
    with connection:
        connection.execute("UPDATE runs SET state = 'zzz' WHERE id = 2")
        connection.execute("UPDATE runs SET state = x'ff' WHERE id = 1")
    connection.close()
    shown = [run.state for run in runs.list_runs(home)]
    assert runs.count_runs(home) == {state: shown.count(state) for state in set(shown)}
