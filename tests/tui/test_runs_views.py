"""Folding, pins, columns and kept views of the table of runs, on a real store."""

from __future__ import annotations

import statistics

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from mmtui.domain.look import run_colors
from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.services import grouping, runs, saved_views
from mmtui.services.saved_views import SavedView
from mmtui.store.db import Database
from mmtui.store.runs import NewRun, begin_attempt, insert_run, transition
from mmtui.tui.app import MmtuiApp
from mmtui.tui.screens.views import ColumnsDialog, ViewsDialog
from mmtui.tui.widgets.runs_table import RunsTable
from tests.waiting import until_async

MIOUS = {"1.0": (50.0, 52.0, 54.0), "2.1": (60.0, 61.0)}


@pytest.fixture
def sweep(home: Home) -> Home:
    """Runs 1-5: two margins with three and two seeds; run 6 on its own and failed."""
    database = Database(home.create())
    stages = [("segment", 10)]
    with database.write() as session:
        for margin, values in MIOUS.items():
            for seed, miou in enumerate(values):
                config = {"match": {"margin": float(margin)}, "seed": seed}
                new = NewRun(f"margin {margin}", "shapes", seed, config, (), {}, stages, group="margins")
                run_id = insert_run(session, new)
                begin_attempt(session, run_id, ["cpu:0"], "box")
                transition(session, run_id, RunEvent.EXIT_OK, ended_at=1e9, miou=miou)
        run_id = insert_run(session, NewRun("alone", "other", 0, {"match": {"margin": 9.0}}, (), {}, stages))
        begin_attempt(session, run_id, ["cpu:0"], "box")
        transition(session, run_id, RunEvent.EXIT_ERROR, ended_at=1e9)
    database.close()
    return home


def table(app: MmtuiApp) -> RunsTable:
    return app.runs_screen.query_one(RunsTable)


async def ready(app: MmtuiApp, pilot: Pilot[int]) -> None:
    await until_async(lambda: app.feed.latest.detail is not None and table(app).total > 0)
    await pilot.pause()


