"""The dialog for new runs: keys that come at once, checks that take long, and what stops them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from textual.events import Key
from textual.widgets import Input

from mmtui.paths import Home
from mmtui.services import runs
from mmtui.services.run_check import RunCheck, check_run
from mmtui.tui.screens import run_checker
from mmtui.tui.screens.new_run import NewRunDialog
from tests.tui.conftest import acted
from tests.tui.test_new_run import NewRun, opened, verdict
from tests.tui.test_terminal import Terminal
from tests.waiting import PATIENCE, until_async


async def test_line_that_is_pasted_is_checked_a_few_times_and_at_its_end(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(home) as (pilot, dialog):
        typed = dialog.query_one("#overrides", Input)
        typed.focus()
        await pilot.pause()
        checks: list[str] = []

        def check(home: Home, recipe: str, overrides: Sequence[str], *more: Any) -> RunCheck:
            checks.append(" ".join(overrides))
            return check_run(home, recipe, overrides, *more)

        monkeypatch.setattr(run_checker, "check_run", check)
        text = "segment.batch_size=4 segment.crop=32 match.crop=32 match.patch_size=[8,16] segment.steps=77"
        for letter in text:
            pilot.app.post_message(Key(letter, letter))  # as they come from a terminal: none waits for the one before
        await until_async(lambda: "segment 77 steps" in verdict(dialog))
        assert typed.value == text
        assert checks[-1] == text and len(checks) < len(text) / 3, f"{len(checks)} checks of {len(text)} letters"


async def test_letters_and_ctrl_g_in_one_piece_queue_what_the_letters_say(home: Home) -> None:
    async with opened(home) as (pilot, dialog):
        typed = dialog.query_one("#overrides", Input)
        typed.focus()
        await pilot.pause()
        for letter in "segment.steps=77":
            pilot.app.post_message(Key(letter, letter))
        pilot.app.post_message(Key("ctrl+g", None))
        await until_async(lambda: not isinstance(pilot.app.screen, NewRunDialog))
        await until_async(lambda: bool(runs.list_runs(home)))
    (row,) = runs.list_runs(home)
    assert runs.get_run(home, row.id).overrides == ("segment.steps=77",)


async def test_line_below_never_speaks_of_an_older_text_for_long(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    held, told = threading.Event(), threading.Event()

    def check(home: Home, recipe: str, overrides: Sequence[str], *more: Any) -> RunCheck:
        if overrides:
            told.set()
            assert held.wait(PATIENCE)
        return check_run(home, recipe, overrides, *more)

    async with opened(home) as (_, dialog):
        monkeypatch.setattr(run_checker, "check_run", check)
        await until_async(lambda: verdict(dialog).startswith("ok"))
        dialog.query_one("#overrides", Input).value = "segment.steps=77"
        await until_async(lambda: verdict(dialog) == "checking ...")
        await until_async(told.is_set)
        dialog.query_one("#name", Input).value = "the screen goes on meanwhile"
        await until_async(lambda: "goes on" in str(dialog.query_one("#name", Input).render_line(0).text))
        held.set()
        await until_async(lambda: verdict(dialog).startswith("ok: match 200 steps, segment 77 steps"))


async def test_what_is_typed_behind_enter_changes_nothing_and_escape_stops_a_slow_check(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()

    def check(*asked: Any) -> RunCheck:
        assert held.wait(PATIENCE)
        return check_run(*asked)

    async with opened(home) as (pilot, dialog):
        typed = dialog.query_one("#overrides", Input)
        typed.value = "segment.steps=77"
        typed.focus()
        await until_async(lambda: "segment 77 steps" in verdict(dialog) and typed.has_focus)
        monkeypatch.setattr(run_checker, "check_run", check)
        for key in ("enter", "8", "9"):
            pilot.app.post_message(Key(key, key if len(key) == 1 else None))
        await until_async(lambda: verdict(dialog) == "checking ...")
        assert typed.value == "segment.steps=77", "what comes behind has its turn when the run is queued or refused"
        pilot.app.post_message(Key("escape", None))
        await until_async(lambda: verdict(dialog) == "stopped: nothing was queued")
        held.set()
        await acted(pilot.app)
        assert pilot.app.screen is dialog and typed.value == "segment.steps=77" and not runs.list_runs(home)
        for key in ("enter", "k"):
            pilot.app.post_message(Key(key, key if len(key) == 1 else None))
        await until_async(lambda: bool(runs.list_runs(home)))
    assert runs.get_run(home, "1").overrides == ("segment.steps=77",)


@pytest.mark.parametrize(
    ("keys", "overrides", "steps"),
    [
        (b"nshapes_sm\rsegment.steps=33 segment.batch_size=2\x07", ("segment.steps=33", "segment.batch_size=2"), 33),
        (b"nshapes_sm\rsegment.steps=34\r", ("segment.steps=34",), 34),
        (b"nshapes_sm\t/segment.steps\r\x1b[H\x0b35\r\x07", ("segment.steps=35",), 35),
        (b"n\tseed\t\t\x1b[200~segment.steps=36\x1b[201~\r", ("segment.steps=36",), 36),
    ],
)
def test_keys_in_one_piece_do_what_they_do_one_by_one(
    home: Home, keys: bytes, overrides: tuple[str, ...], steps: int
) -> None:
    terminal = Terminal(home, 100, 30)
    try:
        terminal.wait_for("no runs yet")
        assert terminal.leave(keys + b"kq") == 0, "what comes behind acts on the screen behind"
    finally:
        terminal.child.close()
    detail = runs.get_run(home, "1")
    assert (detail.overrides, detail.config["segment"]["steps"]) == (overrides, steps)
    assert len(runs.list_runs(home)) == 1


async def test_escape_leaves_a_dialog_that_still_reads_its_form(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()

    def check(*asked: Any) -> RunCheck:
        assert held.wait(PATIENCE)
        return check_run(*asked)

    monkeypatch.setattr(run_checker, "check_run", check)
    try:
        async with opened(home, like=NewRun("shapes_smoke", ("seed=3",), "")) as (pilot, dialog):
            await until_async(lambda: dialog.busy)
            for key in ("x", "escape"):
                pilot.app.post_message(Key(key, key if len(key) == 1 else None))
            await until_async(lambda: pilot.app.screen is not dialog)
            held.set()
    finally:
        held.set()


async def test_name_that_is_typed_needs_no_check(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line below is about recipe, overrides and options; it counted as old until these were changed, too."""
    async with opened(home) as (pilot, dialog):
        await until_async(lambda: dialog.checker.settled, "the first check")
        typed = dialog.query_one("#name", Input)
        typed.focus()
        await pilot.pause()
        pilot.app.post_message(Key("U", "U"))
        await until_async(lambda: typed.value == "U", "the name")
        assert dialog.checker.settled
