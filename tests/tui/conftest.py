"""Keys that a test presses have acted when ``press`` comes back, on a machine as busy as it may be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from mmtui.paths import Home
from mmtui.tui.app import MmtuiApp
from mmtui.tui.screens.new_run import NewRunDialog
from tests.waiting import until_async


@pytest.fixture(autouse=True)
def keys_have_acted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Textual's own ``press`` waits until the process seems to do nothing, which a busy machine makes it seem early."""
    press = Pilot.press

    async def press_and_wait(pilot: Pilot[object], *keys: str) -> None:
        for key in keys:
            await press(pilot, key)
            if isinstance(pilot.app, MmtuiApp):
                await acted(pilot.app)

    monkeypatch.setattr(Pilot, "press", press_and_wait)


@pytest.fixture(autouse=True)
def nothing_failed(private_home: Path) -> Iterator[None]:
    """A screen outlives its own faults: the test that has met one fails by its log."""
    yield
    log = Home(private_home).screen_log
    assert not log.exists(), log.read_text()


async def acted(app: MmtuiApp) -> None:
    """Wait until no key waits, and the dialog for new runs, if it is open, has checked what was entered."""
    arrived = asyncio.Event()
    if app.call_later(arrived.set):
        await until_async(arrived.is_set, "a key's arrival")
    await until_async(lambda: not app.is_running or (app.keys_in_order.idle and _checked(app)), "a key's effects")


def _checked(app: MmtuiApp) -> bool:
    screen = app.screen_stack[-1] if app.screen_stack else None
    return (
        not isinstance(screen, NewRunDialog) or not screen.checker.ready or (screen.checker.settled and not screen.busy)
    )
