"""Questions to the database: what they must not load, and answers that no other test looks at one by one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.store.db import Database
from mmtui.store.foreign_file import tables_of
from mmtui.store.queries import active, attempts, codes, completion, damaged, known, queue, trash
from mmtui.store.reader import Reader
from mmtui.store.runs import begin_attempt, set_pid, transition
from mmtui.store.write import repair, visibility


def test_questions_load_no_sqlalchemy() -> None:
    script = (
        "import importlib, pkgutil, sys, mmtui.store.queries as package\n"
        "names = [one.name for one in pkgutil.iter_modules(package.__path__)]\n"
        "assert len(names) > 8, names\n"
        "for name in names:\n"
        "    importlib.import_module(f'mmtui.store.queries.{name}')\n"
        "heavy = {'sqlalchemy', 'sqlmodel', 'alembic', 'textual', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def started(database: Database, add_run: Callable[..., int]) -> int:
    """An active run, first attempt, on places a and b, process 4711; two others wait."""
    run_id = add_run("first")
    add_run("second")
    add_run("third")
    with database.write() as session:
        begin_attempt(session, run_id, ["a", "b"], "here", 1000.0)
        set_pid(session, run_id, 1, 4711, "its start")
    return run_id


def test_active_run_its_places_and_its_process(home: Home, started: int) -> None:
    with Reader(home) as reader:
        assert active.attempts(reader) == [(started, 1)]
        (holder,) = active.holders(reader)
        assert (holder.run_id, holder.attempt, holder.places, holder.names) == (started, 1, ("a", "b"), ("a", "b"))
        assert active.trainers(reader) == [active.Trainer(4711, "its start", started)]
        assert attempts.process(reader, started, 1) == (4711, "its start", "")
        standing = attempts.standing(reader, started, 1)
        assert standing == ("starting", 4711, "its start", None, "", "{}")
        assert standing is not None and not standing.is_on_cluster
        assert (attempts.spawned_at(reader, started, 1), attempts.ingested(reader, started, 1)) == (1000.0, 0)


def test_attempt_that_there_is_not_has_no_answers(home: Home, started: int) -> None:
    with Reader(home) as reader:
        assert attempts.standing(reader, started, 2) is None
        assert attempts.spawned_at(reader, started, 2) is None
        assert attempts.ingested(reader, started, 2) is None
        with pytest.raises(LookupError):
            attempts.process(reader, started, 2)


def test_holder_of_a_damaged_cell_has_no_places(home: Home, database: Database, started: int) -> None:
    with database.write() as session:
        repair.set_cell(session, started, "gpus", "[1, 2]")
    with Reader(home) as reader:
        (holder,) = active.holders(reader)
    assert (holder.places, holder.names) == (None, ("1", "2"))


@pytest.mark.parametrize(("limit", "over"), [(59.0, True), (60.0, False), (0.0, False)])
def test_run_is_over_time_once_it_has_taken_more(
    home: Home, database: Database, started: int, limit: float, over: bool
) -> None:
    with database.write() as session:
        repair.set_cell(session, started, "time_limit", limit)
    with Reader(home) as reader:
        assert attempts.over_time(reader, 1060.0) == ([(started, 1, limit)] if over else [])


def test_queue_of_this_machine_and_of_the_cluster(home: Home, database: Database, started: int) -> None:
    with database.write() as session:
        repair.set_cell(session, 3, "launcher", '{"partition": "gpu"}')
        repair.set_cell(session, 2, "run_group", "sweep")
    with Reader(home) as reader:
        assert [(run.run_id, run.group) for run in queue.waiting(reader, on_cluster=False)] == [(2, "sweep")]
        assert [run.run_id for run in queue.waiting(reader, on_cluster=True)] == [3]
        assert queue.queued_ids(reader) == {2, 3}
        assert {one.run_id for one in queue.reasons(reader)} == {2, 3}
        assert queue.states(reader, [1, 2, 99]) == {1: "starting", 2: "queued"}
        assert not queue.has_wishes(reader)


def test_states_of_more_runs_than_one_statement_takes(home: Home, started: int) -> None:
    with Reader(home) as reader:
        assert queue.states(reader, range(1, 1500)) == {1: "starting", 2: "queued", 3: "queued"}


def test_groups_count_active_runs_and_shares_of_devices(home: Home, database: Database, started: int) -> None:
    with database.write() as session:
        repair.set_cell(session, started, "run_group", "sweep")
        repair.set_cell(session, started, "wanted", 0.5)
    with Reader(home) as reader:
        assert queue.active_by_group(reader) == {"sweep": 1}
        assert queue.hours_by_group(reader, 1000.0 + 2 * 3600) == {"sweep": 1.0}


def test_damaged_cells_are_named_in_order(home: Home, database: Database, started: int) -> None:
    with database.write() as session:
        repair.set_cell(session, 2, "name", b"\xff")
        repair.set_cell(session, 2, "tags", "[")
        repair.set_cell(session, 3, "seed", "many")
    with Reader(home) as reader:
        assert damaged.runs(reader) == [(2, ("tags", "name")), (3, ("seed",))]
        assert damaged.in_queue(reader) == {2, 3}
        assert damaged.quick_check(reader) == "ok"


def test_known_runs_are_those_in_the_trash_too(home: Home, database: Database, started: int) -> None:
    hide = "its import has not finished (process 1 on host)"
    with database.write() as session:
        transition(session, 3, RunEvent.CANCEL, reason="no more", ended_at=1.0)
        repair.set_cell(session, 3, "deleted_at", 5.0)
        repair.set_cell(session, 2, "deleted_at", 6.0)
        repair.set_cell(session, 2, "reason", hide)
    with Reader(home) as reader:
        assert known.ids(reader) == {1, 2, 3} and reader.ids() == [1]
        assert known.names(reader) == {1: "first", 2: "second", 3: "third"}
        assert known.states(reader) == {1: "starting", 2: "queued", 3: "cancelled"}
        assert known.reasons(reader)[3] == "no more"
        assert (known.is_known(reader, 3), known.is_known(reader, 4), known.last_id(reader)) == (True, False, 3)
        assert known.has_other_reason(reader, 3, "another") and not known.has_other_reason(reader, 3, "no more")
        assert not known.has_other_reason(reader, 4, "another")
        assert trash.hidden(reader) == [(2, hide), (3, "no more")]
        assert trash.being_made(reader) == [(2, hide)]
        assert codes.in_use(reader) == [{}] and codes.of_run(reader, 4) == {}
    assert known.ids_in(home.database) == {1, 2, 3}


def test_show_lists_hidden_runs_at_once(home: Home, database: Database, started: int) -> None:
    with database.write() as session:
        for run_id in (2, 3):
            repair.set_cell(session, run_id, "deleted_at", 5.0)
    with database.write() as session:
        visibility.show(session, [2, 3], "whole")
    with Reader(home) as reader:
        assert reader.ids() == [1, 2, 3]
        reasons = known.reasons(reader)
        assert (reasons[2], reasons[3]) == ("whole", "whole")


def test_database_that_there_is_not_yet_has_no_runs(home: Home, tmp_path: Path) -> None:
    with Reader(home) as reader:
        assert (active.attempts(reader), queue.waiting(reader, on_cluster=False), known.ids(reader)) == ([], [], set())
        assert known.last_id(reader) == 0
    assert completion.begin_with(home.database, "", 5) == []
    assert not completion.keeps_best(home.database, "1")
    (tmp_path / "text").write_text("no database")
    assert tables_of(tmp_path / "text") == set()


def test_completion_offers_the_newest_first(home: Home, started: int) -> None:
    assert completion.begin_with(home.database, "", 2) == [("3", "third", "queued"), ("2", "second", "queued")]
    assert completion.begin_with(home.database, "1", 2) == [("1", "first", "starting")]
