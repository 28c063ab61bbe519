"""Whatever fails where nobody expected it: it is told in its place, and everything else goes on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Static

from mmtui.domain.states import RunEvent
from mmtui.errors import MmtuiError, RefusedError
from mmtui.paths import Home
from mmtui.services import devices, news, run_check, runs
from mmtui.services.live import Changes
from mmtui.settings import Settings
from mmtui.tui import app as program
from mmtui.tui import faults
from mmtui.tui.app import MmtuiApp
from mmtui.tui.feed import Feed
from mmtui.tui.model import Wanted
from mmtui.tui.pages import charts, facts
from mmtui.tui.screens import run_checker
from mmtui.tui.screens.commands import FilterDialog
from mmtui.tui.screens.new_run import NewRunDialog
from mmtui.tui.screens.page import PageScreen
from mmtui.tui.screens.run import RunScreen
from mmtui.tui.screens.runs import RunsScreen
from mmtui.tui.widgets import panels
from mmtui.tui.widgets.chart import ChartPanel
from mmtui.tui.widgets.lines import LinesPanel
from mmtui.tui.widgets.runs_table import RunsTable
from tests.tui.seed import seed_run
from tests.waiting import screen_of, until, until_async

NOW = 1_790_000_000.0
FAULT = "a fault of mmtui: KeyError: 'lost'"
RUN_PANELS = ("chart", "stages", "graph", "classes", "log")


@pytest.fixture(autouse=True)
def nothing_failed() -> None:
    """Here things are to fail."""


@pytest.fixture
def seeded(home: Home) -> Home:
    seed_run(home, "good one", until=450, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    seed_run(home, "bad one", until=450, seed=2, end=RunEvent.EXIT_OK, now=NOW)
    return home


def failing(*_: Any, **__: Any) -> Any:
    """What every test here breaks something with."""
    raise KeyError("lost")


def failing_for(run_id: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that fails for one run."""

    def chosen(home: Home, asked: str, *rest: Any, **named: Any) -> Any:
        return failing() if asked == run_id else function(home, asked, *rest, **named)

    return chosen


def text(app: MmtuiApp, name: str) -> str:
    return app.runs_screen.query_one(f"#{name}", LinesPanel).plain_text()


def words(app: MmtuiApp, name: str) -> str:
    """Header or footer of the screen on top that has them."""
    screens = [screen for screen in app.screen_stack if screen.query(f"#{name}")]
    return str(getattr(screens[-1].query_one(f"#{name}", Static), "shown_text", ""))


def page(app: MmtuiApp) -> str:
    """Lines of the page that is open, "" before it stands."""
    found = app.screen.query("#page").results(LinesPanel) if isinstance(app.screen, PageScreen) else ()
    return "".join(panel.plain_text() for panel in found)


async def standing(app: MmtuiApp, pilot: Pilot[int]) -> None:
    await until_async(lambda: app.runs_screen.is_mounted and "good one" in text(app, "runs"))
    await pilot.pause()


async def leave(app: MmtuiApp, pilot: Pilot[int]) -> None:
    """The program still does what it is told."""
    assert app.is_running
    await pilot.press("q")
    await until_async(lambda: not app.is_running)
    assert app.return_value == 0 and not app.fault


