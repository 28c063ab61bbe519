"""The screen on a data directory of commit cce7257, with the keys of its settings."""

from __future__ import annotations

import pytest

from mmtui import settings
from mmtui.paths import Home
from mmtui.tui import actions
from mmtui.tui.app import MmtuiApp
from mmtui.tui.screens.queue import QueueScreen
from tests.compat.asking import FINISHED
from tests.tui.test_pages import page, plain, ready, shown
from tests.tui.test_screen import text
from tests.waiting import until_async

pytestmark = [pytest.mark.tui]
TABS = {
    "charts": "loss",
    "graph": "rejective edges between classes",
    "classes": "/9 classes",
    "predictions": "val_0000",
    "log": "segment",
    "devices": "host",
    "config": "recipe shapes_smoke",
    "history": "attempts",
}


async def test_every_tab_of_an_old_run_and_the_queue_are_shown(opened: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMTUI_HOME", str(opened.root))
    found = settings.load(opened.config)
    app = MmtuiApp(opened, select=FINISHED, theme=found.theme, ascii_only=found.ascii)
    app.set_keymap(actions.choose_keys(found.keys))
    async with app.run_test(size=(160, 48)) as pilot:
        await ready(app, pilot)
        await until_async(lambda: "[bold red]" in text(app, "runs") and "two attempts" in text(app, "runs"))
        await pilot.press("2")
        for tab, words in TABS.items():
            await until_async(lambda tab=tab: f"[{tab}]" in shown(app))
            await until_async(lambda words=words: words in plain(page(app).body))
            await pilot.press("tab")
        await pilot.press("q")
        await until_async(lambda: app.screen is app.runs_screen)
        await pilot.press("Q")
        await until_async(lambda: isinstance(app.screen, QueueScreen) and "mine_wide" in shown(app))
