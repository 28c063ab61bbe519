"""What keys do to runs, on several at once, and what takes it back. A real database; no supervisor is needed."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.services import code, queue, runs
from mmtui.tui.app import MmtuiApp
from mmtui.tui.screens.dialogs import CancelDialog, LineDialog, TrustDialog
from mmtui.tui.screens.new_run import NewRunDialog
from mmtui.tui.screens.output import OutputScreen
from mmtui.tui.screens.run import RunScreen
from mmtui.tui.screens.run_request import NewRun
from mmtui.tui.widgets.runs_table import RunsTable
from tests.tui.seed import seed_run
from tests.tui.test_pages import NOW, ready
from tests.waiting import PATIENCE, until_async


@pytest.fixture
def waiting(home: Home) -> Home:
    for name in ("one", "two", "three"):
        queue.enqueue(home, "shapes_baseline", ["segment.steps=2"], name=name, hold=True)
    return home


def states(home: Home) -> list[str]:
    return [row.state for row in runs.list_runs(home, newest_first=False)]


async def answer(app: MmtuiApp, pilot: Pilot[int], key: str, text: str) -> None:
    await pilot.press(key)
    await until_async(lambda: isinstance(app.screen, LineDialog))
    app.screen.query_one(Input).value = text
    await pilot.press("enter")


async def test_range_of_runs_is_marked_tagged_and_the_tags_taken_back(waiting: Home) -> None:
    app = MmtuiApp(waiting)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await pilot.press("v", "j", "v")
        assert set(app.runs_screen.query_one(RunsTable).marked) == {"3", "2"}
        await answer(app, pilot, "T", "paper keep")
        await until_async(lambda: runs.get_run(waiting, "2").row.tags == ("paper", "keep"))
        assert runs.get_run(waiting, "1").row.tags == ()
        await until_async(lambda: app.commands[-1] == "mmtui tag 3 2 --add paper --add keep")
        await answer(app, pilot, "T", "paper")
        await until_async(lambda: runs.get_run(waiting, "3").row.tags == ("paper",))
        await until_async(lambda: len(app.undone) == 2)
        await pilot.press("z")
        await until_async(lambda: set(runs.get_run(waiting, "3").row.tags) == {"paper", "keep"})
        await pilot.press("z")
        await until_async(lambda: runs.get_run(waiting, "2").row.tags == ())
        await pilot.press("z")
        await until_async(lambda: "nothing to undo" in app.runs_screen.said)


async def test_note_is_written_and_taken_back_on_the_screen_of_a_run(waiting: Home) -> None:
    app = MmtuiApp(waiting)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await pilot.press("2")
        await until_async(lambda: isinstance(app.screen, RunScreen))
        await answer(app, pilot, "M", "the [red]best[/] so far")
        await until_async(lambda: runs.get_run(waiting, "3").note == "the [red]best[/] so far")
        await until_async(lambda: bool(app.undone))
        await pilot.press("z")
        await until_async(lambda: runs.get_run(waiting, "3").note == "")


async def change(app: MmtuiApp, pilot: Pilot[int], overrides: str) -> None:
    """Open the form of the run under the cursor, and give it these overrides."""
    await pilot.press("e")
    await until_async(lambda: isinstance(app.screen, NewRunDialog) and app.screen.checker.ready)
    field = app.screen.query_one("#overrides", Input)
    field.value = overrides
    field.focus()
    await pilot.press("enter")


async def test_waiting_run_is_changed_in_its_form_and_changed_back(waiting: Home) -> None:
    app = MmtuiApp(waiting)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await change(app, pilot, "segment.steps=7 segment.optim.lr=0.5")
        await until_async(lambda: runs.get_run(waiting, "3").config["segment"]["steps"] == 7)
        assert runs.get_run(waiting, "3").config["segment"]["optim"]["lr"] == 0.5
        assert app.commands[-1] == "mmtui edit 3 segment.steps=7 segment.optim.lr=0.5"
        await until_async(lambda: bool(app.undone))
        await change(app, pilot, "segment.stepz=7")
        await pilot.pause()
        assert isinstance(app.screen, NewRunDialog), "what is wrong does not close it"
        await pilot.press("escape", "escape")  # the first says that changes will be lost
        await until_async(lambda: not isinstance(app.screen, NewRunDialog))
        await pilot.press("z")
        await until_async(lambda: runs.get_run(waiting, "3").config["segment"]["steps"] == 2)


async def test_override_that_is_taken_out_of_the_form_goes_back_to_the_recipe(waiting: Home) -> None:
    app = MmtuiApp(waiting)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await change(app, pilot, "")
        await until_async(lambda: runs.get_run(waiting, "3").config["segment"]["steps"] == 200)


async def test_run_that_has_begun_is_not_changed(home: Home) -> None:
    seed_run(home, "training one", until=330, seed=2, end=None, now=NOW)
    app = MmtuiApp(home)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await pilot.press("e")
        await until_async(lambda: "F launches one like it" in app.runs_screen.said)


async def test_runs_are_released_and_held_again(waiting: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    app = MmtuiApp(waiting)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await pilot.press("space", "j", "space", "H")
        await until_async(lambda: states(waiting) == ["held", "queued", "queued"])
        await until_async(lambda: bool(app.undone))
        await pilot.press("z")
        await until_async(lambda: states(waiting) == ["held", "held", "held"])


async def test_several_runs_are_cancelled_with_one_answer(waiting: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    # The supervisor is started by its own tests; runs that wait need none.
    monkeypatch.setattr("mmtui.services.supervisors.ensure", lambda home: None)
    app = MmtuiApp(waiting)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await pilot.press("space", "j", "space", "x")
        await until_async(lambda: isinstance(app.screen, CancelDialog))
        await pilot.press("escape", "x")
        await until_async(lambda: isinstance(app.screen, CancelDialog))
        assert states(waiting) == ["held"] * 3, "closing the question cancels nothing"
        await pilot.press("X")
        await until_async(lambda: states(waiting) == ["held", "cancelled", "cancelled"])
        assert app.commands[-1] == "mmtui cancel 3 2 --now"


async def test_ended_runs_go_to_the_trash_and_come_back(home: Home) -> None:
    seed_run(home, "finished one", until=450, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    seed_run(home, "training one", until=330, seed=2, end=None, now=NOW)
    app = MmtuiApp(home)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await pilot.press("D")
        await until_async(lambda: "only runs that have ended" in app.runs_screen.said)
        await pilot.press("j")
        await until_async(lambda: app.runs_screen.acting_ids() == ["1"])
        await pilot.press("D")
        await until_async(lambda: [row.id for row in runs.list_runs(home)] == ["2"])
        await until_async(lambda: bool(app.undone))
        await pilot.press("z")
        await until_async(lambda: [row.id for row in runs.list_runs(home)] == ["2", "1"])


async def test_difference_of_two_marked_runs_is_shown(waiting: Home) -> None:
    app = MmtuiApp(waiting)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await pilot.press("d")
        await until_async(lambda: "mark two runs" in app.runs_screen.said)
        await pilot.press("space", "j", "space", "d")
        await until_async(lambda: isinstance(app.screen, OutputScreen))


async def test_undo_waits_for_what_is_being_done(waiting: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, goes_on, release = threading.Event(), threading.Event(), queue.release

    def slowly(home: Home, run_id: str, **more: str) -> object:
        begun.set()
        assert goes_on.wait(PATIENCE)
        return release(home, run_id, **more)

    monkeypatch.setattr(queue, "release", slowly)
    app = MmtuiApp(waiting)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await pilot.press("H")
        await until_async(begun.is_set)
        await pilot.press("z")
        assert "nothing to undo" not in app.runs_screen.said
        goes_on.set()
        await until_async(lambda: app.runs_screen.said.startswith("undone: run 3 released"))
    assert states(waiting) == ["held"] * 3
    assert not app.deeds and not app.undo_later


def give_foreign_code(home: Home, run_id: str) -> str:
    """Make a run one that came with code of its own; its SHA-256."""
    folder = home.root / "unpacked"
    (folder / "engine").mkdir(parents=True)
    (folder / "engine" / "__init__.py").write_text("evil = True\n")
    digest = code.digest_of(code.files_of(folder))
    home.imported_code.mkdir(exist_ok=True)
    folder.rename(home.imported_code / digest)
    home.run(run_id).imported.write_text(json.dumps({"code": digest}))
    told = json.dumps({"digest": digest[:16], "sha256": digest})
    connection = sqlite3.connect(home.database)
    with connection:
        connection.execute("UPDATE runs SET code = ? WHERE id = ?", [told, run_id])
    connection.close()
    return digest


@pytest.mark.parametrize("key", ["H", "R"])
async def test_code_from_elsewhere_is_asked_about_before_it_may_run(
    waiting: Home, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmtui.services.supervisors.ensure", lambda _home: None)
    digest = give_foreign_code(waiting, "3")
    if key == "R":
        queue.cancel(waiting, "3")
    before, app = states(waiting), MmtuiApp(waiting)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        for leave in ("escape", "n", "q"):
            await pilot.press(key)
            await until_async(lambda: isinstance(app.screen, TrustDialog))
            assert any(digest in str(line.render()) for line in app.screen.query(Static))
            await pilot.press(leave)
            await until_async(lambda: not isinstance(app.screen, TrustDialog))
        assert states(waiting) == before
        await pilot.press(key)
        await until_async(lambda: isinstance(app.screen, TrustDialog))
        await pilot.press("Y")
        await until_async(lambda: states(waiting)[-1] == "queued")
    assert runs.get_run(waiting, "3").code["trusted"] == digest


@pytest.mark.parametrize("right", [True, False], ids=["queued", "refused"])
async def test_leaving_right_behind_a_deed_waits_for_it_and_stays_to_tell_why_it_failed(
    home: Home, right: bool
) -> None:
    """Before, what was asked for was dropped without a word if its thread had not begun."""
    home.create()
    free = threading.Event()
    async with MmtuiApp(home).run_test(size=(100, 30)) as pilot:
        app = pilot.app
        assert isinstance(app, MmtuiApp)
        loop = asyncio.get_running_loop()
        held = [loop.run_in_executor(None, free.wait) for _ in range(64)]  # no thread is free
        app.runs_screen._launch(NewRun("shapes_smoke", () if right else ("no.such.key=1",), "", ("--hold",)))
        await pilot.pause()
        app.runs_screen.action_leave()
        await pilot.pause()
        waits = app.is_running
        free.set()
        await asyncio.gather(*held)
        assert waits
        if right:
            await until_async(lambda: not app.is_running, "the program's end")
        else:
            await until_async(lambda: "no key 'no.such.key'" in app.runs_screen.said, "why not")
            assert app.is_running and not app.leaving
    assert len(runs.list_runs(home)) == right


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
async def test_leaving_says_what_it_waits_for_and_leaves_at_once_when_asked_again(home: Home, key: str) -> None:
    home.create()
    begun, free = threading.Event(), threading.Event()

    def deed() -> None:
        begun.set()
        free.wait()

    async with MmtuiApp(home).run_test(size=(100, 30)) as pilot:
        app = pilot.app
        assert isinstance(app, MmtuiApp)
        app.runs_screen.do("something", deed)
        try:
            await until_async(begun.is_set)
            await pilot.press(*(["ctrl+c"] if key == "ctrl+c" else []), key)
            assert app.runs_screen.said == "leaving when that is done; once more leaves at once"
            assert app.is_running
            await pilot.press(key)
            await until_async(lambda: app.return_value is not None, "the end")
        finally:
            free.set()
    assert app.return_value == 0
