"""Draw the screens from the seeded store: docs/screens/*.svg, and tests/tui/snapshots as text (not with: ... svg)."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}  # before Textual asks for them

from screen_svg import svg_of  # noqa: E402
from textual.pilot import Pilot  # noqa: E402

from mmtui.paths import Home  # noqa: E402
from mmtui.services.news import LOOKED_AT  # noqa: E402
from mmtui.store.quick import put_setting  # noqa: E402
from mmtui.supervisor.lock import SupervisorLock  # noqa: E402
from mmtui.tui.app import MmtuiApp  # noqa: E402
from mmtui.tui.screens.page import PageScreen  # noqa: E402
from mmtui.tui.widgets.lines import LinesPanel  # noqa: E402
from tests.tui import visit  # noqa: E402
from tests.tui.seed_store import seed_store, write_recording  # noqa: E402

SCREENS = ROOT / "docs" / "screens"
TAB = "tab"
PICTURES: tuple[tuple[str, tuple[int, int], tuple[str, ...]], ...] = (
    ("runs", (132, 44), ()),
    ("charts", (118, 34), ("2",)),
    ("graph", (118, 40), ("2", TAB)),
    ("classes", (118, 30), ("2", TAB, TAB)),
    ("predictions", (118, 36), ("2", TAB, TAB, TAB)),
    ("compare", (118, 40), ("space", "j", "space", "k", "3")),
    ("queue", (118, 14), ("4",)),
)
"""(screen, columns and lines, keys that lead there from the runs with the one that trains under the cursor)."""


async def draw(home: Home, name: str, size: tuple[int, int], keys: tuple[str, ...]) -> str:
    """One screen as SVG, once everything is on it."""
    app = MmtuiApp(home, select="4", theme="ansi")
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.feed.latest.detail is not None and app.feed.latest.devices is not None)
        for key in keys:
            await pilot.press(key)
            await pilot.pause(0.2)
        if keys:
            await until(pilot, lambda: isinstance(app.screen, PageScreen) and len(app.screen.body) > 1)
        await pilot.pause(0.5)
        for panel in app.screen.query(LinesPanel):
            panel.refresh()
        await pilot.pause()
        strips = app.screen._compositor.render_strips(app.screen.size)
        return svg_of(strips, size[0], f"mmtui: {name}")


async def until(pilot: Pilot[int], there: Callable[[], bool]) -> None:
    """Wait for the data."""
    for _ in range(200):
        if there():
            return
        await pilot.pause(0.1)
    raise SystemExit("the screen never came")


def write_pictures() -> None:
    """docs/screens/NAME.svg for the README, as it looks while a supervisor serves the directory."""
    for name, size, keys in PICTURES:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            home = Home(Path(folder) / "mmtui")
            seed_store(home, time.time())
            put_setting(home, LOOKED_AT, repr(time.time()))  # no news
            write_recording(Path(folder) / "gpus.json")
            os.environ["MMTUI_NVML_RECORDING"] = str(Path(folder) / "gpus.json")
            lock = SupervisorLock(home)
            try:
                picture = asyncio.run(draw(home, name, size, keys))
            finally:
                lock.release()
            (SCREENS / f"{name}.svg").write_text(picture, encoding="utf-8")


def write_texts() -> None:
    """tests/tui/snapshots: every screen as a terminal shows it; tests/tui/test_looks.py compares."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        seen = visit.walk(Path(folder))
    for variant, visited in seen.items():
        for name, text in visited.texts.items():
            if (file := visit.snapshot(name, variant)) is not None:
                file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    SCREENS.mkdir(exist_ok=True)
    write_pictures()
    if "svg" not in sys.argv[1:]:
        write_texts()
