"""What a screen shows is of one moment: a refresh is one transaction, whatever is committed meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services import runs
from mmtui.services.live import Changes, one_moment
from mmtui.store.db import Database
from mmtui.tui.app import MmtuiApp
from mmtui.tui.feed import Feed
from mmtui.tui.model import Snapshot, Wanted
from mmtui.tui.pages import charts
from mmtui.tui.screens.page import PageScreen
from mmtui.tui.screens.queue import QueueScreen
from mmtui.tui.screens.run import CompareScreen, DevicesScreen, RunScreen
from tests.sql_trace import traced
from tests.tui.seed_store import seed_store, waiting
from tests.unit.store.test_session import truncated
from tests.waiting import until, until_async

MOST_CONNECTIONS, MOST_STATEMENTS, MOST_OF_PAGE = 2, 25, 30
TRAINING, NOW = "4", 1_790_000_000.0


@pytest.fixture
def seeded(home: Home) -> Home:
    seed_store(home, NOW)
    return home


def queue_another(home: Home) -> None:
    """A run that somebody else queues."""
    database = Database(home)
    waiting(database, "meanwhile", 7, NOW)
    database.close()


def of_reader(thread: str) -> bool:
    """The devices are looked at beside a refresh, in a thread of their own."""
    return thread != "devices"


def consistent(shown: Snapshot) -> bool:
    """Whether the counts, the list and what is said of the supervisor are of the same runs."""
    assert shown.supervisor is not None
    told = shown.supervisor.queued_runs == shown.counts.get("queued", 0)
    return sum(shown.counts.values()) == shown.total == len(shown.rows) and told


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(),
        Wanted(run_id=TRAINING),
        Wanted(run_id="1", sort=("-miou",), filter="state != held", columns=("seed",)),
        Wanted(run_id=TRAINING, group="seed"),
    ],
    ids=["first", "training", "filtered", "grouped"],
)
def test_refresh_of_the_runs_takes_one_transaction(seeded: Home, wanted: Wanted) -> None:
    feed = Feed(seeded)
    with traced() as trace:
        shown = feed._read(wanted)
    assert not shown.problem and not shown.trouble and shown.detail is not None and shown.series is not None
    assert trace.connections(of_reader) <= MOST_CONNECTIONS and trace.moments(of_reader) == 1
    assert len(trace.statements(of_reader)) <= MOST_STATEMENTS, "\n".join(trace.statements(of_reader))
    assert truncated(seeded), "no transaction is left"


@pytest.mark.parametrize("before", ["pinned", "list_runs", "get_run", "metric_names", "series", "class_table"])
def test_runs_are_shown_as_of_one_moment(seeded: Home, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    """Somebody queues a run and renames another, just before one of the reads."""
    whole, feed = getattr(runs, before), Feed(seeded)

    def meanwhile(*values: Any, **named: Any) -> Any:
        monkeypatch.setattr(runs, before, whole)
        queue_another(seeded)
        with sqlite3.connect(seeded.database) as connection:
            connection.execute("UPDATE runs SET name = 'renamed', global_step = 1, total_steps = 2 WHERE id = 4")
        connection.close()
        return whole(*values, **named)

    monkeypatch.setattr(runs, before, meanwhile)
    changes = Changes(seeded)
    shown = feed._look(changes, forced=True)
    assert shown is not None and getattr(runs, before) is whole, "it was read"
    fresh = feed._look(changes, forced=False)
    assert fresh is not None, "the next look reads what was committed"
    changes.close()
    for one, name, count in ((shown, "shapes_mixmatch", 6), (fresh, "renamed", 7)):
        assert consistent(one) and one.total == count
        (row,) = [line.run for line in one.rows if line.key == TRAINING]
        assert row.name == name
        if one.detail is not None and one.run_id == TRAINING:
            assert one.detail.row == row


def test_selected_run_is_of_the_moment_of_the_list(seeded: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends between the two: a list that says that it trains beside details that say it has succeeded."""
    whole = runs.get_run

    def ends(home: Home, run_id: str) -> Any:
        with sqlite3.connect(home.database) as connection:
            connection.execute("UPDATE runs SET state = 'succeeded', reason = '' WHERE id = 4")
        connection.close()
        return whole(home, run_id)

    monkeypatch.setattr(runs, "get_run", ends)
    shown = Feed(seeded)._read(Wanted(run_id=TRAINING))
    (row,) = [line.run for line in shown.rows if line.key == TRAINING]
    assert shown.detail is not None and shown.detail.row.state == row.state and shown.counts[row.state] == 1