async def press(pilot: Pilot[int], *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await pilot.pause()


async def test_seeds_are_folded_opened_and_closed_again(sweep: Home) -> None:
    app = MmtuiApp(sweep)
    async with app.run_test(size=(150, 40)) as pilot:
        await ready(app, pilot)
        await press(pilot, "b")
        await until_async(lambda: "n=3" in table(app).plain_text())
        lines = table(app).plain_text().splitlines()
        assert len(lines) == 1 + 3, "a header, two folds and the run on its own"
        mean, sd = statistics.mean(MIOUS["1.0"]), statistics.stdev(MIOUS["1.0"])
        fold = next(line for line in lines if "match.margin=1.0" in line)
        assert f"{mean:.1f}±{sd:.1f} n=3" in fold and "3✓" in fold and "100%" in fold
        assert "alone" in lines[1] and "✗ failed" in lines[1]
        await press(pilot, "j", "l")
        await until_async(lambda: len(table(app).plain_text().splitlines()) == 6)
        opened = table(app).plain_text().splitlines()
        assert "▾" in opened[2] and "seed 1  margin 2.1" in opened[3] and "seed 0  margin 2.1" in opened[4]
        await press(pilot, "j", "h")  # from a member: its group is closed
        await until_async(lambda: len(table(app).plain_text().splitlines()) == 4)
        assert table(app).run == "5", "the newest of the group is shown by the panels"
        await press(pilot, "space")
        assert list(table(app).marked) == ["5", "4"], "a mark on a fold marks its runs"


async def test_sweeps_are_folded_by_their_group(sweep: Home) -> None:
    app = MmtuiApp(sweep)
    async with app.run_test(size=(150, 40)) as pilot:
        await ready(app, pilot)
        await press(pilot, "b", "b")
        await until_async(lambda: "n=5" in table(app).plain_text())
        lines = table(app).plain_text().splitlines()
        assert "margins" in lines[2] and "▸  5" in lines[2] and "5✓" in lines[2]
        await press(pilot, "b")
        await until_async(lambda: "n=5" not in table(app).plain_text())
        assert table(app).total == 6


async def test_cursor_stays_on_its_run_when_it_is_folded(sweep: Home) -> None:
    app = MmtuiApp(sweep)
    async with app.run_test(size=(150, 40)) as pilot:
        await ready(app, pilot)
        await press(pilot, *"jjj")
        await until_async(lambda: table(app).selected == "3")
        await press(pilot, "b")
        await until_async(lambda: table(app).selected == "group 1")


async def test_pinned_run_stands_on_top_in_every_order(sweep: Home) -> None:
    app = MmtuiApp(sweep)
    async with app.run_test(size=(150, 40)) as pilot:
        await ready(app, pilot)
        await press(pilot, "G")
        await until_async(lambda: table(app).selected == "1")
        await press(pilot, "p")
        await until_async(lambda: table(app).plain_text().splitlines()[1].startswith("   1^"))
        assert runs.get_run(sweep, "1").row.tags == ("pinned",)
        await press(pilot, "s", "down", "enter")
        await until_async(lambda: table(app).plain_text().splitlines()[2].startswith("   5"))
        assert table(app).plain_text().splitlines()[1].startswith("   1^"), "best first, below the pinned one"
        await press(pilot, "p")
        await until_async(lambda: table(app).plain_text().splitlines()[1].startswith("   5"))
        assert runs.pinned(sweep) == []


async def test_chosen_columns_are_shown_and_wrong_ones_refused(sweep: Home) -> None:
    app = MmtuiApp(sweep)
    async with app.run_test(size=(150, 40)) as pilot:
        await ready(app, pilot)
        await press(pilot, "C")
        assert isinstance(app.screen, ColumnsDialog)
        field = app.screen.query_one(Input)
        field.value = "marign"
        await press(pilot, "enter")
        assert isinstance(app.screen, ColumnsDialog), "it stays and says what is wrong"
        field.value = "margin, miou, match.margin"
        await press(pilot, "enter")
        await until_async(lambda: "margin" in table(app).plain_text().splitlines()[0])
        lines = table(app).plain_text().splitlines()
        assert lines[0].split()[-3:] == ["margin", "miou", "match.margin"]
        assert lines[1].split()[-3:] == ["9", "-", "9"] and lines[2].split()[-3:] == ["2.1", "61", "2.1"]


async def test_view_is_kept_taken_and_forgotten(sweep: Home) -> None:
    saved_views.save(sweep, "bad", SavedView(filter="state = failed"))
    app = MmtuiApp(sweep)
    async with app.run_test(size=(150, 40)) as pilot:
        await ready(app, pilot)
        await press(pilot, "s", "down", "enter", "V")
        assert isinstance(app.screen, ViewsDialog)
        await press(pilot, "tab")
        app.screen.query_one(Input).value = "two words"
        await press(pilot, "enter")
        assert isinstance(app.screen, ViewsDialog), "no name for a view"
        app.screen.query_one(Input).value = "best"
        await press(pilot, "enter")
        assert saved_views.get(sweep, "best") == SavedView(sort=("-miou",))
        await press(pilot, "V", "enter")  # the first of the list: bad
        await until_async(lambda: table(app).total == 1)
        assert "filter: state = failed" in table(app).title_text
        await press(pilot, "V", "ctrl+d")
        assert [option.id for option in app.screen.query_one(OptionList).options] == ["best"]
        await press(pilot, "escape")
        assert list(saved_views.load(sweep)) == ["best"]


async def test_click_selects_the_run_under_the_pointer(sweep: Home) -> None:
    app = MmtuiApp(sweep)
    async with app.run_test(size=(150, 40)) as pilot:
        await ready(app, pilot)
        await pilot.click(RunsTable, offset=(10, 4))
        await until_async(lambda: app.feed.latest.detail is not None and app.feed.latest.detail.row.id == "4")
        assert table(app).selected == "4"


def test_run_keeps_its_colour_unless_another_has_it() -> None:
    assert run_colors(["3"]) == {"3": run_colors(["1", "3"])["3"]}
    several = run_colors(["1", "6", "11"])
    assert len(set(several.values())) == 3 and several["1"] == run_colors(["1"])["1"]
    assert len(run_colors([str(i) for i in range(20)])) == 20


def test_folding_thousands_of_runs_reads_each_recipe_once(sweep: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    keys_of = grouping.seeds.keys_of
    monkeypatch.setattr(grouping.seeds, "keys_of", lambda home, ids: asked.append(len(ids)) or keys_of(home, ids))
    folds = grouping.Folds(sweep)
    first = grouping.grouped(sweep, "", "seed", (), folds)
    assert [one.id for one in first] == ["6", "group 4", "group 1"]
    assert grouping.grouped(sweep, "", "seed", ("-miou",), folds)[0].id == "group 4"
    assert asked == [6, 0]