# ---- one run cannot be read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["get_run", "metric_names", "series", "graph_stats", "class_table", "log_tail"])
async def test_run_that_cannot_be_read_says_so_in_its_place_alone(
    seeded: Home, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = getattr(runs, name)
    monkeypatch.setattr(runs, name, failing_for("2", whole))
    app = MmtuiApp(seeded)
    async with app.run_test(size=(160, 48)) as pilot:
        await standing(app, pilot)
        await until_async(lambda: all("a fault of mmtui" in text(app, panel) for panel in RUN_PANELS))
        assert FAULT in " ".join(text(app, "stages").split()) and "bad one" in text(app, "runs")
        assert "1 succeeded" in words(app, "header") or "2 succeeded" in words(app, "header")
        await pilot.press("j")
        await until_async(lambda: "mIoU" in text(app, "classes") and "line 29" in text(app, "log"))
        assert all("a fault of mmtui" not in text(app, panel) for panel in RUN_PANELS)
        await pilot.press("k")
        await until_async(lambda: all("a fault of mmtui" in text(app, panel) for panel in RUN_PANELS))
        assert "line 29" not in text(app, "log")
        monkeypatch.setattr(runs, name, whole)
        await until_async(lambda: "line 29" in text(app, "log"))
        await leave(app, pilot)


async def test_run_that_is_gone_is_told_beside_the_others(seeded: Home) -> None:
    app = MmtuiApp(seeded, select="77")
    async with app.run_test(size=(160, 48)) as pilot:
        await standing(app, pilot)
        await until_async(lambda: "no run 77" in text(app, "stages"))
        assert "bad one" in text(app, "runs") and not app.feed.latest.problem
        await leave(app, pilot)


async def test_panel_that_cannot_be_drawn_says_so_and_the_others_are(
    seeded: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panels, "graph", failing)
    monkeypatch.setattr(ChartPanel, "_curves", failing)
    monkeypatch.setattr(panels, "devices", failing)
    app = MmtuiApp(seeded)
    async with app.run_test(size=(160, 48)) as pilot:
        await standing(app, pilot)
        for panel in ("graph", "chart", "devices"):
            await until_async(lambda panel=panel: FAULT in " ".join(text(app, panel).split()))
        await until_async(lambda: "line 29" in text(app, "log") and "mIoU" in text(app, "classes"))
        await pilot.press("L", "plus", "m", "right_square_bracket", "j")
        await until_async(lambda: "run 1" in app.runs_screen.query_one("#stages", LinesPanel).title_text)
        await pilot.resize_terminal(80, 24)
        await until_async(lambda: "a fault of mmtui" in text(app, "chart"))
        await leave(app, pilot)


async def test_panel_whose_rendering_fails_says_so_in_its_lines(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(160, 48)) as pilot:
        await standing(app, pilot)
        await until_async(lambda: "line 29" in text(app, "log"))
        log = app.runs_screen.query_one("#log", LinesPanel)
        log.show([[(None, "")], [("a good line", "")]])  # type: ignore[list-item]
        await until_async(lambda: "! a fault of mmtui: TypeError" in screen_of(app))
        assert "a good line" in screen_of(app)
        await leave(app, pilot)


async def test_row_that_cannot_be_drawn_says_so_in_its_line(seeded: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    tail = panels.run_tail
    monkeypatch.setattr(panels, "run_tail", lambda row, narrow: failing() if row.id == "2" else tail(row, narrow))
    app = MmtuiApp(seeded)
    async with app.run_test(size=(160, 48)) as pilot:
        await standing(app, pilot)
        await until_async(lambda: f"   2 ! {FAULT}" in text(app, "runs"))
        assert "good one" in text(app, "runs") and "bad one" not in text(app, "runs")
        await pilot.press("j", "k", "space")
        assert list(app.runs_screen.query_one(RunsTable).marked) == ["2"]
        await leave(app, pilot)


# ---- pages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyError, RuntimeError, OSError, RecursionError, MemoryError])
async def test_page_that_cannot_be_read_says_so_and_other_tabs_stand(
    seeded: Home, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fails(*_: Any) -> Any:
        raise error("lost")

    monkeypatch.setattr(charts, "charts", fails)
    app = MmtuiApp(seeded)
    async with app.run_test(size=(120, 40)) as pilot:
        await standing(app, pilot)
        await pilot.press("2")
        await until_async(lambda: f"! a fault of mmtui: {error.__name__}: " in page(app))
        await pilot.press("tab")
        await until_async(lambda: "rejective edges" in page(app))
        await pilot.press("shift+tab")
        await until_async(lambda: "a fault of mmtui" in page(app))
        await pilot.press("q")
        await until_async(lambda: app.screen is app.runs_screen)
        await leave(app, pilot)


async def test_page_that_cannot_be_shown_says_so_and_other_tabs_stand(
    seeded: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "config", lambda *_: [7])  # no line
    app = MmtuiApp(seeded)
    async with app.run_test(size=(120, 40)) as pilot:
        await standing(app, pilot)
        app.open_run("2", "config")
        await until_async(lambda: "! a fault of mmtui: TypeError" in page(app))
        await pilot.press("tab")
        await until_async(lambda: "attempts" in page(app))
        await pilot.press("q")
        await until_async(lambda: app.screen is app.runs_screen)
        await leave(app, pilot)


async def test_title_that_cannot_be_made_says_so_above_its_page(seeded: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunScreen, "title_of", failing)
    app = MmtuiApp(seeded)
    async with app.run_test(size=(120, 40)) as pilot:
        await standing(app, pilot)
        await pilot.press("2")
        await until_async(lambda: FAULT in words(app, "header") and "loss" in page(app))
        await pilot.press("q")
        await until_async(lambda: app.screen is app.runs_screen)
        await leave(app, pilot)


# ---- keys, dialogs, deeds, what comes by itself ----------------------------------------------------------------------


@pytest.mark.parametrize(("module", "name", "keys"), [(runs, "get_run", "x"), (charts, "metrics", "2 m")])
async def test_key_whose_deed_fails_says_so(
    seeded: Home, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, keys: str
) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(120, 40)) as pilot:
        await standing(app, pilot)
        *before, last = keys.split()
        for key in before:
            await pilot.press(key)
        monkeypatch.setattr(module, name, failing)
        await pilot.press(last)
        await until_async(lambda: FAULT in words(app, "footer"))
        if before:
            await pilot.press("q")
            await until_async(lambda: app.screen is app.runs_screen)
        await leave(app, pilot)


@pytest.mark.parametrize(("owner", "name"), [(RunsScreen, "_arrange"), (RunsTable, "move")])
async def test_handler_that_fails_is_told_and_its_part_goes_on(
    seeded: Home, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    """Textual would end the program, and even without that the part would hear of nothing any more."""
    app = MmtuiApp(seeded)
    async with app.run_test(size=(120, 40)) as pilot:
        await standing(app, pilot)
        with monkeypatch.context() as broken:
            broken.setattr(owner, name, failing)
            await pilot.resize_terminal(100, 30)
            await pilot.click("#runs", offset=(5, 3))
            await until_async(lambda: FAULT in words(app, "footer"))
        await pilot.resize_terminal(160, 48)
        await pilot.click("#runs", offset=(5, 3))
        await until_async(lambda: app.runs_screen.query_one(RunsTable).run == "1")
        await leave(app, pilot)


async def test_dialog_whose_reading_fails_says_so_and_closes(seeded: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(120, 40)) as pilot:
        await standing(app, pilot)
        monkeypatch.setattr(runs, "find", failing)
        await pilot.press("slash")
        await until_async(lambda: isinstance(app.screen, FilterDialog))
        await until_async(lambda: FAULT in words(app, "footer"))
        await pilot.press("a", "enter", "escape")
        await until_async(lambda: app.screen is app.runs_screen)
        await leave(app, pilot)


async def test_answer_that_cannot_be_followed_is_told(seeded: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(120, 40)) as pilot:
        await standing(app, pilot)
        monkeypatch.setattr(app.runs_screen, "_filter", failing)
        await pilot.press("slash", "enter")
        await until_async(lambda: FAULT in words(app, "footer"))
        await leave(app, pilot)


async def test_new_run_whose_check_fails_says_so(seeded: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_checker, "check_run", failing)
    monkeypatch.setattr(run_check.forecast, "Costs", failing)
    app = MmtuiApp(seeded)
    async with app.run_test(size=(120, 40)) as pilot:
        await standing(app, pilot)
        await pilot.press("n")
        await until_async(lambda: FAULT in screen_of(app))
        assert isinstance(app.screen, NewRunDialog)
        await pilot.press("escape")
        await until_async(lambda: app.screen is app.runs_screen)
        await leave(app, pilot)


async def test_deed_that_fails_in_its_thread_is_told_and_the_next_is_done(seeded: Home) -> None:
    done = threading.Event()
    app = MmtuiApp(seeded)
    async with app.run_test(size=(120, 40)) as pilot:
        await standing(app, pilot)
        app.runs_screen.do("a deed", failing)
        await until_async(lambda: f"! {FAULT}" in words(app, "footer"))
        app.runs_screen.do("another", done.set)
        await until_async(lambda: done.is_set() and "another" in words(app, "footer"))
        assert app.deeds == 0
        await leave(app, pilot)


async def test_news_and_announcements_that_fail_leave_the_runs_alone(
    seeded: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("since", "mark_seen"):
        monkeypatch.setattr(news, name, failing)
    monkeypatch.setattr(program.notify, "ended", failing)
    app = MmtuiApp(seeded)
    async with app.run_test(size=(120, 40)) as pilot:
        await standing(app, pilot)
        await until_async(lambda: FAULT in words(app, "footer"))
        await until_async(lambda: "line 29" in text(app, "log"))
        await leave(app, pilot)


# ---- the feed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyError, RuntimeError, OSError, RecursionError, MemoryError, MmtuiError])
@pytest.mark.parametrize(("owner", "name"), [(runs, "list_runs"), (Changes, "seen"), (runs, "pinned")])
def test_feed_outlives_every_error_and_goes_on(
    seeded: Home, monkeypatch: pytest.MonkeyPatch, error: type[Exception], owner: Any, name: str
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise error("lost")

    whole = getattr(owner, name)
    monkeypatch.setattr(owner, name, fails)
    feed = Feed(seeded, Wanted())
    feed.start()
    try:
        until(lambda: "lost" in feed.latest.problem)
        assert feed.latest.rows == ()
        monkeypatch.setattr(owner, name, whole)
        until(lambda: len(feed.latest.rows) == 2 and not feed.latest.problem and feed.latest.detail is not None)
    finally:
        feed.stop()


async def test_list_that_cannot_be_read_is_not_taken_for_an_empty_one(
    seeded: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = runs.list_runs
    monkeypatch.setattr(runs, "list_runs", failing)
    app = MmtuiApp(seeded)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_async(lambda: app.runs_screen.is_mounted and FAULT in words(app, "header"))
        assert FAULT in " ".join(text(app, "runs").split()) and "no runs yet" not in text(app, "runs")
        monkeypatch.setattr(runs, "list_runs", whole)
        await standing(app, pilot)
        await leave(app, pilot)


async def test_devices_that_cannot_be_read_say_so_in_their_place(seeded: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "snapshot", failing)
    app = MmtuiApp(seeded)
    async with app.run_test(size=(160, 48)) as pilot:
        await standing(app, pilot)
        await until_async(lambda: FAULT in " ".join(text(app, "devices").split()))
        await until_async(lambda: "line 29" in text(app, "log"))
        await leave(app, pilot)


# ---- the end of the program -----------------------------------------------------------------------------------------


def test_program_that_a_fault_ends_says_which_and_exits_1(
    seeded: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmtui.cli.diagnostics import guarded

    monkeypatch.setattr(MmtuiApp, "run", lambda app, mouse: App.run(app, headless=True, size=(80, 24)))
    monkeypatch.setattr(MmtuiApp, "_begin_to_show", failing)  # a timer: Textual ends the program
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGPIPE)}
    try:
        assert guarded(lambda: program.run(seeded, Settings())) == 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"error: {FAULT} (see {seeded.screen_log})"
    assert "in failing" in seeded.screen_log.read_text()


# ---- words and log --------------------------------------------------------------------------------------------------


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_log_tells_a_fault_once_and_is_private(home: Home) -> None:
    home.create()
    before = os.umask(0)
    try:
        told = [faults.told(home, "here", raised(KeyError("x"))) for _ in range(3)]
    finally:
        os.umask(before)
    assert told == [f"a fault of mmtui: KeyError: 'x' (see {home.screen_log})"] * 3
    written = home.screen_log.read_text()
    assert written.count("Traceback") == 1 and " here\n" in written and "in raised" in written
    assert home.screen_log.stat().st_mode & 0o777 == 0o600
    faults.told(home, "here", raised(ValueError("y")))
    assert home.screen_log.read_text().count("Traceback") == 2


def test_log_that_is_full_gets_nothing_more(home: Home) -> None:
    home.create()
    home.screen_log.write_bytes(b"x" * (faults.MOST_BYTES - 10))
    assert faults.told(home, "here", raised(KeyError("x"))) == "a fault of mmtui: KeyError: 'x'"
    assert home.screen_log.stat().st_size == faults.MOST_BYTES - 10


def test_one_traceback_takes_little_of_the_log(home: Home) -> None:
    home.create()
    faults.told(home, "here", raised(ValueError("long " * 100_000)))
    assert 0 < home.screen_log.stat().st_size <= 2 * faults.MOST_OF_ONE


@pytest.mark.parametrize("kind", ["missing", "file", "folder of that name"])
def test_log_that_cannot_be_written_is_done_without(home: Home, kind: str) -> None:
    if kind == "file":
        home.root.parent.mkdir(parents=True, exist_ok=True)
        home.root.write_text("")
    elif kind != "missing":
        home.screen_log.mkdir(parents=True)
    assert faults.told(home, "here", raised(KeyError("x"))) == "a fault of mmtui: KeyError: 'x'"
    assert home.root.exists() is (kind != "missing")


def test_log_on_a_full_disk_is_done_without(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.create()

    def no_room(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", no_room)
    assert faults.told(home, "here", raised(KeyError("x"))) == "a fault of mmtui: KeyError: 'x'"


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("nothing can be said")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("x"), "a fault of mmtui: KeyError: 'x'"),
        (ValueError(), "a fault of mmtui: ValueError"),
        (ValueError("two\nlines\x1b[31m"), r"a fault of mmtui: ValueError: two lines\x1b[31m"),
        (ValueError("x" * 1000), f"a fault of mmtui: ValueError: {'x' * 169}…"),
        (Unspeakable(), "a fault of mmtui: Unspeakable"),
        (RefusedError("no", "do that"), "no (do that)"),
    ],
)
def test_sentence_is_one_printable_line(error: Exception, text: str, home: Home) -> None:
    assert faults.sentence(error) == text and len(text) <= faults.MOST_CHARACTERS
    assert faults.told(None, "here", raised(error)) == text
    home.create()
    faults.told(home, "here", raised(error))
    assert not home.screen_log.exists() or all(line.isprintable() for line in home.screen_log.read_text().splitlines())


def test_faults_of_a_screen_need_no_textual(repository: Path) -> None:
    """The feed tells of them before Textual is loaded."""
    import subprocess
    import sys

    code = "import sys, mmtui.tui.feed; sys.exit('textual' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository, check=False).returncode == 0