def test_commit_between_the_look_and_the_transaction_is_shown(seeded: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    feed, changes = Feed(seeded), Changes(seeded)
    assert feed._look(changes, forced=True) is not None
    whole = Changes.seen

    def then(self: Changes) -> bool:
        found = whole(self)
        queue_another(seeded)
        return found

    monkeypatch.setattr(Changes, "seen", then)
    shown = [one for one in (feed._look(changes, forced=False), feed._look(changes, forced=False)) if one is not None]
    monkeypatch.setattr(Changes, "seen", whole)
    last = feed._look(changes, forced=False)
    shown += [last] if last is not None else []
    assert shown[-1].total == 8, "two were queued, each behind a look"
    changes.close()


def test_read_that_fails_takes_the_run_along_and_nothing_else(seeded: Home) -> None:
    """A table is lost: SQLite refuses a statement in the midst of the transaction."""
    with sqlite3.connect(seeded.database) as connection:
        connection.execute("DROP TABLE evaluations")
    connection.close()
    with traced() as trace:
        shown = Feed(seeded)._read(Wanted(run_id=TRAINING))
    assert "no such table: evaluations" in shown.trouble and not shown.problem and shown.detail is None
    assert consistent(shown) and shown.total == 6 and trace.moments(of_reader) == 1
    assert truncated(seeded)


def test_feed_leaves_no_transaction_open_between_refreshes(seeded: Home) -> None:
    feed = Feed(seeded, Wanted(run_id=TRAINING))
    feed.start()
    try:
        until(lambda: feed.latest.detail is not None)
        queue_another(seeded)
        until(lambda: feed.latest.total == 7)
        until(lambda: truncated(seeded), seconds=5)
    finally:
        feed.stop()


PAGES: dict[str, Callable[[], PageScreen]] = {
    **{name: partial(RunScreen, TRAINING, ["1"], tab) for tab, name in enumerate(RunScreen.TABS)},
    "compare": partial(CompareScreen, ["1", TRAINING]),
    "queue": QueueScreen,
    "devices-page": DevicesScreen,
}


def of_page(thread: str) -> bool:
    """Pages are read by workers of Textual; other threads do other things meanwhile."""
    return thread.startswith("asyncio_")


@pytest.mark.parametrize("name", PAGES)
async def test_refresh_of_a_page_takes_one_transaction(seeded: Home, name: str) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(120, 40)):
        screen = PAGES[name]()
        await app.push_screen(screen)
        await until_async(lambda: bool(screen.body) and not screen.reading)
        with traced() as trace:
            began = screen.read_at
            screen.redraw()
            await until_async(lambda: screen.read_at > began and not screen.reading and not screen.dirty)
        assert not any("! " in text for line in screen.body[:1] for text, _ in line), screen.body[0]
        assert trace.connections(of_page) == trace.moments(of_page) > 0, trace.statements(of_page)
        asked = trace.statements(of_page)
        assert len(asked) <= trace.moments(of_page) * MOST_OF_PAGE, "\n".join(asked)


def test_charts_that_are_zoomed_into_take_no_statement_of_their_own_for_each(seeded: Home) -> None:
    view = charts.View(window=(50, 200), moment=100)
    with traced() as trace, one_moment(seeded):
        laid = charts.charts(seeded, [TRAINING, "1"], 120, 40, False, view)
    assert sum("loss" in text for line in laid.lines for text, _ in line) == 1, "six charts, of two runs"
    assert trace.connections() == 1 and len(trace.statements()) <= MOST_OF_PAGE, "\n".join(trace.statements())
