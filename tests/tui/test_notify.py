"""How the terminal is told that a run has ended."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from mmtui.domain.states import RunEvent
from mmtui.domain.views import RunRow
from mmtui.paths import Home
from mmtui.services import news
from mmtui.tui import notify
from mmtui.tui.app import MmtuiApp
from mmtui.tui.screens.dialogs import NewsDialog
from tests.tui.seed import seed_run
from tests.waiting import until_async


def row(run_id: str = "7", state: str = "succeeded", name: str = "sweep", miou: float | None = 41.239) -> RunRow:
    times = {"created_at": 0.0, "started_at": 0.0, "ended_at": 1.0}
    return RunRow(
        id=run_id, name=name, recipe="r", state=state, reason="", stage="", progress=1.0, seed=0, gpus=(), tags=(),
        metrics={"miou": miou, "loss": None}, **times,
    )  # fmt: skip


def test_ended_only_what_was_seen_before_and_was_not_asked_for() -> None:
    before = {"1": "running", "2": "succeeded", "3": "running", "4": "running"}
    rows = (row("1"), row("2"), row("3", "cancelled"), row("4", "running"), row("5"))
    assert [one.id for one in notify.ended(before, rows)] == ["1"]


def test_text_of_one_run_and_of_many() -> None:
    assert notify.text_of([row()]) == "run 7 sweep succeeded, mIoU 41.24"
    assert notify.text_of([row(state="failed")]) == "run 7 sweep failed"
    assert notify.text_of([row(), row(state="failed")]) == "2 runs have ended, 1 of them not well"


@pytest.mark.parametrize(
    ("way", "environment", "sent"),
    [
        ("bell", {}, "\a"),
        ("off", {"KITTY_WINDOW_ID": "1"}, ""),
        ("osc9", {}, "\x1b]9;a, b\x1b\\\a"),
        ("osc777", {}, "\x1b]777;notify;mmtui;a, b\x1b\\\a"),
        ("auto", {"KITTY_WINDOW_ID": "1"}, "\x1b]99;;a, b\x1b\\\a"),
        ("auto", {"TERM_PROGRAM": "WezTerm"}, "\x1b]9;a, b\x1b\\\a"),
        ("auto", {"VTE_VERSION": "7000"}, "\x1b]777;notify;mmtui;a, b\x1b\\\a"),
        ("auto", {"TERM": "xterm-256color"}, "\a"),
        ("osc9", {"TMUX": "/tmp/x"}, "\x1bPtmux;\x1b\x1b]9;a, b\x1b\x1b\\\x1b\\\a"),
    ],
)
def test_sequence_by_what_the_terminal_says_of_itself(way: str, environment: dict[str, str], sent: str) -> None:
    assert notify.sequence("a; b", way, environment) == sent


def test_sequence_name_with_escapes_cannot_end_it_early() -> None:
    evil = notify.text_of([row(name="x\x1b\\\x07\x9c]52;c;aGk=")])
    inside = notify.sequence(evil, "osc9", {})[len("\x1b]9;") : -len("\x1b\\\a")]
    assert not set(inside) & {"\x1b", "\x07", "\x9c", ";"}


class Recorder:
    """What is written to the terminal."""

    def __init__(self, driver: Any) -> None:
        self.driver, self.written = driver, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.driver, name)

    def write(self, text: str) -> None:
        self.written += text


async def test_screen_announces_a_run_that_ends_and_no_other(home: Home) -> None:
    seed_run(home.create(), "one", until=20, seed=1, end=RunEvent.EXIT_OK, now=time.time())
    app = MmtuiApp(home, notify="osc9")
    async with app.run_test(size=(120, 40)) as pilot:
        await until_async(lambda: bool(app.feed.latest.rows))
        await pilot.pause()
        app._driver = recorder = Recorder(app._driver)  # type: ignore[assignment]
        (first, *_) = app.feed.latest.rows
        app.states = {first.run.id: "running"}
        app.feed.latest = replace(app.feed.latest, rows=(replace(first, run=replace(first.run, state="succeeded")),))
        app._announce()
        assert "\x1b]9;run " in recorder.written
        recorder.written = ""
        app._announce()
        assert recorder.written == "", "told once"


@pytest.mark.parametrize(("ago", "shown"), [(3600.0, True), (5.0, False), (None, False)])
async def test_screen_tells_what_ended_while_nobody_looked(home: Home, ago: float | None, shown: bool) -> None:
    seed_run(home.create(), "one", until=20, seed=1, end=RunEvent.EXIT_OK, now=time.time())
    if ago is not None:
        news.mark_seen(home, 1.0 if shown else time.time() - ago)
    app, began = MmtuiApp(home), time.time()
    async with app.run_test(size=(120, 40)) as pilot:
        await until_async(lambda: (news.since(home).since or 0) > began, "a look that is remembered")
        await pilot.pause()
        assert isinstance(app.screen, NewsDialog) == shown
        if shown:
            await pilot.press("x")
            assert not isinstance(app.screen, NewsDialog), "any key closes it"
            assert app.screen is app.runs_screen, "and does nothing else"
